"""Places for some instances beside all others: where they were, or where their slots say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.layout import Instance, Layout, Ports
from engine.core.placement import Placement, Refusal
from engine.core.placing.held import Held
from engine.core.topology import Machine
from engine.host.ports import listening_ports
from engine.service.managed import Managed
from engine.service.neighbours import free_memory, strangers_on
from engine.service.orders import Planned, order_of
from engine.service.planning import plan_layout
from engine.service.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Stand:
    """How one instance stands, or is to stand."""

    wish: Instance
    base: str
    layout: str = ""
    """The name of the layout file that asked for it."""
    placement: Placement | None = None
    """The very place that it shall have; None: what its slot says."""
    strictly: bool = False
    """No other place will do."""
    active: bool = True


def stand_of(one: Managed) -> Stand:
    """How an instance stands now, to be brought back to just that."""
    return Stand(one.wish, one.base, one.layout, one.placement, strictly=True, active=one.active)


def arrange(
    supervisor: Supervisor, stands: Sequence[Stand], machine: Machine, leaving: Iterable[str] = ()
) -> tuple[list[Planned], list[Refusal]]:
    """Place them beside all others that hold their slots, but for those that are to stop."""
    names = {stand.wish.name for stand in stands} | set(leaving)
    beside = _Beside(supervisor, machine, names)
    planned: list[Planned] = []
    refusals: list[Refusal] = []
    waiting: dict[tuple[str, Ports], list[Stand]] = {}
    for stand in stands:
        try:
            if (again := beside.again(stand)) is not None:
                planned.append(again)
            else:
                known = supervisor.managed.get(stand.wish.name)
                ports = known.ports if known is not None else Ports()
                waiting.setdefault((stand.base, ports), []).append(stand)
        except ControlError as error:
            refusals.append(_refused(stand.wish.name, error))
    for (base, ports), some in waiting.items():
        wishes = tuple(one.wish for one in some)
        layout = Layout(name=some[0].layout, instances=wishes, ports=ports)
        try:
            plan = plan_layout(
                machine, layout, supervisor.around, base=base, held=beside.held(some)
            )
        except ControlError as error:
            refusals.extend(_refused(one.wish.name, error) for one in some)
            continue
        planned.extend(plan.planned)
        refusals.extend(plan.refusals)
        for one in plan.planned:
            beside.take(one.wish.name, one.placement)
    return planned, refusals


class _Beside:
    """Who holds what while some instances are placed."""

    def __init__(self, supervisor: Supervisor, machine: Machine, names: set[str]) -> None:
        self._supervisor, self._machine = supervisor, machine
        managed = supervisor.managed
        others = [one for one in managed.values() if one.name not in names and one.active]
        # Where they are and where they are going: a move holds both until it is over.
        self._pus = {one.name: _with_siblings(one.held_pus, machine) for one in others}
        self._ports = strangers_ports(supervisor, {*names, *(one.name for one in others)})
        self._ports |= {one.placement.port: one.name for one in others}
        self._gpus = {gpu: one.name for one in others for gpu in one.placement.gpus}

    def take(self, name: str, placement: Placement) -> None:
        """From now on it is held."""
        self._pus[name] = _with_siblings(placement.pus, self._machine)
        self._ports[placement.port] = name
        self._gpus |= dict.fromkeys(placement.gpus, name)

    def again(self, stand: Stand) -> Planned | None:
        """Back to its own place, also when `auto` would now choose another one; None where it
        has none, or may have another. Raises ControlError where it must have just that one."""
        at = stand.placement
        if at is None:
            return None
        holders = {name for name, pus in self._pus.items() if pus & at.pus}
        holders |= {self._gpus[gpu] for gpu in at.gpus if gpu in self._gpus}
        if holders or not at.pus <= self._machine.pus.usable:
            if not stand.strictly:
                return None
            raise ControlError(
                what=f"The place of {stand.wish.name} is not free",
                why=f"{' and '.join(sorted(holders))} is there"
                if holders
                else f"PUs {at.pus - self._machine.pus.usable} are not for us any more",
                do="Move it to another slot instead",
            )
        if at.port in self._ports:
            raise ControlError(
                what=f"Port {at.port} is taken",
                why=f"{self._ports[at.port]} listens on it",
                do="Stop that, or give the instance another port",
            )
        around = self._supervisor.around
        planned = order_of(stand.wish, at, self._machine, around, base=stand.base)
        self.take(stand.wish.name, planned.placement)
        return planned

    def held(self, stands: Iterable[Stand]) -> Held:
        """What a plan has to leave alone."""
        managed = self._supervisor.managed
        names = [stand.wish.name for stand in stands]
        ports = {name: managed[name].placement.port for name in names if name in managed}
        return Held(
            self._pus,
            self._ports,
            ports,
            self._gpus,
            strangers_on(self._supervisor.root, self._machine),
            free_bytes(self._supervisor),
        )


def free_bytes(supervisor: Supervisor) -> dict[int, int]:
    """Free memory, where none of ours runs: what they hold may be free again after."""
    if any(one.running is not None for one in supervisor.managed.values()):
        return {}
    return free_memory(supervisor.root)


def strangers_ports(supervisor: Supervisor, ours: set[str]) -> dict[int, str]:
    """Ports that other programs listen on."""
    own = {
        one.at.placement.port
        for one in supervisor.managed.values()
        if one.name in ours and one.running is not None
    }
    return dict.fromkeys(listening_ports(supervisor.root) - own, "another program")


def _with_siblings(pus: CpuSet, machine: Machine) -> CpuSet:
    """A core belongs to one instance, with all its SMT siblings."""
    return CpuSet(pu for core in machine.cores if core.pus & pus for pu in core.pus)


def _refused(name: str, error: ControlError) -> Refusal:
    return Refusal(name, f"{error.what}: {error.why}", error.do)
