"""The two arms as layouts of the service: side by side where both fit, else one after the other.

What ran before is stopped first and started again at the end; nothing happens before `begin`.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from engine.bench.ab_block import Up
from engine.bench.values import Target
from engine.client import ServiceClient
from engine.control import ApplyLayout, HeldLayout, HeldWish, Offer, StopInstances
from engine.core.cpuset import CpuSet
from engine.core.errors import (
    ControlError,
    LayoutError,
    NotReadyInTime,
    PlacementRefused,
    StaleOffer,
)
from engine.core.layout import Instance, Layout, Ports, parse_layout
from engine.core.layout_text.keys import ALWAYS, said_of
from engine.core.layout_text.toml_document import toml_lines
from engine.core.status import InstanceStatus, Snapshot, State
from engine.core.topology import Machine

ACTIVE = (State.STARTING, State.READY, State.BACKOFF)
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """Where one instance of an arm will be."""

    pus: CpuSet
    gpus: tuple[int, ...]
    memory: str
    slot: str

    def __str__(self) -> str:
        gpus = f", GPU {CpuSet(self.gpus)}" if self.gpus else ""
        return f"on {self.slot}: PU {self.pus}{gpus}, memory {self.memory}"


Places = dict[str, Place]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done; nothing has been yet."""

    layouts: dict[str, ApplyLayout]
    places: dict[str, Places]
    """By arm and instance."""
    both: ApplyLayout | None
    """One layout with both arms in it, where they fit side by side."""
    why_apart: str
    """Why they do not; empty where they do."""
    before: HeldLayout
    stops: tuple[str, ...]
    """What runs now, and is stopped for the time being."""
    strangers: tuple[str, ...]
    """Of those, what belongs to neither arm: no arm would keep it as it is, whatever its name."""
    losses: tuple[str, ...]
    """What stopping it costs, in words."""
    dropped: tuple[str, ...]
    """Instances that do not run: they leave the service's list."""

    def pus(self) -> CpuSet:
        """All PUs that an engine of either arm uses."""
        places = [place for arm in self.places.values() for place in arm.values()]
        return CpuSet(pu for place in places for pu in place.pus)


async def plan(client: ServiceClient, a: ApplyLayout, b: ApplyLayout, machine: Machine) -> Plan:
    """Raises PlacementRefused when an arm has no place even when it is alone."""
    snapshot, before = await client.snapshot(), await client.layout()
    layouts = {"a": a, "b": b}
    offers = {arm: await _offered(client, layout) for arm, layout in layouts.items()}
    places = {arm: places_in(offer, snapshot.instances) for arm, offer in offers.items()}
    apart = told_apart(a, b)
    if apart is None:
        both, why_apart = await _side_by_side(client, layouts, places, snapshot)
    else:
        renamed = {"a": a, "b": apart}
        offer = await _offered(client, apart)
        beside = {**places, "b": places_in(offer, snapshot.instances)}
        both, why_apart = await _side_by_side(client, renamed, beside, snapshot)
        if both is not None:
            layouts, places = renamed, beside
    active = tuple(one.name for one in snapshot.instances if one.state in ACTIVE)
    ours = {*offers["a"].keeps, *offers["b"].keeps}
    stopping = await client.offer(StopInstances(active, forget=True))
    return Plan(
        layouts=layouts,
        places=places,
        both=both,
        why_apart=why_apart,
        before=replace(
            before, wishes=tuple(one for one in before.wishes if one.wish.name in active)
        ),
        stops=active,
        strangers=tuple(name for name in active if name not in ours),
        losses=stopping.consequences,
        dropped=tuple(one.name for one in snapshot.instances if one.name not in active),
    )


def told_apart(a: ApplyLayout, b: ApplyLayout) -> ApplyLayout | None:
    """B with other names for the instances that are called as one of A's; None where none is."""
    parsed = [parse_layout(one.text, name=one.name) for one in (a, b)]
    taken = {one.name for layout in parsed for one in layout.instances}
    same = {one.name for one in parsed[0].instances} & {one.name for one in parsed[1].instances}
    if not same:
        return None

    def renamed(wish: Instance) -> HeldWish:
        if wish.name not in same:
            return HeldWish(wish, b.base)
        name = next(
            other
            for number in itertools.count(1)
            if (other := f"{wish.name}-b{'' if number == 1 else number}") not in taken
        )
        return HeldWish(msgspec.structs.replace(wish, name=name), b.base)

    wishes = [renamed(wish) for wish in parsed[1].instances]
    return as_layout(wishes, name=parsed[1].name, path=b.name, ports=parsed[1].ports)


async def _offered(client: ServiceClient, layout: ApplyLayout) -> Offer:
    offer = await client.offer(layout)
    if offer.refusals:
        raise PlacementRefused(
            what=f"{layout.name} is refused, nothing was changed",
            why="; ".join(f"{one.instance}: {one.why}" for one in offer.refusals),
            do="; ".join(dict.fromkeys(one.do for one in offer.refusals)),
        )
    return offer


def places_in(offer: Offer, statuses: Sequence[InstanceStatus]) -> Places:
    """Of all that would run: what stays where it is tells its place itself."""
    found = {
        one.instance: Place(
            one.pus, one.gpus, f"{one.memory.policy} {one.memory.nodes}".strip(), one.slot
        )
        for one in (*offer.starts, *offer.moves)
    }
    for one in statuses:
        if one.name in offer.keeps:
            memory = f"{one.memory.policy} {one.memory.nodes}".strip()
            found[one.name] = Place(CpuSet.parse(one.pus), one.gpus, memory, one.slot)
    return found


async def _side_by_side(
    client: ServiceClient,
    layouts: dict[str, ApplyLayout],
    places: dict[str, Places],
    now: Snapshot,
) -> tuple[ApplyLayout | None, str]:
    """Both in one layout, if each is then placed as it would be alone; else why not."""
    both = _together(layouts)
    try:
        offer = await client.offer(both)
    except ControlError as error:
        return None, error.why
    if offer.refusals:
        return None, f"{offer.refusals[0].instance}: {offer.refusals[0].why}"
    found = places_in(offer, now.instances)
    for name, alone in {**places["a"], **places["b"]}.items():
        if found.get(name) != alone:
            return None, f"{name} would get another place than it gets alone"
    return both, ""


def _together(layouts: dict[str, ApplyLayout]) -> ApplyLayout:
    wishes: list[HeldWish] = []
    ports = []
    for layout in layouts.values():
        parsed = parse_layout(layout.text, name=layout.name)
        wishes += [HeldWish(wish, layout.base) for wish in parsed.instances]
        ports.append(parsed.ports)
    wide = Ports(first=min(one.first for one in ports), last=max(one.last for one in ports))
    return as_layout(wishes, name="both arms", ports=wide)


def as_layout(
    wishes: Sequence[HeldWish], *, name: str, path: str = "", ports: Ports | None = None
) -> ApplyLayout:
    """One layout of these, secrets and all: it goes to the service only, never into a file."""
    bases = {one.base for one in wishes}
    base = bases.pop() if len(bases) == 1 else "/"
    rows = [one.wish if one.base == base else _rooted(one) for one in wishes]
    parts = [f"schema = 1\n{toml_lines({'name': name})}"]
    parts += [f"[[instance]]\n{toml_lines(said_of(row, {}, always=ALWAYS))}" for row in rows]
    if ports is not None:
        parts.append(f"[ports]\nfirst = {ports.first}\nlast = {ports.last}\n")
    return ApplyLayout(path or name, "\n".join(parts), base)


def _rooted(one: HeldWish) -> Instance:
    """With absolute paths, where they are relative to the layout's folder."""
    wish, base = one.wish, Path(one.base)
    if wish.model and not wish.model.startswith(("/", "~", "bundled:")):
        model = base / wish.model
        if model.is_dir():
            wish = msgspec.structs.replace(wish, model=str(model))
    program = wish.command[0] if wish.command else ""
    if "/" in program and not program.startswith("/"):
        wish = msgspec.structs.replace(wish, command=(str(base / program), *wish.command[1:]))
    return wish


def layout_before(held: HeldLayout) -> ApplyLayout | None:
    """What makes the service run again what it ran; None for nothing."""
    if not held.wishes:
        return None
    wishes = tuple(one.wish for one in held.wishes)
    if held.text:
        try:
            parsed: Layout | None = parse_layout(held.text, name=held.path)
        except LayoutError:
            parsed = None
        if parsed is not None and _by_name(parsed.instances) == _by_name(wishes):
            return ApplyLayout(held.path, held.text, held.wishes[0].base)
    return as_layout(held.wishes, name=held.name or "what ran before", path=held.path)


def _by_name(wishes: Sequence[Instance]) -> dict[str, Instance]:
    return {one.name: one for one in wishes}


@dataclass
class ServiceArms:
    """The `Arms` of a session, on a service."""

    client: ServiceClient
    machine: Machine
    plan: Plan
    timeout_s: float
    say: Callable[[str], None]
    start_s: dict[str, list[float]] = field(default_factory=dict)
    """By arm: how long its starts took."""
    _used: set[str] = field(default_factory=set)
    _up: set[str] = field(default_factory=set)

    async def begin(self) -> None:
        """Stop what runs."""
        for name in self.plan.stops:
            self.say(f"stopping {name}, until the comparison is over")
        await self._stop(self.plan.stops)

    async def ready(self, arm: str, *, fresh: bool) -> Up:
        """That arm, ready for load."""
        names = tuple(self.plan.places[arm])
        fresh = fresh or self.plan.both is None
        if arm in self._up and fresh and arm in self._used:
            await self._stop(names)
            self._up.discard(arm)
        if arm not in self._up:
            await self._start(arm)
        self._used.add(arm)
        snapshot = await self.client.snapshot()
        found = {one.name: one for one in snapshot.instances}
        for name in names:
            one = found.get(name)
            if one is None or one.state is not State.READY or one.url is None:
                state = "gone" if one is None else f"{one.state}: {one.why}"
                raise ControlError(
                    what=f"{name} is not ready any more",
                    why=f"it is {state}",
                    do=f"Read its log: `slotdeck logs {name}`",
                )
        return self._described([found[name] for name in names])

    async def end(self) -> None:
        """Stop both arms, and start what ran before."""
        snapshot = await self.client.snapshot()
        ours = {*self.plan.places["a"], *self.plan.places["b"]}
        await self._stop(tuple(one.name for one in snapshot.instances if one.name in ours))
        before = layout_before(self.plan.before)
        if before is None:
            return
        names = ", ".join(one.wish.name for one in self.plan.before.wishes)
        self.say(f"starting again what ran before: {names}")
        await self._apply(before)
        await self._wait(tuple(one.wish.name for one in self.plan.before.wishes), self.timeout_s)

    async def _start(self, arm: str) -> None:
        """Beside the other one or in its place."""
        other, both = "b" if arm == "a" else "a", self.plan.both
        if both is None and other in self._up:
            await self._stop(tuple(self.plan.places[other]))
            self._up.discard(other)
        started = [arm] if both is None or other in self._up else [arm, other]
        began = time.monotonic()
        try:
            await self._apply(self.plan.layouts[arm] if both is None else both)
        except PlacementRefused as refused:
            if both is None or self._up:
                raise
            # Free memory is known only now that nothing of ours holds any.
            self.plan = replace(self.plan, both=None, why_apart=refused.why)
            self.say(f"not side by side after all ({refused.why}): one replaces the other")
            await self._start(arm)
            return
        for one in started:
            await self._wait(tuple(self.plan.places[one]), self.timeout_s)
            self.start_s.setdefault(one, []).append(time.monotonic() - began)
            self._used.discard(one)
            self._up.add(one)

    async def _apply(self, layout: ApplyLayout) -> None:
        for attempt in range(3):
            offer = await self.client.offer(layout)
            if offer.refusals:
                first = offer.refusals[0]
                raise PlacementRefused(
                    what=f"{layout.name} is refused",
                    why=f"{first.instance}: {first.why}",
                    do=first.do,
                )
            try:
                await self.client.apply(offer)
                return
            except StaleOffer:
                if attempt == 2:
                    raise

    async def _stop(self, names: tuple[str, ...]) -> None:
        for attempt in range(3):
            there = {one.name for one in (await self.client.snapshot()).instances}
            names = tuple(name for name in names if name in there)
            if not names:
                return
            try:
                await self.client.apply(await self.client.offer(StopInstances(names, forget=True)))
                break
            except StaleOffer:
                if attempt == 2:
                    raise
        deadline = time.monotonic() + self.timeout_s
        while time.monotonic() < deadline:
            now = {one.name for one in (await self.client.snapshot()).instances}
            if not now.intersection(names):
                return
            await asyncio.sleep(_POLL_S)
        raise NotReadyInTime(
            what=f"Not stopped within {self.timeout_s:g} s: {', '.join(names)}",
            why="requests in flight, or an engine that does not end",
            do="Look at `slotdeck status`, then compare again",
        )

    async def _wait(self, names: tuple[str, ...], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            statuses = {one.name: one for one in (await self.client.snapshot()).instances}
            mine = [statuses[name] for name in names if name in statuses]
            for one in mine:
                if one.state in (State.FAILED, State.STOPPED):
                    raise ControlError(
                        what=f"{one.name} did not start",
                        why=one.why,
                        do=f"Try it alone with `slotdeck up`, and `slotdeck logs {one.name}`",
                    )
            ready = [one for one in mine if one.state is State.READY and one.verified is not None]
            if len(ready) == len(names):
                return
            if time.monotonic() > deadline:
                late = [name for name in names if name not in {one.name for one in ready}]
                raise NotReadyInTime(
                    what=f"Not ready within {timeout_s:g} s: {', '.join(late)}",
                    why="it is still loading, or it hangs",
                    do="Wait longer (--timeout), or try it alone with `slotdeck up`",
                )
            await asyncio.sleep(_POLL_S)

    def _described(self, statuses: Sequence[InstanceStatus]) -> Up:
        pus = CpuSet(pu for one in statuses for pu in CpuSet.parse(one.pus))
        cores = [core for core in self.machine.cores if core.pus & pus]
        return Up(
            targets=tuple(Target(one.name, one.url or "") for one in statuses),
            pus=pus,
            gpus=tuple(sorted({gpu for one in statuses for gpu in one.gpus})),
            cores=len(cores),
            packages=frozenset(core.package for core in cores if core.package is not None),
        )
