"""Arms on a service: starts them, side by side or in turns, and puts back what ran before."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from engine.bench.ab_block import Up
from engine.bench.ab_plan import Plan, layout_before, place_of, with_ports
from engine.bench.values import Target
from engine.client import ServiceClient
from engine.control import ApplyLayout, StopInstances
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, NotReadyInTime, PlacementRefused, StaleOffer
from engine.core.status import InstanceStatus, State
from engine.core.topology import Machine

_POLL_S = 0.05


@dataclass
class ServiceArms:
    """The `Arms` of a session, on a service: one runs at a time, or both if they fit."""

    client: ServiceClient
    machine: Machine
    plan: Plan
    timeout_s: float
    say: Callable[[str], None]
    start_s: dict[str, list[float]] = field(default_factory=dict)
    """By arm: how long its starts took."""
    on_start: Callable[[str], None] = lambda _arm: None
    """Told of each start, which may take minutes."""
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
        await self._require_own_ports([found[name] for name in names])
        return self._described([found[name] for name in names])

    async def _require_own_ports(self, statuses: Sequence[InstanceStatus]) -> None:
        """An engine that loads for long may lose its port to another program, which then answers
        in its place; what a command starts may well be a container, whose port is another's."""
        doubted = tuple(one.name for one in statuses if not one.verified)
        if not doubted:
            return
        engines = {one.name: one.engine for one in statuses}
        for one in (await self.client.verify(doubted)).instances:
            if engines[one.name] == "command":
                continue
            for wrong in one.differences:
                if wrong.what == "port":
                    raise ControlError(
                        what=f"{one.name} cannot be measured",
                        why=f"{wrong.got}, asked {wrong.asked}",
                        do="Give it another port in its layout, and compare again",
                    )

    async def end(self) -> None:
        """Stop all arms, and start what ran before."""
        await self.clear()
        await self.restore()

    async def clear(self, *, but: Collection[str] = ()) -> None:
        """Stop all arms, except these instances."""
        snapshot = await self.client.snapshot()
        ours = {name for places in self.plan.places.values() for name in places}.difference(but)
        await self._stop(tuple(one.name for one in snapshot.instances if one.name in ours))
        self._up.clear()

    async def restore(self) -> None:
        """Start what ran before, on the ports that it had."""
        before = layout_before(self.plan.before)
        if before is None:
            return
        names = tuple(one.wish.name for one in self.plan.before.wishes)
        self.say(f"starting again what ran before: {', '.join(names)}")
        await self.run(before, names)

    async def run(self, layout: ApplyLayout, names: tuple[str, ...]) -> None:
        """Make what runs equal to it, on the ports that were there before; wait for these."""
        offer = await self.client.offer(layout)
        got = {one.instance: one.port for one in offer.starts}
        if any(got.get(name, port) != port for name, port in self.plan.ports.items()):
            layout = with_ports(layout, self.plan.ports)
        await self._apply(layout)
        await self._wait(names, self.timeout_s)

    async def on_old_ports(self, names: Collection[str]) -> bool:
        """Whether none of them has another port than the one of its name had before."""
        return all(
            self.plan.ports.get(one.name, one.port) == one.port
            for one in (await self.client.snapshot()).instances
            if one.name in names
        )

    async def different(self) -> tuple[str, ...]:
        """What of all that ran before is not where it was, in words."""
        now = {one.name: one for one in (await self.client.snapshot()).instances}
        told = []
        for name, was in self.plan.ran.items():
            one = now.get(name)
            if one is None:
                told.append(f"{name} is gone")
            elif (is_now := place_of(one)) != was:
                told.append(f"{name} is {is_now}; it was {was}")
            elif (port := self.plan.ports.get(name)) not in (None, one.port):
                told.append(f"{name} is on port {one.port}; it was on {port}")
        return tuple(told)

    async def _start(self, arm: str) -> None:
        """Beside the other one or in the place of the others."""
        both = self.plan.both
        for other in () if both is not None else tuple(self._up - {arm}):
            await self._stop(tuple(self.plan.places[other]))
            self._up.discard(other)
        self.on_start(arm)
        started = [arm] if both is None or self._up else list(self.plan.places)
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
