"""Compare what was asked with what the kernel shows: threads, memory policy, pages, GPUs, port."""

import argparse
import shutil
from collections.abc import Mapping
from typing import Any

from engine.cli.attach import attach, no_instance
from engine.cli.text import folded, print_json
from engine.control import Difference, Verification
from engine.core.codec import to_builtins


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="an instance; without, all")
    parser.add_argument(
        "--repair", action="store_true", help="bring threads and pages back, then look again"
    )
    parser.add_argument("--json", action="store_true", help="print slotdeck.verify/1")


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Look, and say what differs; 1 where something does."""
    client = await attach(environment)
    if client is None:
        if asked.name:
            raise no_instance(asked.name)
        found = Verification(())
    else:
        names = (asked.name,) if asked.name else ()
        found = await client.verify(names, repair=asked.repair)
    if asked.json:
        print_json(verify_json(found, repaired=asked.repair))
    else:
        print(verify_text(found, shutil.get_terminal_size().columns))
    return 0 if all(one.verified for one in found.instances) else 1


def verify_json(found: Verification, *, repaired: bool = False) -> dict[str, Any]:
    """`slotdeck.verify/1`; after a repair also what that did."""
    rows = to_builtins(found.instances)
    for row in rows:
        words = row.pop("repaired")
        if repaired:
            row["repaired"] = words
    return {"schema": "slotdeck.verify/1", "instances": rows}


def verify_text(found: Verification, width: int) -> str:
    """A line for each instance, and below it what differs and what to do about it."""
    if not found.instances:
        return (
            "No instance is ready, so there is nothing to compare. `slotdeck status` tells more."
        )
    lines: list[str] = []
    for one in found.instances:
        for words in one.repaired:
            lines += folded(f"{one.name}: repair: {words}", width, indent="  ")
        state = "as asked" if one.verified else "differs"
        lines.append(f"{one.name}: {state}")
        for difference in one.differences:
            lines += _difference(difference, width)
    return "\n".join(lines)


def _difference(difference: Difference, width: int) -> list[str]:
    lines = [f"  {difference.what}"]
    for word in ("asked", "got", "do"):
        lines += folded(f"    {word + ':':<7}{getattr(difference, word)}", width, indent=" " * 11)
    return lines
