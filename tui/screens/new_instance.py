"""The palette for a new instance: its model and engine; its place is chosen on the map after."""

from collections.abc import Collection, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from engine.control import Catalogue, HeldWish
from engine.core.layout import Instance
from tui.present.catalogue_text import catalogue_lines, fresh_name, why_not_both
from tui.present.glyphs import Glyphs
from tui.present.ink import Line
from tui.screens.dialog import Dialog
from tui.widgets.lines import Lines
from tui.widgets.palette import Palette


class NewInstanceScreen(Dialog[HeldWish]):
    """The wish without its slot; None when nothing was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "model(-1)", show=False),
        Binding("down,j", "model(1)", show=False),
        Binding("left,h", "engine(-1)", show=False),
        Binding("right", "engine(1)", show=False),
        Binding("w", "weights", show=False),
        Binding("enter", "choose", show=False),
        Binding("escape,n", "drop", show=False),
    ]

    def __init__(
        self, catalogue: Catalogue, taken: Collection[str], palette: Palette, glyphs: Glyphs
    ) -> None:
        super().__init__("New instance", palette, glyphs)
        self.catalogue = catalogue
        self._taken = taken
        fine = [at for at, each in enumerate(catalogue.engines) if not each.why_not]
        self.engine = fine[0] if fine else 0
        here = [at for at, each in enumerate(catalogue.models) if not each.why_not]
        self.model = here[0] if here else 0
        self.weights = 0

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
        return (("enter", "choose its place on the map"), ("esc", "close"))

    @property
    def _fresh(self) -> str:
        return fresh_name(self.catalogue.models[self.model].name, self._taken)

    @property
    def _why_not(self) -> str:
        return why_not_both(self.catalogue.engines[self.engine], self.catalogue.models[self.model])

    def action_model(self, by: int) -> None:
        self.model = max(0, min(len(self.catalogue.models) - 1, self.model + by))
        self.draw()

    def action_engine(self, by: int) -> None:
        self.engine = (self.engine + by) % len(self.catalogue.engines)
        self.weights = 0
        self.draw()

    def action_weights(self) -> None:
        self.weights += 1
        self.draw()

    def action_drop(self) -> None:
        self.dismiss(None)

    def action_choose(self) -> None:
        if self._why_not:
            self.app.bell()
            return
        engine = self.catalogue.engines[self.engine]
        forms = engine.weight_only or ("none",)
        wish = Instance(
            name=self._fresh,
            engine=engine.name,
            model=self.catalogue.models[self.model].name,
            weight_only=forms[self.weights % len(forms)],
        )
        self.dismiss(HeldWish(wish, self.catalogue.base))

    def on_click(self, event: events.Click) -> None:
        """A click on a model chooses it; on the chosen one, it is taken to the map."""
        lines = self.query_one("#body", Lines)
        at = event.screen_y - lines.region.y - 1
        if not lines.region.contains(event.screen_x, event.screen_y):
            return
        if 0 <= at < len(self.catalogue.models):
            if at == self.model:
                self.action_choose()
            self.model = at
            self.draw()
