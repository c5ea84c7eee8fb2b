"""Place an instance on another slot; in this version that is a restart there."""

import argparse
import sys
from collections.abc import Mapping

from engine.cli.attach import attach, no_instance
from engine.cli.status import status_text
from engine.cli.up import wait_ready
from engine.control import MoveInstance
from engine.core.errors import PlacementRefused
from engine.core.slot import Slot


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("name", metavar="NAME", help="an instance")
    parser.add_argument("slot", metavar="SLOT", help="where to, e.g. numa:1 or core:0-7")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="wait at most S seconds (600)"
    )


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Move and wait until it is ready there."""
    Slot.parse(asked.slot)
    client = await attach(environment)
    if client is None:
        raise no_instance(asked.name)
    offer = await client.offer(MoveInstance(asked.name, asked.slot))
    if offer.refusals:
        refusal = offer.refusals[0]
        raise PlacementRefused(
            what=f"{asked.name} stays where it is", why=refusal.why, do=refusal.do
        )
    for line in offer.consequences:
        print(line, file=sys.stderr)
    await client.apply(offer)
    print(status_text(await wait_ready(client, (asked.name,), timeout_s=asked.timeout)))
    return 0
