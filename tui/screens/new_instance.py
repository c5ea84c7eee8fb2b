"""The palette for a new instance: its model and engine; then it is carried onto the map."""

from collections.abc import Collection, Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Offset

from engine.control import Catalogue, HeldWish
from engine.core.layout import Instance
from tui.present.catalogue_text import catalogue_lines, fresh_name, model_rows, why_not_both
from tui.present.glyphs import Glyphs
from tui.present.ink import Line
from tui.screens.dialog import Dialog
from tui.screens.hand import Hand
from tui.widgets.lines import Lines
from tui.widgets.palette import Palette
from tui.widgets.pick_list import PickList


class NewInstanceScreen(Dialog[HeldWish]):
    """The wish without its slot; None when nothing was chosen, or the mouse has pulled it out."""

    AUTO_FOCUS = "PickList"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "engine(-1)", show=False),
        Binding("right", "engine(1)", show=False),
        Binding("w", "weights", show=False),
        Binding("escape,n", "drop", show=False),
    ]

    def __init__(
        self,
        catalogue: Catalogue,
        taken: Collection[str],
        hand: Hand,
        palette: Palette,
        glyphs: Glyphs,
    ) -> None:
        super().__init__("New instance: model and engine", palette, glyphs)
        self.catalogue = catalogue
        self._taken = taken
        self._hand = hand
        self._grip: Offset | None = None
        """Where the button went down on a model."""
        self._is_out = False
        """The mouse has pulled a model out; what it does now is the hand's."""
        fine = [at for at, each in enumerate(catalogue.engines) if not each.why_not]
        self.engine = fine[0] if fine else 0
        here = [at for at, each in enumerate(catalogue.models) if not each.why_not]
        self._first = here[0] if here else 0
        self.weights = 0

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Content(self.heading)
            models = PickList(self.palette, id="models")
            models.selected = self._first
            models.border_title = "models"
            yield models
            with VerticalScroll(id="scroll", can_focus=False):
                yield Lines(self.palette, id="body")
            yield Lines(self.palette, id="hints")

    @property
    def model(self) -> int:
        """The selected one."""
        return self.query_one(PickList).selected

    def draw(self) -> None:
        models = self.query_one(PickList)
        models.present(
            model_rows(self.catalogue, model=self.model, width=self.text_width, glyphs=self.glyphs)
        )
        super().draw()

    def body(self, width: int) -> Sequence[Line]:
        return catalogue_lines(
            self.catalogue,
            model=self.model,
            engine=self.engine,
            weights=self.weights,
            name=self._fresh,
            width=width,
            glyphs=self.glyphs,
        )

    def hints(self) -> Sequence[tuple[str, str]]:
        if self._why_not:
            return (("esc", "close"),)
        return (("enter", "choose its place on the map"), ("drag", "it there"), ("esc", "close"))

    @property
    def _fresh(self) -> str:
        return fresh_name(self.catalogue.models[self.model].name, self._taken)

    @property
    def _why_not(self) -> str:
        return why_not_both(self.catalogue.engines[self.engine], self.catalogue.models[self.model])

    @property
    def _draft(self) -> HeldWish:
        engine = self.catalogue.engines[self.engine]
        forms = engine.weight_only or ("none",)
        wish = Instance(
            name=self._fresh,
            engine=engine.name,
            model=self.catalogue.models[self.model].name,
            weight_only=forms[self.weights % len(forms)],
        )
        return HeldWish(wish, self.catalogue.base)

    def on_pick_list_moved(self, _: PickList.Moved) -> None:
        self.draw()

    def on_pick_list_chosen(self, _: PickList.Chosen) -> None:
        if self._why_not:
            self.app.bell()
        else:
            self.dismiss(self._draft)

    def action_engine(self, by: int) -> None:
        self.engine = (self.engine + by) % len(self.catalogue.engines)
        self.weights = 0
        self.draw()

    def action_weights(self) -> None:
        self.weights += 1
        self.draw()

    def action_drop(self) -> None:
        self.dismiss(None)

    # The mouse

    def _forward_event(self, event: events.Event) -> None:
        """Before any widget: a press, its moves and its release may come in one read."""
        if not (isinstance(event, events.MouseEvent) and self._pulls(event)):
            super()._forward_event(event)

    def _pulls(self, event: events.MouseEvent) -> bool:
        if self._is_out:
            self._hand.follow(event)
            return True
        models = self.query_one(PickList)
        match event:
            case events.MouseDown():
                row = models.row_at(event.screen_offset) if event.button == 1 else None
                self._grip = None if row is None else event.screen_offset
                if row is not None:
                    models.select(row)
            case events.MouseMove() | events.MouseUp() if self._grip is not None:
                if event.screen_offset == self._grip:
                    return False
                self._grip = None
                if self._why_not:
                    self.app.bell()  # the reason stands below the models
                    return False
                self._is_out = True
                draft = self._draft
                self.dismiss(None)  # it would lie upon the map
                self._hand.pull_out(draft, event)
                self._hand.follow(event)
                return True
            case _:
                pass
        return False
