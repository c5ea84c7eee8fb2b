"""The footer: keys that work here, also for the mouse."""

from collections.abc import Mapping, Sequence

from textual import events

from tui.actions import ACTIONS, Action
from tui.present.footer import Key, footer_line
from tui.view import View
from tui.widgets.lines import Lines


class KeyBar(Lines):
    """One line of keys; a click is the key."""

    keys: tuple[Key, ...] = ()
    _stand: tuple[object, ...] = ()
    """All that the line rests on, beside the keys of the user's own choice."""
    _own_keys: Mapping[str, str] | None = None

    def present(
        self, view: View, *, actions: Sequence[Action] = ACTIONS, carrying: bool = False
    ) -> None:
        """Show the keys for this view."""
        stand = (
            self.size.width,
            carrying,
            view.mouse,
            tuple((each.id, each.why_not(view) is None) for each in actions),
        )
        if stand == self._stand and view.keys is self._own_keys:
            return
        self._stand, self._own_keys = stand, view.keys
        line, self.keys = footer_line(view, self.size.width, actions=actions, carrying=carrying)
        self.show((line,))

    async def on_click(self, event: events.Click) -> None:
        key = next((each for each in self.keys if each.x <= event.x < each.x + each.width), None)
        if key:
            await self.run_action(f"screen.do('{key.action}')")
