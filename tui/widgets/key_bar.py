"""The footer: keys that work here, also for the mouse."""

from collections.abc import Sequence

from textual import events

from tui.actions import ACTIONS, Action
from tui.present.footer import Key, footer_line
from tui.view import View
from tui.widgets.lines import Lines


class KeyBar(Lines):
    """One line of keys; a click is the key."""

    keys: tuple[Key, ...] = ()

    def present(
        self, view: View, *, actions: Sequence[Action] = ACTIONS, carrying: bool = False
    ) -> None:
        """Show the keys for this view."""
        line, self.keys = footer_line(view, self.size.width, actions=actions, carrying=carrying)
        self.show((line,))

    async def on_click(self, event: events.Click) -> None:
        key = next((each for each in self.keys if each.x <= event.x < each.x + each.width), None)
        if key:
            await self.run_action(f"screen.do('{key.action}')")
