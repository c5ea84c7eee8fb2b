"""Make what runs equal to a layout file: start, stop and move only what differs, then wait."""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping

from engine.cli.layouts import checked, read_layout
from engine.cli.status import status_json, status_text
from engine.cli.text import note, print_json
from engine.client import ServiceClient, connect
from engine.control import ApplyLayout, Offer
from engine.core.errors import (
    ControlError,
    NotReadyInTime,
    PlacementRefused,
    StaleOffer,
)
from engine.core.status import Snapshot, State


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("layout", metavar="LAYOUT", help="a layout file")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="wait at most S seconds (600)"
    )
    parser.add_argument("--json", action="store_true", help="print slotdeck.status/1 at the end")


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Apply and wait."""
    change = read_layout(asked.layout)
    checked(change)  # before a service is started for nothing
    client = await connect(environment=environment, tell=note)
    try:
        final = await bring_up(client, change, timeout_s=asked.timeout)
    except asyncio.CancelledError:
        note("Nobody waits any more; what was begun goes on: `slotdeck status`, `slotdeck down`")
        raise
    if asked.json:
        print_json(status_json(final))
    else:
        print(status_text(final))
    return 0


async def bring_up(client: ServiceClient, change: ApplyLayout, *, timeout_s: float) -> Snapshot:
    """Apply a layout and wait until all of it is ready; progress goes to stderr.

    Raises PlacementRefused (nothing was changed), NotReadyInTime, or ControlError for an
    instance that failed.
    """
    for attempt in range(3):
        offer = await client.offer(change)
        if offer.refusals:
            raise PlacementRefused(
                what=f"{change.name} is refused, nothing was changed",
                why="; ".join(f"{one.instance}: {one.why}" for one in offer.refusals),
                do="; ".join(dict.fromkeys(one.do for one in offer.refusals)),
            )
        try:
            await client.apply(offer)
            break
        except StaleOffer:
            if attempt == 2:
                raise
    for line in offer_lines(offer):
        print(line, file=sys.stderr)
    begun = tuple(placement.instance for placement in (*offer.starts, *offer.moves))
    return await wait_ready(client, (*begun, *offer.keeps), gone=offer.stops, timeout_s=timeout_s)


def offer_lines(offer: Offer) -> list[str]:
    """What was applied, one line each."""
    return [
        *(f"stopping {name}" for name in offer.stops),
        *(f"moving {one.instance} to {one.slot}: PU {one.pus}" for one in offer.moves),
        *(f"starting {one.instance} on {one.slot}: PU {one.pus}" for one in offer.starts),
        *(f"keeping {name}" for name in offer.keeps),
        *offer.consequences,
        *(
            f"warning: {one.instance}: {warning}"
            for one in (*offer.moves, *offer.starts)
            for warning in one.warnings
        ),
    ]


async def wait_ready(
    client: ServiceClient, names: tuple[str, ...], *, gone: tuple[str, ...] = (), timeout_s: float
) -> Snapshot:
    """Wait until `names` are ready and verified, and those of `gone` have left the list."""
    deadline = time.monotonic() + timeout_s
    told: dict[str, str] = {}
    waiting: list[str] = list(names)
    looked = False
    while not looked or time.monotonic() < deadline:
        looked = True  # once, even with no time at all: it may all be ready
        try:
            async with asyncio.timeout(max(5.0, deadline - time.monotonic())):
                snapshot = await client.snapshot()
        except TimeoutError:
            continue
        statuses = {one.name: one for one in snapshot.instances}
        if left := [name for name in told if name not in statuses]:
            raise ControlError(
                what=f"{left[0]} did not become ready",
                why="somebody has stopped it meanwhile, and it has left the list",
                do="Apply the layout again; the others are untouched",
            )
        for name in names:
            one = statuses.get(name)
            if one is not None and told.get(name) != one.state:
                told[name] = one.state
                print(f"{name}: {one.state} — {one.why}", file=sys.stderr)
        failed = [
            one
            for name in names
            if (one := statuses.get(name)) and one.state in (State.FAILED, State.STOPPED)
        ]
        if failed:
            raise ControlError(
                what=f"{failed[0].name} did not start",
                why=failed[0].why,
                do=f"Read its log: `slotdeck logs {failed[0].name}`; the others are untouched",
            )
        waiting = [
            name
            for name in names
            if (one := statuses.get(name)) is None
            or one.state is not State.READY
            or one.verified is None
        ]
        if not waiting and not any(name in statuses for name in gone):
            return snapshot
        await asyncio.sleep(0.1)
    states = ", ".join(f"{name} ({told.get(name, 'unknown')})" for name in waiting or gone)
    raise NotReadyInTime(
        what=f"Not ready within {timeout_s:g} s: {states}",
        why="it is still loading, or it hangs",
        do="It goes on starting: wait longer (--timeout), or read its log (`slotdeck logs NAME`)",
    )
