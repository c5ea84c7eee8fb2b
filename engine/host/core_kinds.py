"""Performance and efficiency cores, where a machine has both, and the fastest ones of a kind."""

from collections.abc import Callable, Iterable

from engine.core.cpuset import CpuSet
from engine.core.topology import Missing
from engine.host.lists import read_index, read_list
from engine.host.root import HostRoot

PERFORMANCE, EFFICIENCY = "performance", "efficiency"

_CPU = "sys/devices/system/cpu"
# Intel's event sources, one for each kind of core that a hybrid processor has.
_INTEL = {
    "sys/devices/cpu_core/cpus": PERFORMANCE,
    "sys/devices/cpu_atom/cpus": EFFICIENCY,
    "sys/devices/cpu_lowpower/cpus": EFFICIENCY,
}
# Arm's small cores have up to 0.6 of the capacity of the largest, its middle ones from 0.7 on.
_SMALL = 2 / 3
# Intel's efficient cores run at up to 0.81 of the other ones' highest clock. Equal cores differ
# by a few percent, where firmware tells which of them may run the fastest.
_SLOW = 0.82
_FEW = 256
"""More PUs in one package are a server's, whose clocks differ for other reasons."""

# What cores are ranked by, the firmware's own word first.
_RANKS = ("acpi_cppc/highest_perf", "cpufreq/cpuinfo_max_freq")

Kinds = Callable[[CpuSet], str | None]
Ranks = Callable[[CpuSet], int | None]


def read_core_kinds(
    root: HostRoot, cores: Iterable[CpuSet], packages: int
) -> tuple[Kinds, tuple[Missing, ...]]:
    """How to tell a core's kind from its PUs; None for all where cores are of one kind.

    From Intel's /sys/devices/cpu_core and cpu_atom, else from `cpuN/cpu_capacity` (Arm, RISC-V),
    else from `cpuN/cpufreq/cpuinfo_max_freq`, which is a guess and said to be one.
    """
    by_kind: dict[str, CpuSet] = {}
    for name, kind in _INTEL.items():
        if told := read_list(root, name):
            by_kind[kind] = by_kind.get(kind, CpuSet()) | told
    if len(by_kind) > 1:
        return _lookup(by_kind), ()
    sets = list(cores)
    if split := _split(root, sets, "cpu_capacity", _SMALL):
        return _lookup(split[0]), ()
    few = sum(map(len, sets)) <= _FEW and packages <= 1
    if few and (split := _split(root, sets, "cpufreq/cpuinfo_max_freq", _SLOW)):
        low, high = (f"{khz / 1e6:.1f} GHz" for khz in split[1])
        why = f"the kernel lists no kinds: cores of at most {low} beside {high} taken as efficient"
        return _lookup(split[0]), (Missing("cores[*].kind", why),)
    return (lambda pus: None), ()


def read_highest_perf(root: HostRoot, cores: Iterable[CpuSet], kind_of: Kinds) -> Ranks:
    """How to tell from a core's PUs how fast it may run beside the machine's other cores.

    From `cpuN/acpi_cppc/highest_perf` (Documentation/admin-guide/acpi/cppc_sysfs), which Intel's
    priority cores (PCT, SST-TF) and favoured cores (Turbo Boost Max) have higher than the rest,
    and AMD's preferred cores; where the kernel has no such files, from
    `cpuN/cpufreq/cpuinfo_max_freq` in kHz. All cores by the same one: the numbers are there to be
    compared. None for all where not every core tells it, or where it prefers no core to another
    of its kind.
    """
    sets = list(cores)
    for name in _RANKS:
        if numbers := _numbers(root, sets, name):
            kinds = {(kind_of(pus), number) for pus, number in numbers.items()}
            uneven = len(kinds) > len({kind for kind, _ in kinds})
            return numbers.get if uneven else (lambda pus: None)
    return lambda pus: None


def _lookup(by_kind: dict[str, CpuSet]) -> Kinds:
    return lambda pus: next((kind for kind, members in by_kind.items() if pus & members), None)


def _split(
    root: HostRoot, cores: list[CpuSet], name: str, ratio: float
) -> tuple[dict[str, CpuSet], tuple[int, int]] | None:
    """The cores in two kinds by a number of each; None where it is not told of all or alike."""
    numbers = _numbers(root, cores, name)
    most = max(numbers.values(), default=0)
    small = {pus: number for pus, number in numbers.items() if number < ratio * most}
    if not small:
        return None
    slow = CpuSet(pu for pus in small for pu in pus)
    fast = CpuSet(pu for pus in cores for pu in pus) - slow
    return {PERFORMANCE: fast, EFFICIENCY: slow}, (max(small.values()), most)


def _numbers(root: HostRoot, cores: Iterable[CpuSet], name: str) -> dict[CpuSet, int]:
    """A number of each core, as its first PU tells it; empty where one does not."""
    numbers: dict[CpuSet, int] = {}
    for pus in cores:
        number = read_index(root, f"{_CPU}/cpu{min(pus)}/{name}")
        if not number:
            return {}
        numbers[pus] = number
    return numbers
