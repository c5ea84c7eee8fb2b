"""What a comparison would do: where each arm would be, whether both fit, and what has to stop.

What runs now is stopped first and started again at the end; nothing of it happens here.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from engine.client import ServiceClient
from engine.control import ApplyLayout, HeldLayout, HeldWish, Offer, StopInstances
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, LayoutError, PlacementRefused
from engine.core.layout import Instance, Layout, Ports, parse_layout
from engine.core.layout_text.keys import ALWAYS, said_of
from engine.core.layout_text.toml_document import toml_lines
from engine.core.status import InstanceStatus, Snapshot, State

ACTIVE = (State.STARTING, State.READY, State.BACKOFF)


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
    ran: Places = field(default_factory=dict)
    """Where what is stopped was."""
    ports: Mapping[str, int] = field(default_factory=dict)

    def pus(self) -> CpuSet:
        """All PUs that an engine of either arm uses."""
        places = [place for arm in self.places.values() for place in arm.values()]
        return CpuSet(pu for place in places for pu in place.pus)


async def plan(client: ServiceClient, a: ApplyLayout, b: ApplyLayout) -> Plan:
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
    return await _planned(client, (snapshot, before), layouts, places, offers, (both, why_apart))


async def plan_each(
    client: ServiceClient, layouts: dict[str, ApplyLayout]
) -> tuple[Plan, dict[str, str]]:
    """Of any number of arms that take turns; those that have no place, with the reason."""
    snapshot, before = await client.snapshot(), await client.layout()
    offers = {arm: await client.offer(layout) for arm, layout in layouts.items()}
    refused = {arm: one.refusals[0].why for arm, one in offers.items() if one.refusals}
    able = {arm: one for arm, one in offers.items() if not one.refusals}
    places = {arm: places_in(offer, snapshot.instances) for arm, offer in able.items()}
    kept = {arm: layouts[arm] for arm in able}
    apart = (None, "they take turns")
    return await _planned(client, (snapshot, before), kept, places, able, apart), refused


async def _planned(
    client: ServiceClient,
    now: tuple[Snapshot, HeldLayout],
    layouts: dict[str, ApplyLayout],
    places: dict[str, Places],
    offers: dict[str, Offer],
    side_by_side: tuple[ApplyLayout | None, str],
) -> Plan:
    """With what has to stop for it, and what that costs."""
    snapshot, before = now
    running = [one for one in snapshot.instances if one.state in ACTIVE]
    active = tuple(one.name for one in running)
    ours = {name for offer in offers.values() for name in offer.keeps}
    stopping = await client.offer(StopInstances(active, forget=True))
    return Plan(
        layouts=layouts,
        places=places,
        both=side_by_side[0],
        why_apart=side_by_side[1],
        before=replace(
            before, wishes=tuple(one for one in before.wishes if one.wish.name in active)
        ),
        stops=active,
        strangers=tuple(name for name in active if name not in ours),
        losses=stopping.consequences,
        dropped=tuple(one.name for one in snapshot.instances if one.name not in active),
        ran={one.name: place_of(one) for one in running},
        ports={one.name: one.port for one in running if one.port is not None},
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
            found[one.name] = place_of(one)
    return found


def place_of(one: InstanceStatus) -> Place:
    """Where it is now."""
    memory = f"{one.memory.policy} {one.memory.nodes}".strip()
    return Place(CpuSet.parse(one.pus), one.gpus, memory, one.slot)


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


def with_ports(layout: ApplyLayout, ports: Mapping[str, int]) -> ApplyLayout:
    """The same, but what had a port and names none gets that one."""
    parsed = parse_layout(layout.text, name=layout.name)
    wishes = [
        HeldWish(msgspec.structs.replace(one, port=one.port or ports.get(one.name)), layout.base)
        for one in parsed.instances
    ]
    return as_layout(wishes, name=parsed.name, path=layout.name, ports=parsed.ports)


def ports_of(held: HeldLayout) -> Ports | None:
    """Where free ports come from, as far as the file that was applied is known."""
    try:
        return parse_layout(held.text, name=held.path).ports if held.text else None
    except LayoutError:
        return None


def standalone(held: HeldLayout, ports: Mapping[str, int]) -> str:
    """A file of its own that starts the same from any folder; empty where nothing ran."""
    if not held.wishes:
        return ""
    wishes = [HeldWish(_rooted(one), "/") for one in held.wishes]
    name = held.name or "what ran before"
    return with_ports(as_layout(wishes, name=name, ports=ports_of(held)), ports).text


def _by_name(wishes: Sequence[Instance]) -> dict[str, Instance]:
    return {one.name: one for one in wishes}
