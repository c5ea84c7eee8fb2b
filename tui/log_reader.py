"""Reads the log of one instance for as long as it is wanted."""

import asyncio
from collections.abc import Callable

from textual.app import App
from textual.worker import Worker

from engine.control import Control
from engine.core.errors import ControlError
from tui.widgets.log_pane import LogPane

LOG_EVERY_S = 1.0


class LogReader:
    """About once a second, and only while it can be seen."""

    def __init__(
        self,
        app: Callable[[], App[None]],
        pane: Callable[[], LogPane],
        control: Callable[[], Control],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._app = app
        self._pane = pane
        self._control = control
        self._is_wanted = is_wanted
        self._work: Worker[None] | None = None

    def follow(self, name: str | None) -> None:
        """Read this one from now on; none, to end it."""
        if self._work:
            self._work.cancel()
        pane = self._pane()
        pane.follow(name)
        if name:
            work = self._read(name, pane)
            self._work = self._app().run_worker(work, group="log", exit_on_error=False)

    def stop(self) -> None:
        """Nobody looks any more."""
        if self._work:
            self._work.cancel()

    async def _read(self, name: str, pane: LogPane) -> None:
        while pane.instance == name:
            if pane.is_on_screen and self._is_wanted():
                try:
                    lines = await self._control().log(name, offset=pane.offset_read)
                    pane.add(lines.text, lines.next_offset)
                except ControlError as error:
                    pane.say(f"{error.what}: {error.why}")
            await asyncio.sleep(LOG_EVERY_S)
