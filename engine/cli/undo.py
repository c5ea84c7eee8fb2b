"""Take the newest change of placements back, or do again what was taken back.

Every instance goes to the very PUs that it had; what cannot be brought back is said. The history
is the service's: what the panel changed can be undone here, and the other way round.
"""

import argparse
import sys
from collections.abc import Mapping

from engine.cli.attach import attach
from engine.cli.status import status_text
from engine.cli.up import wait_ready
from engine.control import Redo, Undo
from engine.core.errors import ControlError, PlacementRefused


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("--redo", action="store_true", help="do again what was undone last")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="wait at most S seconds (600)"
    )


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Undo, and wait until what has to run is ready."""
    client = await attach(environment)
    if client is None:
        raise ControlError(
            what="There is nothing to undo",
            why="no service runs, and the history is the service's",
            do="Move, start or stop an instance first",
        )
    offer = await client.offer(Redo() if asked.redo else Undo())
    if offer.refusals:
        refusal = offer.refusals[0]
        raise PlacementRefused(
            what=f"{refusal.instance} cannot go back", why=refusal.why, do=refusal.do
        )
    for line in offer.consequences:
        print(line, file=sys.stderr)
    await client.apply(offer)
    names = tuple(each.instance for each in (*offer.moves, *offer.starts))
    final = await wait_ready(client, names, timeout_s=asked.timeout)
    print(status_text(final))
    return 0
