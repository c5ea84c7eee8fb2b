"""The arms of a comparison: two files, or made from one instance, and what keeping one means."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.bench.ab_plan import as_layout, ports_of
from engine.cli.layouts import checked, read_layout
from engine.client import ServiceClient
from engine.control import ApplyLayout, HeldLayout, HeldWish
from engine.core.comparing.single_dual import PAIRS, single_dual
from engine.core.comparing.split import HALVES, WHOLE, split
from engine.core.cpuset import CpuSet
from engine.core.errors import UsageError
from engine.core.layout import Instance, Layout
from engine.core.slot import Slot
from engine.core.status import InstanceStatus

NOW = "what runs now"


@dataclass(frozen=True, slots=True)
class Cases:
    """What is compared with what."""

    arms: Mapping[str, ApplyLayout]
    """By name, in order."""
    pairs: tuple[tuple[str, str], ...]
    """A and B of each comparison."""
    keep: Mapping[str, ApplyLayout]
    """What would run if that arm were kept."""
    reason: str = ""
    """Why these arms, where they were made here."""
    cards: tuple[int, ...] = ()


async def cases(asked: argparse.Namespace, client: ServiceClient) -> Cases:
    """As the command line asks for it. Raises UsageError."""
    if asked.b is not None:
        return _of_files(asked.a, asked.b)
    held = await client.layout() if asked.a is None else _held(asked.a)
    name = asked.single_dual or asked.split or asked.move[0]
    one = _named(held, name, asked.a or NOW)
    running = {each.name: each for each in (await client.snapshot()).instances}
    made = _Made(held, one, {each.name: each.port for each in running.values()})
    if asked.single_dual:
        dual = single_dual(one.wish, await client.machine())
        reason = f"cards {dual.cards[0]} and {dual.cards[1]}: {dual.reason}"
        return made.cases(dual.arms, PAIRS, reason, dual.cards)
    status = _placed(running, name)
    if asked.split:
        halves = split(one.wish, CpuSet.parse(status.pus), await client.machine())
        return made.cases(halves, ((WHOLE, HALVES),), f"PU {status.pus}, whole and in two halves")
    here, there = _where(one.wish, status), str(Slot.parse(asked.move[1]))
    if here == there:
        raise UsageError(
            what=f"{name} is on {there} already",
            why="a place cannot be compared with itself",
            do="Name another slot",
        )
    arms = {f"{name} on {slot}": (_on(one.wish, slot),) for slot in (here, there)}
    first, second = arms
    return made.cases(arms, ((first, second),))


@dataclass(frozen=True, slots=True)
class _Made:
    """Arms made from one instance of several; the others run on with whatever is kept."""

    held: HeldLayout
    one: HeldWish
    ports: Mapping[str, int | None]
    """What runs keeps its port, whatever becomes of the one."""

    def cases(
        self,
        arms: Mapping[str, tuple[Instance, ...]],
        pairs: tuple[tuple[str, str], ...],
        reason: str = "",
        cards: tuple[int, ...] = (),
    ) -> Cases:
        layouts = {
            name: as_layout([HeldWish(wish, self.one.base) for wish in wishes], name=name)
            for name, wishes in arms.items()
        }
        return Cases(
            layouts,
            pairs,
            {name: self._with(wishes) for name, wishes in arms.items()},
            reason,
            cards,
        )

    def _with(self, wishes: tuple[Instance, ...]) -> ApplyLayout:
        """All that runs, with these in the one's place; alone, it keeps its name and port."""
        mine = self.one.wish.name
        if len(wishes) == 1:
            wishes = (msgspec.structs.replace(wishes[0], name=mine),)
        rows: list[HeldWish] = []
        for each in self.held.wishes:
            taking = wishes if each.wish.name == mine else (each.wish,)
            rows += [HeldWish(self._with_port(wish), each.base) for wish in taking]
        name = self.held.name or NOW
        return as_layout(rows, name=name, path=self.held.path, ports=ports_of(self.held))

    def _with_port(self, wish: Instance) -> Instance:
        return msgspec.structs.replace(wish, port=wish.port or self.ports.get(wish.name))


def _of_files(a: str, b: str) -> Cases:
    layouts = [read_layout(path) for path in (a, b)]
    names = _names(*((checked(layout), layout.name) for layout in layouts))
    arms = dict(zip(names, layouts, strict=True))
    return Cases(arms, (names,), arms)


def _names(*layouts: tuple[Layout, str]) -> tuple[str, str]:
    """By what the layouts call themselves, where that tells them apart."""
    names = []
    for letter, (layout, path) in zip("AB", layouts, strict=True):
        name = "" if layout.name == path else layout.name.removeprefix(f"{letter}: ").strip()
        names.append(name or Path(path).stem)
    if names[0] == names[1]:
        names = [Path(path).stem for _, path in layouts]
    return ("A", "B") if names[0] == names[1] else (names[0], names[1])


def _held(path: str) -> HeldLayout:
    layout = read_layout(path)
    parsed = checked(layout)
    wishes = tuple(HeldWish(one, layout.base) for one in parsed.instances)
    return HeldLayout(wishes, parsed.name, layout.name, layout.text)


def _named(held: HeldLayout, name: str, where: str) -> HeldWish:
    wish = named([one.wish for one in held.wishes], name, where)
    return next(one for one in held.wishes if one.wish is wish)


def named(wishes: Sequence[Instance], name: str, where: str) -> Instance:
    """That instance of them. Raises UsageError."""
    for one in wishes:
        if one.name == name:
            return one
    has = ", ".join(one.name for one in wishes)
    raise UsageError(
        what=f"{where} has no instance {name!r}",
        why=f"it has: {has}" if has else "it has none",
        do="Name one of them" if has else "Start one first: `slotdeck up LAYOUT`",
    )


def _placed(running: Mapping[str, InstanceStatus], name: str) -> InstanceStatus:
    if (one := running.get(name)) is not None and one.pus:
        return one
    raise UsageError(
        what=f"{name} has no place now",
        why="it does not run, so there is nothing to compare with",
        do="Start it first, or compare two layout files",
    )


def _where(wish: Instance, status: InstanceStatus) -> str:
    """Its slot as asked for, or what that came to where it was left open."""
    slot = Slot.parse(wish.slot)
    if slot.kind not in ("auto", "each"):
        return str(slot)
    return f"gpu:{CpuSet(status.gpus)}" if status.gpus else f"pu:{status.pus}"


def _on(wish: Instance, slot: str) -> Instance:
    return msgspec.structs.replace(wish, slot=slot, count=None, cores=None, gpus=None, port=None)
