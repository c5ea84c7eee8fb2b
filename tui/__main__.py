"""The panel's entry: refuses what is no terminal, connects, shows, and says what keeps running."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from engine.core.errors import ControlError, ServiceUnreachable
from engine.reach import Reach

if TYPE_CHECKING:
    from engine.control import ApplyLayout
    from tui.app import SlotdeckApp


def parser() -> argparse.ArgumentParser:
    """The panel's own arguments."""
    made = argparse.ArgumentParser(prog="slotdeck", description="Open the control panel.")
    made.add_argument("layout", nargs="?", help="a layout file to offer")
    made.add_argument("--readonly", action="store_true", help="look, change nothing")
    made.add_argument("--host", default="", help="show the service of a host, reached by ssh")
    made.add_argument("--ssh", metavar="PROGRAM", default="", help="another ssh, with its options")
    made.add_argument("--remote", metavar="PATH", default="", help="where slotdeck is there")
    made.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Open the panel; the exit code is the command's."""
    args = parser().parse_args(argv)
    # Read once, here: everything below is given values.
    term = os.environ.get("TERM", "")  # noqa: TID251
    # Textual draws on the error output, so that one must be the terminal as well.
    streams = {"input": sys.stdin, "output": sys.stdout, "error output": sys.stderr}
    elsewhere = [name for name, stream in streams.items() if not stream.isatty()]
    if term == "dumb" or elsewhere:
        why = "TERM is dumb" if term == "dumb" else f"its {elsewhere[0]} is no terminal"
        complain(f"cannot draw the panel: {why}. Use `slotdeck status --watch` instead.")
        return 1
    layout = None
    if args.layout is not None:
        from engine.layout_files import read_layout

        try:
            layout = read_layout(args.layout)
        except ControlError as error:
            complain(str(error))
            return error.exit_code
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    try:
        reach = Reach.named(
            os.environ,  # noqa: TID251
            host=args.host,
            ssh=args.ssh,
            slotdeck=args.remote,
            readonly=args.readonly,
        )
        return asyncio.run(open_panel(layout, reach, ascii_only=args.ascii or not utf8))
    except ControlError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def complain(words: str) -> None:
    """One line for a human."""
    sys.stderr.write(f"slotdeck: {words}\n")


async def open_panel(layout: "ApplyLayout | None", reach: Reach, *, ascii_only: bool) -> int:
    """Connect to the service and run the panel on it."""
    from engine.client import connect

    where = f" to {reach.host}" if reach.host else ""
    sys.stdout.write(f"slotdeck: connecting{where}" + ("..." if ascii_only else "…"))
    sys.stdout.flush()
    try:
        control = await connect(reach=reach)
        with suppress(ServiceUnreachable):
            await control.snapshot()  # one of another version is told here, not in a toast
    finally:
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()
    from tui.app import SlotdeckApp

    app = SlotdeckApp(
        control,
        readonly=reach.readonly,
        ascii_only=ascii_only,
        layout=layout,
        reconnect=partial(connect, reach=reach),
        terminal=sys.stdin.fileno(),
        host=reach.host,
    )
    return await run(app)


async def run(app: "SlotdeckApp") -> int:
    """Show the panel; afterwards say on the restored terminal what keeps running."""
    from tui.hangup import LastResort
    from tui.present.farewell import farewell

    watch = LastResort(sys.stdin.fileno())
    watch.start()
    try:
        await app.run_async()
    finally:
        watch.call_off()
    close = getattr(app.control, "aclose", None)
    if close is not None:
        await close()
    try:
        sys.stdout.write(farewell(app.view.snapshot, host=app.view.host) + "\n")
        sys.stdout.flush()
    except OSError:  # the terminal has gone; nobody is left to read it
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main())
