"""Our own records of machines, one archive each, against what is true of the machine.

To add one: run `slotdeck gather` there, name the file by its shape, and write the JSON beside it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.core.codec import encode
from engine.core.topology import Machine
from engine.host.archive import open_root
from engine.host.gather import gather
from engine.host.machine import read_machine

RECORDS = sorted((Path(__file__).parents[1] / "machines").glob("*.tar.gz"))


def told(machine: Machine) -> dict[str, Any]:
    """What a placement depends on, in the words of `topo --json`."""
    whole = json.loads(encode(machine))
    return {
        "packages": whole["packages"],
        "numa_nodes": [
            # Only memory without PUs has initiators.
            {key: value for key, value in node.items() if key != "initiators" or value}
            for node in whole["numa_nodes"]
        ],
        "cores": [
            f"{core['package']}/{core['core_id']}: {core['pus']}" for core in whole["cores"]
        ],
        "pus": whole["pus"],
        "usable_nodes": whole["usable_nodes"],
        "distances": whole["distances"],
        "gpus": whole["gpus"],
    }


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_a_record_reads_as_the_machine_was(path: Path) -> None:
    expected = json.loads(path.with_name(path.name.replace(".tar.gz", ".json")).read_text())
    with open_root(path) as root:
        assert told(read_machine(root)) == expected


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_a_record_can_be_recorded_again(path: Path, tmp_path: Path) -> None:
    with open_root(path) as root:
        done = gather(root, tmp_path / "again.tar.gz")
    assert done.differences == done.left_out == ()
