"""One panel on pipes, for `tui.web`: Textual's web driver carries it to a page."""

import argparse
import asyncio
import os
import sys
from functools import partial

from engine.checkup import checkup
from engine.client import connect
from engine.core.errors import ControlError
from engine.reach import Reach
from tui.app import SlotdeckApp
from tui.own_fault import fault_words
from tui.settings import config_folder, config_path, read_settings
from tui.terminal import TerminalKind
from tui.widgets.schemes import scheme_for

NO_CLIPBOARD = "a page may not set the clipboard; open the panel in a terminal for that"


async def play(*, readonly: bool) -> int:
    """Connect, and show until the page closes."""
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
    settings = read_settings(config_path(environment))
    reach = Reach.named(environment, readonly=readonly)
    control = await connect(reach=reach, who="panel")
    app = SlotdeckApp(
        control,
        readonly=readonly,
        scheme=scheme_for(settings.panel.theme, "truecolor"),
        kind=TerminalKind("truecolor", no_clipboard=NO_CLIPBOARD),
        keys=settings.keymap,
        layouts=config_folder(environment) / "layouts",
        reconnect=partial(connect, reach=reach, who="panel"),
        who=control.name,
        checkup=partial(checkup, reach, environment),
        terminal=sys.stdin.fileno(),
    )
    await app.run_async()
    await control.aclose()
    if app.fault is not None:
        sys.stderr.write(f"slotdeck: {fault_words(app.fault, environment)}\n")
    return app.return_code or 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="slotdeck serve")
    parser.add_argument("--readonly", action="store_true")
    args = parser.parse_args()
    try:
        return asyncio.run(play(readonly=args.readonly))
    except ControlError as error:
        sys.stderr.write(f"slotdeck: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
