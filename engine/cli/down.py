"""Stop instances: requests in flight may finish within the engine's grace."""

import argparse
import sys
from collections.abc import Mapping

from engine.cli.attach import attach, no_instance
from engine.cli.up import wait_ready
from engine.control import StopInstances
from engine.core.errors import UsageError

_GONE_WITHIN_S = 600.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="instances to stop")
    parser.add_argument("--all", action="store_true", help="stop every instance")


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Stop and wait until nothing of them is left."""
    if bool(asked.names) == asked.all:
        raise UsageError(
            what="Nothing to stop was named",
            why="down takes names, or --all",
            do="Write `slotdeck down NAME…` or `slotdeck down --all`",
        )
    client = await attach(environment)
    if client is None:
        if asked.names:
            raise no_instance(asked.names[0])
        print("No service runs, so there is nothing to stop.")
        return 0
    known = tuple(one.name for one in (await client.snapshot()).instances)
    names = known if asked.all else tuple(dict.fromkeys(asked.names))
    if not names:
        print("There are no instances.")
        return 0
    offer = await client.offer(StopInstances(names, forget=True))
    for line in offer.consequences:
        print(line, file=sys.stderr)
    await client.apply(offer)
    await wait_ready(client, (), gone=names, timeout_s=_GONE_WITHIN_S)
    print(f"stopped: {', '.join(names)}")
    return 0
