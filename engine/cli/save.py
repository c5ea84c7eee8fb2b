"""Write what runs now into a layout file: its comments, order and style stay.

A FILE that is there is edited as it stands now; of a new one, what instances share goes into
[defaults]. [expect] records the machine, so that `up` on another one renumbers the slots or says
what differs. Secrets in env are written only where the file had them.
"""

import argparse
import sys
from collections.abc import Mapping

from engine.cli.attach import attach
from engine.core.errors import ControlError
from engine.layout_files import NotSaved, saving, write


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("file", metavar="FILE", help="a layout file, new or to be edited")
    parser.add_argument(
        "--force", action="store_true", help="also edit a file that is another layout"
    )
    parser.add_argument(
        "--no-expect", action="store_true", help="do not record the machine; drop [expect]"
    )


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Save, or say why not."""
    client = await attach(environment)
    if client is None:
        raise ControlError(
            what="There is nothing to save",
            why="no service runs, and none has left an engine behind",
            do="Start some: `slotdeck up LAYOUT`",
        )
    held, machine = await client.layout(), await client.machine()
    made = saving(asked.file, held, machine, with_expect=not asked.no_expect)
    if not made.is_own and not asked.force:
        raise NotSaved(
            what=f"{asked.file} was not written",
            why="it is there, and what runs did not come from it",
            do="Name another file, or add --force to make this one say what runs",
        )
    for note in made.notes:
        print(note, file=sys.stderr)
    if made.after == made.before:
        print(f"{asked.file} says what runs already")
        return 0
    write(made)
    count = len(held.wishes)
    print(f"{asked.file}: {count} instance{'' if count == 1 else 's'} saved")
    return 0
