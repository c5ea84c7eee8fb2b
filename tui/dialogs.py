"""The dialogs that lie above the board, each opened by an action."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from textual.app import App

from engine.control import Control, HeldWish
from engine.core.errors import ControlError
from tui.present.glyphs import Glyphs
from tui.present.help_text import help_lines
from tui.present.ink import Line
from tui.screens.hand import Hand
from tui.view import View
from tui.widgets.palette import Palette


class Below(Hand, Protocol):
    """What dialogs need of the board."""

    view: View

    def place(self, draft: HeldWish | None, /) -> None:
        """A new instance hangs on the cursor; None when nothing was chosen."""
        ...

    def tell(self, error: ControlError) -> None:
        """An error as a toast."""
        ...


class Dialogs:
    """Asks the service for what a dialog shows, and opens it."""

    def __init__(
        self,
        app: App[None],
        board: Below,
        control: Callable[[], Control],
        palette: Palette,
        glyphs: Glyphs,
    ) -> None:
        self.opened = ""
        """The layout file that the panel was opened with."""
        self.folder: Path | None = None
        """Where the user's own layouts are."""
        self._app = app
        self._board = board
        self._control = control
        self._palette = palette
        self._glyphs = glyphs

    def do_new(self) -> None:
        self._app.run_worker(self._new(), group="catalogue", exclusive=True, exit_on_error=False)

    async def _new(self) -> None:
        from tui.screens.new_instance import NewInstanceScreen

        try:
            catalogue = await self._control().catalogue()
        except ControlError as error:
            self._board.tell(error)
            return
        names = frozenset(each.name for each in self._board.view.instances)
        dialog = NewInstanceScreen(catalogue, names, self._board, self._palette, self._glyphs)
        self._app.push_screen(dialog, self._board.place)

    def do_try(self) -> None:
        from tui.screens.try_prompt import TryScreen

        if self._board.view.selected:
            self._app.push_screen(
                TryScreen(self._control(), self._board.view.selected, self._palette, self._glyphs)
            )

    def do_repair(self) -> None:
        from tui.screens.repair import RepairScreen

        if self._board.view.instance:
            self._app.push_screen(
                RepairScreen(
                    self._control(), self._board.view.instance, self._palette, self._glyphs
                )
            )

    def do_save(self) -> None:
        self.save("", lambda _: None)

    def save(self, path: str, then: Callable[[Path | None], None]) -> None:
        """Ask where to save, from this path on; `then` is told where it was."""
        self._app.run_worker(
            self._save(path, then), group="layout", exclusive=True, exit_on_error=False
        )

    async def _save(self, path: str, then: Callable[[Path | None], None]) -> None:
        from engine.layout_folders import name_to_save
        from tui.screens.save_layout import SaveScreen

        try:
            held = await self._control().layout()
            machine = self._board.view.machine or await self._control().machine()
        except ControlError as error:
            self._board.tell(error)
            return
        path = path or self.opened or held.path
        path = name_to_save(path, held.name) if self.folder else path or "layout.toml"
        dialog = SaveScreen(held, machine, path, self.folder, self._palette, self._glyphs)
        self._app.push_screen(dialog, then)

    def do_help(self) -> None:
        from tui.screens.reading import ReadingScreen

        def lines(width: int) -> list[Line]:
            return help_lines(self._board.view, width, self._glyphs)

        self._app.push_screen(ReadingScreen("Help", lines, self._palette, self._glyphs))

    def do_quit(self) -> None:
        from tui.screens.quit import QuitScreen

        def answered(leave: bool | None, /) -> None:  # noqa: FBT001  Textual calls it
            if leave:
                self._app.exit()

        self._app.push_screen(QuitScreen(self._board.view, self._palette, self._glyphs), answered)
