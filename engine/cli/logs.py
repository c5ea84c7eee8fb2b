"""Print an instance's log; -f follows it."""

import argparse
import asyncio
import sys
from collections.abc import Mapping

from engine.cli.attach import attach, no_instance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("name", metavar="NAME", help="an instance")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    parser.add_argument(
        "--bytes",
        type=int,
        default=65536,
        metavar="N",
        help="begin N bytes before the end (65536)",
    )


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the end of the log, and what comes."""
    client = await attach(environment)
    if client is None:
        raise no_instance(asked.name)
    lines = await client.log(asked.name, limit_bytes=asked.bytes)
    while True:
        sys.stdout.write(lines.text)
        sys.stdout.flush()
        if not asked.follow:
            return 0
        if not lines.text:
            await asyncio.sleep(0.3)
        lines = await client.log(asked.name, offset=lines.next_offset)
