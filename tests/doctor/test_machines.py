"""All checks over our own records, recorded cards, and files full of nonsense."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.core.cpuset import CpuSet
from engine.core.topology import Machine
from engine.doctor.host import Answers, Host
from engine.doctor.registry import CHECKS
from engine.host.archive import open_root
from engine.host.device_root import DeviceRoot
from engine.host.gpus import read_gpus
from engine.host.machine import read_machine
from tests.doctor.sound import sound
from tests.machines_by_hand import MACHINES
from tests.shared import needs
from tests.sysfs_tree import SysfsTree, recorded_card

GATHERED = sorted((Path(__file__).parent.parent / "machines").glob("*.tar.gz"))
ANSWERS = Answers(memory_policy=1, amx=22, user="ann")


@pytest.mark.parametrize("record", GATHERED, ids=lambda path: path.name)
def test_our_own_records(record: Path) -> None:
    with open_root(record) as root:
        states = sound(Host(root, read_machine(root)))
    assert states["cpu-clock"] == "unknown"
    assert states["numa-nodes"] != "unknown"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("b580", {"gpu-driver": "ok", "gpu-bar": "ok", "gpu-clock": "ok", "gpu-throttle": "ok"}),
        ("a380-xe", {"gpu-driver": "ok", "gpu-bar": "ok", "gpu-throttle": "ok"}),
        ("a380-i915", {"gpu-driver": "ok", "gpu-clock": "ok", "gpu-throttle": "ok"}),
        ("tigerlake", {}),
    ],
)
def test_recorded_cards(name: str, expected: dict[str, str], tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    recorded_card(needs(f"machines/gpus/{name}.tar.bz2"), tree)
    gpus, _ = read_gpus(tree.root, [(0, CpuSet(range(4)))])
    machine = Machine((), (), (), MACHINES["small"].pus, CpuSet(), None, gpus, (), live=False)
    states = sound(Host(tree.root, machine))
    assert expected.items() <= states.items()
    assert expected or not any(one.startswith("gpu") for one in states)


@dataclass(frozen=True, slots=True)
class Nonsense(DeviceRoot):
    """A kernel that says the same thing in every file."""

    words: str = ""

    def raw(self, name: str) -> bytes | None:
        return self.words.encode()

    def octets(self, name: str, most: int) -> bytes | None:
        return self.words.encode()[:most]

    def names(self, folder: str) -> tuple[str, ...]:
        names = ("policy0", "policy1", "intel-rapl:0", "tile0", "gt0", "reason_x", "hwmon0")
        return (*names, "DMI", "throttle_reason_x", "60.conf")

    def link(self, name: str) -> str | None:
        return None


WORDS = [
    "",
    "0",
    "1",
    "-1",
    "9" * 30,
    "\0",
    "[",
    "[x]",
    "package",
    "a b\nc: d\n",
    "::/..",
    "é" * 999,
]
WORDS += ["0::x", "1 2 3 x /dev/shm rw - proc size=9", "1 2 3 / /c rw - cgroup2 c c\n0::x\n"]
WORDS += ["\x11\x04\0\0" * 9, "flags: \nflags\t: amx_tile", "SwapTotal: 1 kB\nSwapFree: 9 kB"]


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("answers", [None, ANSWERS], ids=["recorded", "live"])
def test_nonsense_is_never_more_than_a_finding(machine: Machine, answers: Answers | None) -> None:
    for words in WORDS:
        sound(Host(Nonsense(words=words), machine, answers))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__module__.split(".")[2])
def test_each_names_its_source(check: Callable[[Host], object]) -> None:
    module = sys.modules[check.__module__]
    assert any(
        word in str(module.__doc__)
        for word in ("Documentation/", "include/", "(2)", "(5)", "SMBIOS", "guide", "drivers/")
    )


def test_the_document_has_a_row_for_each_in_order() -> None:
    text = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)
    assert rows == [sys.modules[check.__module__].ID for check in CHECKS]
