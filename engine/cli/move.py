"""Place an instance on another slot: live where that can be, else by a restart there.

A live move carries threads and memory pages over while requests go on. What cannot be moved so is
said first: it is a restart then, in which requests in flight may finish within the grace.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping

from engine.cli.attach import attach, no_instance
from engine.cli.status import status_text
from engine.cli.up import wait_ready
from engine.client import ServiceClient
from engine.control import MoveInstance
from engine.core.errors import ControlError, NotReadyInTime, PlacementRefused
from engine.core.slot import Slot
from engine.core.status import Snapshot, State

_TELL_EVERY_S = 0.5


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("name", metavar="NAME", help="an instance")
    parser.add_argument("slot", metavar="SLOT", help="where to, e.g. numa:1 or core:0-7")
    parser.add_argument(
        "--restart", action="store_true", help="start it anew there, even if it could move live"
    )
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="wait at most S seconds (600)"
    )


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Move and wait until it is ready there."""
    Slot.parse(asked.slot)
    client = await attach(environment)
    if client is None:
        raise no_instance(asked.name)
    offer = await client.offer(MoveInstance(asked.name, asked.slot, restart=asked.restart))
    if offer.refusals:
        refusal = offer.refusals[0]
        raise PlacementRefused(
            what=f"{asked.name} stays where it is", why=refusal.why, do=refusal.do
        )
    for line in offer.consequences:
        print(line, file=sys.stderr)
    before = await client.snapshot()
    await client.apply(offer)
    if offer.live:
        (placement,) = offer.moves
        final = await _moved(client, asked.name, str(placement.pus), before, asked.timeout)
    else:
        final = await wait_ready(client, (asked.name,), timeout_s=asked.timeout)
    print(status_text(final))
    return 0


async def _moved(
    client: ServiceClient, name: str, pus: str, before: Snapshot, timeout_s: float
) -> Snapshot:
    """Wait for the end of a live move, and tell how it goes. Raises when it did not get there."""
    deadline = time.monotonic() + timeout_s
    told = ""
    while True:
        now = await client.snapshot()
        one = next((each for each in now.instances if each.name == name), None)
        if one is None or one.state is not State.READY:
            raise ControlError(
                what=f"{name} was not moved to the end",
                why=one.why if one else "it has left the list",
                do=f"Look at `slotdeck status` and `slotdeck logs {name}`",
            )
        if one.verified is not None:
            break
        if one.why != told:
            told = one.why
            print(f"{name}: {told}", file=sys.stderr)
        if time.monotonic() > deadline:
            raise NotReadyInTime(
                what=f"{name} is not there within {timeout_s:g} s",
                why=one.why,
                do="It goes on moving: `slotdeck status` tells how far it is",
            )
        await asyncio.sleep(_TELL_EVERY_S if told else 0.05)
    known = {(each.at, each.text) for each in before.happenings}
    for each in now.happenings:
        if each.text.startswith(f"{name}: ") and (each.at, each.text) not in known:
            print(each.text, file=sys.stderr)
    if one.pus != pus:
        raise ControlError(
            what=f"{name} was not moved",
            why=one.why,
            do=f"Clear that, or move it by a restart: `slotdeck move {name} SLOT --restart`",
        )
    return now
