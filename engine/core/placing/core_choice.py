"""Which cores of a place an instance gets: kinds, priority, SMT siblings, the reserve."""

from collections.abc import Sequence

from engine.core.cpuset import CpuSet
from engine.core.errors import CannotPlace
from engine.core.layout import Instance
from engine.core.placing.shares import home
from engine.core.topology import Core, Machine

_NO_PUS = CpuSet()


def of_kind(
    wish: Instance, cores: Sequence[Core], where: str, *, named: bool, reasons: list[str]
) -> tuple[Core, ...]:
    """The cores of the kind that the wish prefers. Raises CannotPlace.

    Threads of one step wait for the slowest, so a mixture runs at the speed of the efficiency
    cores: they are left out unless the layout names the cores one by one or asks for them.
    """
    kinds = {core.kind for core in cores}
    wanted = wish.core_kind
    if named or wanted == "any" or kinds <= {None}:
        return tuple(cores)
    if wanted is None:
        if len(kinds) == 1:
            return tuple(cores)
        wanted = "performance"
    chosen = tuple(core for core in cores if core.kind == wanted)
    if not chosen:
        raise CannotPlace(
            f"{where} has no free {wanted} core", 'Write core_kind = "any", or choose another slot'
        )
    if left := len(cores) - len(chosen):
        other = "efficiency" if wanted == "performance" else "performance"
        reasons.append(
            f"{counted(left)} of {where} left out, of the {other} kind: threads wait for the "
            'slowest (core_kind = "any" takes them)'
        )
    return chosen


def warn_of_mixture(cores: Sequence[Core], warnings: list[str]) -> None:
    """Tell when threads of one instance run at different speeds."""
    slow = sum(1 for core in cores if core.kind == "efficiency")
    if 0 < slow < len(cores):
        warnings.append(
            f"{counted(slow)} of {len(cores)} are efficiency cores: threads wait for the slowest"
        )


def of_wished_kind(wish: Instance, cores: Sequence[Core]) -> list[Core]:
    """The cores that may be chosen from: where no kind is wished, performance cores, else all."""
    if wish.core_kind == "any":
        return list(cores)
    wanted = wish.core_kind or "performance"
    chosen = [core for core in cores if core.kind in (None, wanted)]
    return chosen if chosen or wish.core_kind else list(cores)


def preferred(cores: Sequence[Core], count: int, *, shared: CpuSet = _NO_PUS) -> tuple[Core, ...]:
    """The `count` best cores, in the machine's order."""
    return tuple(cores[at] for at in sorted(ranked(cores, shared=shared)[:count]))


def ranked(cores: Sequence[Core], *, shared: CpuSet = _NO_PUS) -> list[int]:
    """Positions, the best first: those without `shared` PUs, then performance before efficiency,
    then those that may run faster, then the first ones."""

    def rank(position: int) -> tuple[bool, bool, int, int]:
        core = cores[position]
        slow = core.kind == "efficiency"
        return bool(core.pus & shared), slow, -(core.highest_perf or 0), position

    return sorted(range(len(cores)), key=rank)


def pus_of(
    wish: Instance, cores: Sequence[Core], machine: Machine, where: str, reasons: list[str]
) -> CpuSet:
    """One PU of each core, or with `smt` all that we may use; siblings by the kernel's list."""
    usable = machine.pus.usable
    every = CpuSet(pu for core in cores for pu in core.pus)
    if wish.smt:
        pus = every & usable
        reasons.append(f"{where}: {counted(len(cores))} with their SMT siblings, {len(pus)} PUs")
        return pus
    first = CpuSet(min(core.pus & usable) for core in cores)
    siblings = len(every) - len(first)
    idle = f", {siblings} SMT sibling{'s' if siblings > 1 else ''} left idle"
    reasons.append(f"{where}: {counted(len(first))}, one PU each{idle if siblings else ''}")
    return first


def by_node(cores: Sequence[Core]) -> list[tuple[Core, ...]]:
    """The cores of each NUMA node: an engine that splits itself over them has as many threads on
    each, so what it leaves free it leaves on each."""
    parts: dict[int, list[Core]] = {}
    for core in cores:
        parts.setdefault(home(core), []).append(core)
    return [tuple(part) for part in parts.values()]


def leave_reserve(
    asked: int | None, wanted: int, pus: CpuSet, cores: tuple[Core, ...], reasons: list[str]
) -> tuple[CpuSet, tuple[Core, ...]]:
    """PUs and cores without those left for the API process and the kernel. Raises CannotPlace.

    `asked` is the layout's word, `wanted` the engine's. The slowest cores are left, of equals the
    last.
    """
    # The engine only asks; it does not lose its place over that.
    reserve = min(wanted, len(cores) - 1) if asked is None else asked
    if not reserve:
        return pus, cores
    if reserve >= len(cores):
        raise CannotPlace(
            f"reserve_cores = {reserve} leaves none of the slot's {counted(len(cores))}",
            "Reserve fewer cores or choose a larger slot",
        )
    kept = preferred(cores, len(cores) - reserve)
    left = CpuSet(pu for pu in pus if not any(pu in core.pus for core in kept))
    reasons.append(f"{reserve} reserved for the API process and the kernel: PU {left}")
    return pus - left, kept


def counted(count: int, kind: str = "") -> str:
    """ "1 core", "2 cores"; "2 efficiency cores"."""
    return f"{count} {kind}core{'' if count == 1 else 's'}"
