"""A Control that places, moves, stops and undoes by the real rules, on its own values alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from engine.control import (
    AddInstances,
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
    StopInstances,
    Undo,
    words_of,
)
from engine.core.errors import SlotError, StaleOffer
from engine.core.history import History, Step
from engine.core.layout import Instance, Layout
from engine.core.placement import Placement, Refusal, moved, place
from engine.core.placing.held import Held
from engine.core.status import Happening, InstanceStatus, Snapshot, State
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from tests.tui.scripted_control import AT, ScriptedControl, instance, snapshot, usual_offer


@dataclass(frozen=True, slots=True)
class Stand:
    """One instance: what is wished, where it is, and whether it runs."""

    wish: Instance
    placement: Placement
    runs: bool = True


Stands = dict[str, Stand | None]


class PlayedControl(ScriptedControl):
    """Whoever is given wishes at the start is placed as a layout would be."""

    def __init__(
        self, machine: Machine, wishes: tuple[Instance, ...] = (), **options: object
    ) -> None:
        self.strangers: tuple[Stranger, ...] = ()
        self.stands: dict[str, Stand] = {}
        self.history: History[Stand] = History()
        self._made: dict[str, tuple[Change, Stands]] = {}
        self._count = 0
        plan = place(machine, Layout(name="first", instances=wishes))
        assert not plan.refusals, plan.refusals
        for wish, at in zip(plan.wishes, plan.placements, strict=True):
            self.stands[wish.name] = Stand(wish, at)
        self.its_machine = machine
        super().__init__(machine, [self.picture()], **options)  # type: ignore[arg-type]

    def picture(self, **changes: object) -> Snapshot:
        """What a service would tell now."""
        history = self.history
        return snapshot(
            self.its_machine,
            tuple(_status(stand) for stand in self.stands.values()),
            **{
                "undo": history.undo.what if history.undo else "",
                "redo": history.redo.what if history.redo else "",
                "strangers": self.strangers,
                **changes,
            },
        )

    def places(self) -> dict[str, tuple[str, str, tuple[int, ...], bool]]:
        """Everything that an undo has to bring back."""
        return {
            name: (one.placement.slot, str(one.placement.pus), one.placement.gpus, one.runs)
            for name, one in self.stands.items()
        }

    async def layout(self) -> HeldLayout:
        return HeldLayout(tuple(HeldWish(one.wish, "/") for one in self.stands.values()))

    async def offer(self, change: Change) -> Offer:
        self.offered.append(change)
        if self.answer is not None:
            return self.answer(change)
        try:
            wanted, refusals = self._wanted(change)
        except NotImplementedError:
            return usual_offer(change, self.its_machine)
        self._count += 1
        offer = self._offer_of(f"offer {self._count}", change, wanted, refusals)
        self._made = {offer.id: (change, wanted)}
        return offer

    async def apply(self, offer: Offer) -> None:
        await super().apply(offer)
        if offer.id not in self._made:
            if offer.id.startswith("offer"):
                raise StaleOffer(what="Old", why="something else was applied", do="Look again")
            return
        change, wanted = self._made.pop(offer.id)
        before: Stands = {name: self.stands.get(name) for name in wanted}
        for name, stand in wanted.items():
            if stand is None:
                self.stands.pop(name, None)
            else:
                self.stands[name] = stand
        match change:
            case Undo():
                self.history = self.history.back()
            case Redo():
                self.history = self.history.again()
            case _ if before != wanted:
                self.history = self.history.recorded(Step(words_of(change), before, wanted))
            case _:
                pass
        told = Happening(AT, "information", f"applied {offer.id}")
        old = self.its_snapshots[-1]
        self.tell(
            self.picture(
                pus_busy=old.pus_busy, gpus=old.gpus, happenings=(*old.happenings, told)[-100:]
            )
        )

    # The rules

    def _wanted(self, change: Change) -> tuple[Stands, list[Refusal]]:
        match change:
            case StartInstances(names=names) | RestartInstances(names=names):
                return {name: replace(self.stands[name], runs=True) for name in names}, []
            case StopInstances(names=names, forget=forget):
                return {
                    name: None if forget else replace(self.stands[name], runs=False)
                    for name in names
                }, []
            case MoveInstance(name=name, slot=slot):
                return self._moved((Seat(name, slot),))
            case MoveInstances(seats=seats):
                return self._moved(seats)
            case AddInstances(wishes=wishes):
                return self._placed([held.wish for held in wishes])
            case Undo():
                return dict(self.history.undo.before) if self.history.undo else {}, []
            case Redo():
                return dict(self.history.redo.after) if self.history.redo else {}, []
            case _:
                raise NotImplementedError

    def _moved(self, seats: tuple[Seat, ...]) -> tuple[Stands, list[Refusal]]:
        try:
            return self._placed([moved(self.stands[each.name].wish, each.slot) for each in seats])
        except SlotError as error:
            return {}, [Refusal(seats[0].name, error.why, error.do)]

    def _placed(self, wishes: list[Instance]) -> tuple[Stands, list[Refusal]]:
        names = {wish.name for wish in wishes}
        others = {name: one for name, one in self.stands.items() if one.runs and name not in names}
        held = Held(
            {name: one.placement.pus for name, one in others.items()},
            {},
            {name: self.stands[name].placement.port for name in names if name in self.stands},
            {gpu: name for name, one in others.items() for gpu in one.placement.gpus},
            self.strangers,
        )
        plan = place(self.its_machine, Layout(name="x", instances=tuple(wishes)), held=held)
        placed: Mapping[str, Placement] = {at.instance: at for at in plan.placements}
        stands: Stands = {
            wish.name: Stand(wish, placed[wish.name]) for wish in wishes if wish.name in placed
        }
        return stands, list(plan.refusals)

    def _offer_of(
        self, key: str, change: Change, wanted: Stands, refusals: list[Refusal]
    ) -> Offer:
        starts, moves, stops, words = [], [], [], []
        taken = {
            pu: name
            for name, one in self.stands.items()
            if one.runs and name not in wanted
            for core in self.its_machine.cores
            if core.pus & one.placement.pus
            for pu in core.pus
        }
        for name, stand in wanted.items():
            now = self.stands.get(name)
            ran = now is not None and now.runs
            if stand is None or not stand.runs:
                if ran:
                    stops.append(name)
                    words.append(f"{name}: 1 request in flight, with 30 s to finish")
                continue
            if there := {taken[pu] for pu in stand.placement.pus if pu in taken}:
                refusals.append(
                    Refusal(name, f"{', '.join(sorted(there))} is there", "Move it elsewhere")
                )
            elif not ran:
                starts.append(stand.placement)
            elif now != stand:
                moves.append(stand.placement)
        if isinstance(change, Undo) and self.history.undo:
            words.insert(0, f"takes back: {self.history.undo.what}")
        return Offer(
            key,
            tuple(starts),
            tuple(stops),
            tuple(moves),
            refusals=tuple(refusals),
            consequences=tuple(words),
        )


def _status(stand: Stand) -> InstanceStatus:
    at = stand.placement
    status = instance(
        at.instance, at.slot, str(at.pus), memory=at.memory, gpus=at.gpus, port=at.port
    )
    if stand.runs:
        return status
    return replace(status, state=State.STOPPED, why="stopped by you", pid=None, url=None)


def wish(name: str, slot: str, **more: object) -> Instance:
    """A plain wish."""
    return msgspec.structs.replace(
        Instance(name=name, model="bundled:smollm2-135m", slot=slot), **more
    )
