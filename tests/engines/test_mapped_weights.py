"""No engine keeps its weights in the page cache, where binding does not reach them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.host.process import family, read_all
from engine.host.root import HostRoot
from tests.bundled_model import bundled_model
from tests.engines.real import PUS, bring_up, layout_of, take_down
from tests.processes import Home


def resident_bytes(pid: int, file: Path) -> Iterator[int]:
    """Of each mapping of a file, by /proc/PID/smaps."""
    counts = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *others = line.split()
        if "-" in first:
            counts = line.endswith(f" {file}")
        elif counts and first == "Rss:":
            yield int(others[0]) * 1024


@pytest.mark.parametrize("engine", ["torch", "ipex", "vllm-cpu", "ipex-llm"])
def test_weights_are_in_the_engines_own_memory(home: Home, engine: str) -> None:
    # bfloat16 as in the file: in another type they could not be left there.
    file, ports = layout_of(home, engine, PUS[-1:], dtype="bfloat16")
    one = bring_up(home, file)["i0"]
    weights = (bundled_model() / "model.safetensors").resolve()
    processes = family(read_all(HostRoot()), [one["pid"]])
    mapped = {pid: sum(resident_bytes(pid, weights)) for pid in processes}
    assert set(mapped.values()) == {0}, mapped
    assert one["rss_bytes"] > weights.stat().st_size
    take_down(home, [one["pid"]], ports)
