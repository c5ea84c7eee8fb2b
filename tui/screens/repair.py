"""Repair: what differs from what was asked, and nothing brought back before Enter."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType

from engine.control import Control, Verified
from engine.core.errors import ControlError
from engine.core.status import InstanceStatus
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.repair_text import can_repair, repair_lines
from tui.present.text import clean, wrapped
from tui.screens.dialog import Dialog
from tui.widgets.palette import Palette


class RepairScreen(Dialog[None]):
    """Looks first; a repair that has begun goes on in the service when this is closed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "repair", show=False),
        Binding("escape", "drop", show=False),
    ]

    def __init__(
        self, control: Control, instance: InstanceStatus, palette: Palette, glyphs: Glyphs
    ) -> None:
        super().__init__(f"Repair {clean(instance.name)}", palette, glyphs)
        self.control = control
        self.instance = instance
        self.found: Verified | ControlError | None = None
        self._doing = ""
        """What the service is asked for right now."""

    def on_mount(self) -> None:
        self._ask("looking at its threads, memory and port…", repair=False)

    def _ask(self, words: str, *, repair: bool) -> None:
        self._doing = words
        self.draw()
        # The app owns the worker: what has begun is not broken off with this dialog.
        self.app.run_worker(self._verify(repair=repair), group="repair", exit_on_error=False)

    async def _verify(self, *, repair: bool) -> None:
        try:
            answer = await self.control.verify((self.instance.name,), repair=repair)
            (self.found,) = answer.instances or (Verified(self.instance.name, verified=False),)
        except ControlError as error:
            self.found = error
        finally:
            self._doing = ""
        if self.is_attached:
            self.draw()

    def body(self, width: int) -> Sequence[Line]:
        lines: list[Line] = []
        match self.found:
            case ControlError() as error:
                words = clean(f"{error.what}: {error.why}. {error.do}")
                lines += [(Span(part, "error"),) for part in wrapped(words, width)]
            case None:
                pass  # what is being done stands below
            case found:
                now = replace(self.instance, verified=found.verified)
                lines += repair_lines(now, found, width, self.glyphs)
        if self._doing:
            lines += [(), (Span(spelled(self._doing, self.glyphs), "warning"),)]
        return lines

    @property
    def can_repair(self) -> bool:
        """Something differs that a repair can bring back, and nothing is being asked."""
        found = self.found
        return not self._doing and isinstance(found, Verified) and can_repair(found.differences)

    def hints(self) -> Sequence[tuple[str, str]]:
        if self._doing:
            return (("esc", "close; what has begun goes on"),)
        if self.can_repair:
            return (("enter", "repair"), ("esc", "close"))
        if isinstance(self.found, Verified) and not self.found.verified:
            return (("esc", "close"), ("", "there is nothing that a repair could bring back"))
        return (("esc", "close"),)

    def action_repair(self) -> None:
        if not self.can_repair:
            self.app.bell()
            return
        self._ask("repairing…", repair=True)

    def action_drop(self) -> None:
        self.dismiss(None)
