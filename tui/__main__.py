"""The panel's entry: refuses what is no terminal, connects, shows, and says what keeps running."""

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import ControlError, ServiceUnreachable
from engine.reach import Reach
from tui.settings import Settings, config_folder, config_path, read_settings
from tui.terminal import DUMB, TerminalKind, terminal_kind

if TYPE_CHECKING:
    from engine.ab_process import Comparison
    from engine.client import ServiceClient
    from engine.control import ApplyLayout
    from engine.core.checks import Check
    from engine.core.status import Snapshot
    from engine.core.topology import Machine
    from tui.app import SlotdeckApp

GARBAGE_AFTER_S = 2.0
ASK_FOR_S = 0.004
"""For the questions to be on their way."""


def parser() -> argparse.ArgumentParser:
    """The panel's own arguments."""
    made = argparse.ArgumentParser(prog="slotdeck", description="Open the control panel.")
    made.add_argument("layout", nargs="?", help="a layout file to offer")
    made.add_argument("--readonly", action="store_true", help="look, change nothing")
    made.add_argument("--host", default="", help="show the service of a host, reached by ssh")
    made.add_argument("--ssh", metavar="PROGRAM", default="", help="another ssh, with its options")
    made.add_argument("--remote", metavar="PATH", default="", help="where slotdeck is there")
    made.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    made.add_argument("--theme", choices=("dark", "light"), help="for the terminal's background")
    made.add_argument(
        "--colours",
        choices=("auto", "truecolor", "256", "16", "none"),
        help="how many there are, where that is not seen from TERM, COLORTERM and NO_COLOR",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Open the panel; the exit code is the command's."""
    args = parser().parse_args(argv)
    # Of what is loaded until the first frame nothing is garbage; looking for it costs a tenth.
    gc.disable()
    # Read once, here: everything below is given values.
    environment = dict(os.environ)  # noqa: TID251
    if why := why_no_panel(environment.get("TERM", "")):
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
        looks = Looks.of(args, environment, utf8=utf8)
        # Textual reads its own variables when it is imported.
        os.environ.update(looks.kind.for_textual)  # noqa: TID251
        reach = Reach.named(
            environment,
            host=args.host,
            ssh=args.ssh,
            slotdeck=args.remote,
            readonly=args.readonly,
        )
        return asyncio.run(open_panel(layout, reach, looks, environment))
    except ControlError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 -- Python's own words would not say what goes on
        return tell_fault(error, environment)


def why_no_panel(term: str) -> str:
    """What is in the way of drawing; nothing where that is possible."""
    # Textual draws on the error output, so that one must be the terminal as well.
    streams = {"input": sys.stdin, "output": sys.stdout, "error output": sys.stderr}
    elsewhere = [name for name, stream in streams.items() if not stream.isatty()]
    if elsewhere:
        return f"its {elsewhere[0]} is no terminal"
    if term in DUMB:
        return f"TERM is {term}, which cannot place a cursor"
    return ""


@dataclass(frozen=True, slots=True)
class Looks:
    """How the panel draws: the command line wins over the settings file."""

    settings: Settings
    kind: TerminalKind
    theme: str
    ascii_only: bool
    layouts: Path

    @classmethod
    def of(
        cls, args: argparse.Namespace, environment: Mapping[str, str], *, utf8: bool
    ) -> "Looks":
        """Raises ControlError where the settings file has a mistake."""
        settings = read_settings(config_path(environment))
        panel = settings.panel
        return cls(
            settings,
            terminal_kind(environment, asked=args.colours or panel.colours),
            args.theme or panel.theme,
            args.ascii or panel.ascii or not utf8,
            config_folder(environment) / "layouts",
        )


def complain(words: str) -> None:
    """One line for a human."""
    sys.stderr.write(f"slotdeck: {words}\n")


def tell_fault(error: BaseException, environment: Mapping[str, str]) -> int:
    """A fault of our own, for a human; the exit code."""
    from tui.own_fault import fault_words

    complain(fault_words(error, environment))
    return 1


async def open_panel(
    layout: "ApplyLayout | None", reach: Reach, looks: Looks, environment: Mapping[str, str]
) -> int:
    """Connect to the service and run the panel on it."""
    from engine.client import connect

    where = f" to {reach.host}" if reach.host else ""
    sys.stdout.write(f"slotdeck: connecting{where}" + ("..." if looks.ascii_only else "…"))
    sys.stdout.flush()
    try:
        control = await connect(reach=reach, who="panel")
        asking = asyncio.create_task(first_look(control))
        # The service answers while Textual is being loaded.
        await asyncio.wait({asking}, timeout=ASK_FOR_S)
        from tui.app import SlotdeckApp
        from tui.widgets.schemes import scheme_for

        first = await asking
    finally:
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()

    app = SlotdeckApp(
        control,
        readonly=reach.readonly,
        ascii_only=looks.ascii_only,
        scheme=scheme_for(looks.theme, looks.kind.colours),
        kind=looks.kind,
        keys=looks.settings.keymap,
        mouse=looks.settings.panel.mouse,
        layouts=looks.layouts,
        layout=layout,
        reconnect=partial(connect, reach=reach, who="panel"),
        who=control.name,
        checkup=partial(checked, reach, environment),
        compare=partial(compared, environment),
        terminal=sys.stdin.fileno(),
        host=reach.host,
        first=first,
    )
    return await run(app, environment)


async def checked(reach: Reach, environment: Mapping[str, str]) -> "tuple[Check, ...]":
    """The doctor's findings; loaded only where somebody asks for them."""
    from engine.checkup import checkup

    return await checkup(reach, environment)


def compared(environment: Mapping[str, str], words: Sequence[str]) -> "Comparison":
    """A comparison, in a process of its own."""
    from engine.ab_process import AbProcess

    return AbProcess.start(environment, words)


async def first_look(client: "ServiceClient") -> "tuple[Machine, Snapshot] | None":
    """Machine and snapshot for the first frame; a service of another version is told here, not
    in a toast."""
    try:
        machine, snapshot = await asyncio.gather(client.machine(), client.snapshot())
    except ServiceUnreachable:
        return None  # the panel says so, and tries again
    return machine, snapshot


async def run(app: "SlotdeckApp", environment: Mapping[str, str]) -> int:
    """Show the panel; afterwards say on the restored terminal what keeps running."""
    from tui.hangup import LastResort
    from tui.present.farewell import farewell

    watch = LastResort(sys.stdin.fileno())
    watch.start()
    asyncio.get_running_loop().call_later(GARBAGE_AFTER_S, look_for_garbage)
    try:
        await app.run_async()
    finally:
        watch.call_off()
    close = getattr(app.control, "aclose", None)
    if close is not None:
        await close()
    code = app.return_code or 0
    if app.fault is not None:
        code = tell_fault(app.fault, environment)
    try:
        if app.parting:
            sys.stdout.write(app.parting + "\n")
        sys.stdout.write(farewell(app.view.snapshot, host=app.view.host) + "\n")
        sys.stdout.flush()
    except OSError:  # the terminal has gone; nobody is left to read it
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
    return code


def look_for_garbage() -> None:
    """From now on, and only among what is new."""
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    sys.exit(main())
