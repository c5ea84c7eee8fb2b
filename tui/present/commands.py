"""The command palette's rows: all that can be done, with why some of it cannot be done now."""

from collections.abc import Iterator, Sequence

from tui.actions import ACTIONS, Action
from tui.present.keys import keys_of, shown
from tui.view import View


def commands(view: View, here: Sequence[Action]) -> Iterator[tuple[str, str, str]]:
    """Title, sentence and action; what belongs to the screen in sight comes first."""
    for action in {each.id: each for each in (*here, *ACTIONS)}.values():
        reason = action.why_not(view)
        does = f"{action.does} (not now: {reason})" if reason else action.does
        key = shown(keys_of(action.id, action.key, view.keys)[0])
        yield f"{action.label} ({key})", does, action.id
