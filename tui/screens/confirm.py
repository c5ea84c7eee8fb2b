"""An offer to read and confirm: nothing starts, stops or moves before Enter."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.worker import Worker

from engine.control import Change, Control, MoveInstance, Offer
from engine.core.errors import ControlError, StaleOffer
from tui.messages import ComparisonWanted
from tui.present.ab_wish import of_move
from tui.present.glyphs import Glyphs
from tui.present.ink import Line, Span
from tui.present.offer_text import change_title, offer_lines
from tui.present.text import wrapped
from tui.screens.dialog import Dialog
from tui.widgets.palette import Palette


class ConfirmScreen(Dialog[bool]):
    """True when the offer was applied. A stale offer is replaced by the new plan, with a note."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "apply", show=False),
        Binding("escape", "drop", show=False),
        Binding("a", "compare", show=False),
    ]

    def __init__(
        self, control: Control, change: Change, offer: Offer, palette: Palette, glyphs: Glyphs
    ) -> None:
        super().__init__(change_title(change), palette, glyphs)
        self.control = control
        self.change = change
        self.offer = offer
        self.note: tuple[str, str] | None = None
        """Words and their ink, above the plan."""
        self._applying: Worker[None] | None = None

    def body(self, width: int) -> Sequence[Line]:
        lines: list[Line] = []
        if self.note:
            words, ink = self.note
            lines = [(Span(part, ink),) for part in wrapped(words, width)]
            lines.append(())
        return [*lines, *offer_lines(self.change, self.offer, width, self.glyphs)]

    def hints(self) -> Sequence[tuple[str, str]]:
        if self.is_busy:
            return (("…", "applying"),)
        if self.offer.refusals:
            return (("esc", "close"), ("", "nothing can be applied while something is refused"))
        compare = (("a", "A/B: here or there"),) if isinstance(self.change, MoveInstance) else ()
        return (("enter", "apply"), *compare, ("esc", "drop it"))

    @property
    def is_busy(self) -> bool:
        """Whether the service is being asked right now."""
        return self._applying is not None

    def action_drop(self) -> None:
        if not self.is_busy:
            self.dismiss(result=False)

    def action_compare(self) -> None:
        """Not yet moved: measured first, where it is and where it would go."""
        if isinstance(self.change, MoveInstance) and not (self.is_busy or self.offer.refusals):
            wish = of_move(self.change.name, self.change.slot)
            self.dismiss(result=False)
            self.app.post_message(ComparisonWanted(wish))

    def action_apply(self) -> None:
        if self.is_busy:
            return
        if self.offer.refusals:
            self.app.bell()
            return
        # The app owns the worker: a fault in it is then shown like every other.
        self._applying = self.app.run_worker(self._apply(), group="apply", exit_on_error=False)
        self.draw()

    async def _apply(self) -> None:
        try:
            await self.control.apply(self.offer)
        except StaleOffer as stale:
            await self._offer_again(stale)
        except ControlError as error:
            self.note = (f"{error.what}: {error.why}. {error.do}", "error")
        else:
            self.dismiss(result=True)
            return
        finally:
            self._applying = None
        if self.is_attached:
            self.draw()

    async def _offer_again(self, stale: StaleOffer) -> None:
        try:
            self.offer = await self.control.offer(self.change)
            self.note = (
                f"Things changed meanwhile ({stale.why}). This is the new plan.",
                "warning",
            )
        except ControlError as error:
            self.note = (f"{error.what}: {error.why}. {error.do}", "error")
