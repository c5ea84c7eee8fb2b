"""GPUs as the service shows them, from /sys and /proc written by hand."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.core.status import GpuStatus
from engine.core.topology import Gpu
from engine.host.gpus import read_gpus
from engine.host.root import HostRoot
from engine.service.gpu_sampler import UNWATCHED_EVERY_S, GpuSample, GpuSampler
from tests.sysfs_tree import PREFETCH_64, SysfsTree

GIB, MIB = 1 << 30, 1 << 20
OURS, RANK, OTHER = 100, 101, 900


@dataclass(frozen=True, slots=True)
class CountingRoot(HostRoot):
    """Remembers which files were asked for."""

    asked: list[str] = field(default_factory=list)

    def content(self, name: str) -> str | None:
        self.asked.append(name)
        return HostRoot.content(self, name)


class Cards:
    """Two B580 under xe, and processes that have them open."""

    def __init__(self, path: Path) -> None:
        self._tree = SysfsTree(path)
        self.root = CountingRoot(path)
        for at in range(2):
            self._tree.function(
                f"pci0000:{at}0/0000:{at}3:00.0",
                device=0xE20B,
                driver="xe",
                bars=[(1 << 40, 16 * GIB, PREFETCH_64)],
                drm=(f"card{at}", f"renderD{128 + at}"),
            )
            hwmon = f"{self._folder(at)}/hwmon/hwmon{at}"
            self._tree.file(f"{hwmon}/name", "xe")
            for number, label in ((1, "card"), (2, "pkg")):
                self._tree.file(f"{hwmon}/energy{number}_label", label)
            self.burn(at, card_uj=0, pkg_uj=0)
        self.gpus: tuple[Gpu, ...] = read_gpus(self.root, [])[0]
        self.sampler = GpuSampler(self.root)
        self.members = {"a": [OURS, RANK]}
        for pid in (OURS, RANK, OTHER):
            (path / f"proc/{pid}/fd").mkdir(parents=True)

    def _folder(self, at: int) -> str:
        return f"sys/devices/pci0000:{at}0/0000:{at}3:00.0"

    def burn(self, at: int, *, card_uj: int, pkg_uj: int) -> None:
        hwmon = f"{self._folder(at)}/hwmon/hwmon{at}"
        self._tree.file(f"{hwmon}/energy1_input", str(card_uj))
        self._tree.file(f"{hwmon}/energy2_input", str(pkg_uj))

    def opens(
        self, pid: int, at: int, client: int, *, mib: int, cycles: int, total: int, fd: int = 3
    ) -> None:
        path = self._tree.path / f"proc/{pid}/fd/{fd}"
        path.unlink(missing_ok=True)
        path.symlink_to(f"/dev/dri/renderD{128 + at}")
        self._tree.file(
            f"proc/{pid}/fdinfo/{fd}",
            f"drm-driver:\txe\ndrm-client-id:\t{client}\ndrm-resident-vram0:\t{mib} MiB\n"
            f"drm-cycles-ccs:\t{cycles}\ndrm-total-cycles-ccs:\t{total}\n"
            f"drm-cycles-bcs:\t0\ndrm-total-cycles-bcs:\t{total}",
        )

    def sample(self, now: float, *, watched: bool = True) -> GpuSample:
        return self.sampler.sample(now, self.gpus, self.members, watched=watched)

    def first(self, now: float, *, watched: bool = True) -> GpuStatus:
        return self.sample(now, watched=watched).gpus[0]


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    return Cards(tmp_path)


def test_what_each_takes_is_counted_once_and_together_it_is_the_cards(cards: Cards) -> None:
    # Client 1 is open twice, in two processes; 2 is the other rank's own; 5 is a stranger's.
    cards.opens(OURS, 0, 1, mib=4096, cycles=0, total=0)
    cards.opens(RANK, 0, 1, mib=4096, cycles=0, total=0, fd=3)
    cards.opens(RANK, 0, 2, mib=1024, cycles=0, total=0, fd=4)
    cards.opens(RANK, 1, 1, mib=512, cycles=0, total=0, fd=5)
    cards.opens(OTHER, 0, 5, mib=1024, cycles=0, total=0)
    (use, second) = cards.sample(10.0).uses["a"]
    assert (use.index, use.memory_bytes, second.memory_bytes) == (0, 5120 * MIB, 512 * MIB)
    assert use.busy is None
    assert "needs a second sample" in use.why
    assert cards.first(10.5).unknown["power_w"] == "its energy counters stand still"

    cards.burn(0, card_uj=0, pkg_uj=90_000_000)
    cards.opens(OURS, 0, 1, mib=4096, cycles=500, total=1000)
    cards.opens(RANK, 0, 1, mib=4096, cycles=500, total=1000, fd=3)
    cards.opens(RANK, 0, 2, mib=1024, cycles=100, total=1000, fd=4)
    cards.opens(OTHER, 0, 5, mib=1024, cycles=200, total=1000)
    sample = cards.sample(12.5)
    use, status = sample.uses["a"][0], sample.gpus[0]
    assert use.engines == pytest.approx({"compute": 0.6, "copy": 0.0})
    assert use.busy == pytest.approx(0.6)
    assert use.why == ""
    assert status.busy == pytest.approx(0.8)
    assert (status.memory_used_bytes, status.memory_total_bytes) == (6144 * MIB, 12 * GIB)
    assert status.power_w == pytest.approx(45.0)
    assert status.notes == {"power_w": "of the chip, without memory and fans"}
    cards.burn(0, card_uj=120_000_000, pkg_uj=180_000_000)
    assert cards.first(14.5).power_w == pytest.approx(60.0)  # the whole card's own, once it moves


def test_a_card_that_nobody_has_open_is_idle_only_where_all_can_be_seen(
    cards: Cards, tmp_path: Path
) -> None:
    idle = cards.first(1.0)
    assert (idle.busy, idle.memory_used_bytes) == (0.0, 0)
    # A process whose files are not ours to see (here: it has none).
    SysfsTree(tmp_path).file("proc/950/stat", "950 (secret) S 1" + " 0" * 48)
    hidden = cards.first(40.0)
    assert (hidden.busy, hidden.memory_used_bytes) == (None, None)
    assert "other users" in hidden.unknown["busy"]
    assert "other users" in hidden.unknown["memory_used_bytes"]


def test_clients_that_tell_more_than_there_is_are_not_believed(cards: Cards) -> None:
    cards.opens(OURS, 0, 1, mib=9000, cycles=0, total=0)
    cards.opens(RANK, 0, 2, mib=9000, cycles=0, total=0)
    status = cards.first(1.0)
    assert status.memory_used_bytes is None
    assert "more than it has" in status.unknown["memory_used_bytes"]


def test_unwatched_it_is_read_once_a_minute_and_strangers_not_at_all(cards: Cards) -> None:
    cards.opens(OTHER, 0, 5, mib=1024, cycles=0, total=0)
    first = cards.sample(0.0, watched=False)
    assert first.gpus[0].busy is None  # strangers may have it open
    cards.root.asked.clear()
    assert cards.sample(UNWATCHED_EVERY_S - 1, watched=False) is first
    assert cards.root.asked == []
    cards.opens(OURS, 0, 1, mib=64, cycles=0, total=0)
    later = cards.sample(UNWATCHED_EVERY_S, watched=False)
    assert later.uses["a"][0].memory_bytes == 64 * MIB
    assert not [name for name in cards.root.asked if name.startswith(f"proc/{OTHER}/")]


def test_what_is_read_each_second_is_little(cards: Cards) -> None:
    for number in (3, 4, 5):  # one client, as a runtime opens it
        cards.opens(OURS, 0, 1, mib=64, cycles=0, total=0, fd=number)
    cards.sample(0.0)
    cards.root.asked.clear()
    cards.sample(1.0)
    # One file of the client; of each card whether it sleeps, two counters and the old clock.
    assert len(cards.root.asked) <= 1 + 2 * 4


def test_a_machine_without_gpus_costs_nothing(cards: Cards) -> None:
    cards.root.asked.clear()
    assert cards.sampler.sample(1.0, (), cards.members, watched=True) == GpuSample()
    assert cards.root.asked == []
