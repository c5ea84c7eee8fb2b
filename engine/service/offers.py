"""Offers: what a change would start, stop and move, made first and applied after."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.control import (
    AddInstances,
    ApplyLayout,
    Change,
    HeldLayout,
    HeldWish,
    MoveInstance,
    MoveInstances,
    Offer,
    Redo,
    RestartInstances,
    Seat,
    StartInstances,
    StartLoad,
    StopInstances,
    StopLoad,
    Undo,
    words_of,
)
from engine.core.errors import ControlError, SlotError, StaleOffer
from engine.core.layout import Ports, parse_layout
from engine.core.placement import Placement, Refusal, moved
from engine.core.placing.held import Held
from engine.core.status import InstanceStatus, State
from engine.core.topology import Machine
from engine.service.arranging import Stand, arrange, free_bytes, stand_of, strangers_ports
from engine.service.consequences import at_logout, losses
from engine.service.live_moves import is_same, ways_of
from engine.service.loads import Loads
from engine.service.managed import known
from engine.service.moving import begin_move
from engine.service.neighbours import strangers_on
from engine.service.orders import Planned
from engine.service.planning import plan_layout
from engine.service.supervisor import Supervisor
from engine.service.undoing import NOWHERE, Past, Return

_OFFERS_KEPT = 32


@dataclass(frozen=True, slots=True)
class _Made:
    """An offer with what it takes to carry it out."""

    offer: Offer
    change: Change
    turn: int
    planned: dict[str, Planned] = field(default_factory=dict)
    layout_name: str = ""
    marks: dict[str, str] = field(default_factory=dict)
    """Of the processes that are to be moved live."""
    ports: Ports = field(default_factory=Ports)
    gone: tuple[str, ...] = ()
    """Who leaves the list by an undo."""


class Offers:
    """Makes offers for this machine and these instances; applying one makes the others stale."""

    def __init__(
        self,
        supervisor: Supervisor,
        loads: Loads,
        statuses: Callable[[], tuple[InstanceStatus, ...]],
    ) -> None:
        self._supervisor = supervisor
        self._loads = loads
        self._statuses = statuses
        self._made: dict[str, _Made] = {}
        self._turn = 0
        self._applied: ApplyLayout | None = None
        self._at_logout = at_logout(supervisor.root)
        self.past = Past(supervisor)

    def offer(self, change: Change, machine: Machine) -> Offer:
        """What the change would do on this machine; nothing happens yet."""
        match change:
            case ApplyLayout():
                made = self._layout(change, machine)
            case StartInstances(names=names):
                made = self._start(change, names, machine)
            case RestartInstances(names=names):
                made = self._restart(change, names, machine)
            case StopInstances(names=names):
                active = tuple(
                    name for name in names if known(self._supervisor.managed, name).active
                )
                rest = tuple(name for name in names if name not in active)
                told = tuple(
                    f"{name} leaves the list, which cannot be undone"
                    for name in rest
                    if change.forget
                )
                offer = self._new(stops=active, consequences=(*self._losses(active), *told))
                made = self._keep(offer, change, machine)
            case MoveInstance(name=name, slot=slot):
                made = self._move(change, (Seat(name, slot),), machine, restart=change.restart)
            case MoveInstances(seats=seats):
                made = self._move(change, seats, machine)
            case AddInstances():
                made = self._add(change, machine)
            case Undo() | Redo():
                way = self.past.way(change)
                made = self._arranged(change, way.stands, machine, way=way)
            case StartLoad(names=names):
                made = self._keep(self._load(change, names), change, machine)
            case StopLoad():
                made = self._keep(self._new(), change, machine)
        self._supervisor.expect(len(made.offer.starts) + len(made.offer.moves))
        self._made[made.offer.id] = made
        while len(self._made) > _OFFERS_KEPT:
            self._made.pop(next(iter(self._made)))
        return made.offer

    async def apply(self, offer_id: str, machine: Machine, who: str) -> None:
        """Begin what was offered; returns when that is on disk, so that it cannot be lost.

        Raises StaleOffer when the world has changed since.
        """
        made = self._made.pop(offer_id, None)
        if (
            made is None
            or made.turn != self._turn
            or made.offer.machine_revision != machine.revision
            or not self._still_live(made)
        ):
            raise StaleOffer(
                what="This offer is no longer good",
                why="the machine or the instances have changed since it was made",
                do="Look at the new offer and apply that one",
            )
        if made.offer.refusals:
            first = made.offer.refusals[0]
            raise ControlError(
                what=f"Nothing was changed: {first.instance} has no place",
                why=first.why,
                do=first.do,
            )
        self._turn += 1
        supervisor = self._supervisor
        supervisor.tell(f"{who}: {words_of(made.change)}")
        places = (each.instance for each in (*made.offer.moves, *made.offer.starts))
        before = self.past.stands((*made.offer.stops, *made.gone, *places))
        match made.change:
            case StartLoad():
                await self._loads.start(made.change)
                return
            case StopLoad():
                await self._loads.stop()
                return
            case StopInstances(names=names, forget=forget):
                self._stop(names, forget=forget)
            case ApplyLayout():
                self._applied = made.change
                self._stop(made.offer.stops, forget=True)
            case _:
                self._stop(made.offer.stops)
                self._stop(made.gone, forget=True)
        for placement in (*made.offer.moves, *made.offer.starts):
            planned = made.planned[placement.instance]
            known = supervisor.managed.get(planned.wish.name)
            layout = made.layout_name or (known.layout if known else "")
            if known is not None and placement.instance in made.offer.live:
                known.layout = layout
                begin_move(supervisor, known, planned)
                continue
            supervisor.start(planned, layout)
        if isinstance(made.change, ApplyLayout):
            for name in (*made.planned, *made.offer.keeps):
                supervisor.managed[name].ports = made.ports
        self.past.remember(made.change, before, made.planned, made.layout_name)
        await supervisor.saved()

    def layout(self) -> HeldLayout:
        """What is wished now; after a restart of the service only the layout's name is known."""
        held = [one for one in self._supervisor.managed.values() if not one.forget]
        wishes = tuple(HeldWish(one.wish, one.base) for one in held)
        name = next((one.layout for one in held if one.layout), "")
        if self._applied is None:
            return HeldLayout(wishes, name)
        path = Path(self._applied.base, Path(self._applied.name).name)
        return HeldLayout(wishes, name, str(path), self._applied.text)

    def _stop(self, names: Sequence[str], *, forget: bool = False) -> None:
        for name in names:
            if name in self._supervisor.managed:  # it may have left the list meanwhile
                self._supervisor.stop(name, forget=forget)

    # One kind of change each

    def _layout(self, change: ApplyLayout, machine: Machine) -> _Made:
        layout = parse_layout(change.text, name=change.name)
        managed = self._supervisor.managed
        held = Held(
            pus={},
            ports=strangers_ports(self._supervisor, set(managed)),
            preferred_ports={
                one.name: one.placement.port for one in managed.values() if one.active
            },
            strangers=strangers_on(self._supervisor.root, machine),
            free_bytes=free_bytes(self._supervisor),
        )
        plan = plan_layout(machine, layout, self._supervisor.around, base=change.base, held=held)
        starts, moves, keeps = [], [], []
        for planned in plan.planned:
            now = managed.get(planned.wish.name)
            if now is None or not now.active:
                starts.append(planned.placement)
            elif is_same(now, planned) and now.life.state is not State.STOPPING:
                keeps.append(planned.wish.name)
            else:
                moves.append(planned.placement)
        wished = {one.wish.name for one in plan.planned} | {
            refusal.instance for refusal in plan.refusals
        }
        stops = tuple(name for name in managed if name not in wished)
        live, words = ways_of(
            self._supervisor, [one for one in plan.planned if one.placement in moves], machine
        )
        restarts = (one.instance for one in moves if one.instance not in live)
        offer = self._new(
            starts=tuple(starts),
            stops=stops,
            moves=tuple(moves),
            live=live,
            keeps=tuple(keeps),
            refusals=plan.refusals,
            consequences=(*words, *self._losses((*stops, *restarts))),
        )
        made = self._keep(offer, change, machine, plan.planned, layout.name)
        return replace(made, ports=layout.ports)

    def _start(self, change: Change, names: tuple[str, ...], machine: Machine) -> _Made:
        refusals: list[Refusal] = []
        stands: list[Stand] = []
        for name in names:
            one = known(self._supervisor.managed, name)
            if one.active:
                refusals.append(Refusal(name, f"it is {one.life.state}", "Nothing needs doing"))
                continue
            stands.append(replace(stand_of(one), strictly=False))
        return self._arranged(change, stands, machine, refusals=refusals)

    def _restart(self, change: Change, names: tuple[str, ...], machine: Machine) -> _Made:
        stands = [
            replace(stand_of(known(self._supervisor.managed, name)), strictly=False)
            for name in names
        ]
        planned, refusals = arrange(self._supervisor, stands, machine)
        offer = self._new(
            starts=tuple(one.placement for one in planned),
            refusals=tuple(refusals),
            consequences=self._losses(names),
        )
        return self._keep(offer, change, machine, planned)

    def _move(
        self, change: Change, seats: Sequence[Seat], machine: Machine, *, restart: bool = False
    ) -> _Made:
        refusals: list[Refusal] = []
        stands: list[Stand] = []
        for seat in seats:
            one = known(self._supervisor.managed, seat.name)
            if one.going is not None:
                why = f"it is on its way to {one.going.placement.slot} just now"
                refusals.append(Refusal(seat.name, why, "Wait until it is there"))
                continue
            try:
                stands.append(Stand(moved(one.wish, seat.slot), one.base, one.layout))
            except SlotError as error:
                refusals.append(Refusal(seat.name, f"{error.what}: {error.why}", error.do))
        return self._arranged(change, stands, machine, refusals=refusals, restart=restart)

    def _add(self, change: AddInstances, machine: Machine) -> _Made:
        taken = [
            Refusal(held.wish.name, "there is an instance of that name", "Choose another name")
            for held in change.wishes
            if held.wish.name in self._supervisor.managed
        ]
        stands = [Stand(held.wish, held.base) for held in change.wishes] if not taken else []
        return self._arranged(change, stands, machine, refusals=taken)

    def _arranged(
        self,
        change: Change,
        stands: Sequence[Stand],
        machine: Machine,
        *,
        way: Return = NOWHERE,
        refusals: Sequence[Refusal] = (),
        restart: bool = False,
    ) -> _Made:
        """Place these, end those; what stands there already is kept."""
        supervisor, managed = self._supervisor, self._supervisor.managed
        planned, refused = arrange(supervisor, stands, machine, leaving=way.stops)
        active = [one for one in planned if (it := managed.get(one.wish.name)) and it.active]
        # A move that is asked for is one, also where the slot's new name means the same PUs.
        keeps = [
            one.wish.name
            for one in active
            if isinstance(change, Undo | Redo)
            and is_same(managed[one.wish.name], one)
            and managed[one.wish.name].life.state is not State.STOPPING
        ]
        moving = [one for one in active if one.wish.name not in keeps]
        live, ways = ways_of(supervisor, moving, machine, restart=restart)
        restarts = (one.wish.name for one in moving if one.wish.name not in live)
        offer = self._new(
            starts=tuple(one.placement for one in planned if one not in active),
            stops=way.stops,
            moves=tuple(one.placement for one in moving),
            live=live,
            keeps=tuple(keeps),
            refusals=(*refusals, *refused),
            consequences=(*way.words, *ways, *self._losses((*way.stops, *restarts))),
        )
        return replace(self._keep(offer, change, machine, planned), gone=way.gone)

    def _still_live(self, made: _Made) -> bool:
        """Whether what was offered to be moved live is still the same process, and ready."""
        managed = self._supervisor.managed
        return all(
            name in managed
            and managed[name].life.state is State.READY
            and managed[name].mark == made.marks.get(name)
            for name in made.offer.live
        )

    def _load(self, change: StartLoad, names: tuple[str, ...]) -> Offer:
        refusals = tuple(
            Refusal(name, f"it is {one.life.state}", "Wait until it is ready")
            for name in names
            if (one := known(self._supervisor.managed, name)).life.state is not State.READY
        )
        streams = f"{change.concurrency} stream{'s' if change.concurrency > 1 else ''}"
        return self._new(
            refusals=refusals,
            consequences=tuple(
                f"{name}: {streams} for at most {change.duration_s:g} s" for name in names
            ),
        )

    # Helpers

    def _losses(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return losses(names, self._supervisor.managed, self._statuses())

    def _new(
        self,
        *,
        starts: tuple[Placement, ...] = (),
        stops: tuple[str, ...] = (),
        moves: tuple[Placement, ...] = (),
        live: tuple[str, ...] = (),
        keeps: tuple[str, ...] = (),
        refusals: tuple[Refusal, ...] = (),
        consequences: tuple[str, ...] = (),
    ) -> Offer:
        consequences = (*consequences, *self._at_logout) if starts else consequences
        return Offer(uuid.uuid4().hex, starts, stops, moves, live, keeps, refusals, consequences)

    def _keep(
        self,
        offer: Offer,
        change: Change,
        machine: Machine,
        planned: "tuple[Planned, ...] | list[Planned]" = (),
        layout_name: str = "",
    ) -> _Made:
        by_name = {one.wish.name: one for one in planned}
        offer = replace(offer, machine_revision=machine.revision)
        managed = self._supervisor.managed
        marks = {name: managed[name].mark for name in offer.live}
        return _Made(offer, change, self._turn, by_name, layout_name, marks)
