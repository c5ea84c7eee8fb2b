"""What can be done on each screen beside the board: actions of its own, and shared ones."""

from dataclasses import dataclass

from tui.actions import ACTIONS, BY_ID, Action, always

FILTER = Action("filter", "slash", "Filter", "Show lines with these words; !word: without", always)
COPY = Action("copy", "y", "Copy", "Copy what is shown to your clipboard (OSC 52)", always)
BACK = Action("back", "escape", "Back", "Drop the filter or the marks, then close this", always)
AB_START = Action("ab_start", "enter", "Start", "Start the comparison as it is shown", always)
RUN = ("start", "repair", "restart", "stop", "forget")
EVERYWHERE = ("mouse", "help", "quit")


@dataclass(frozen=True, slots=True)
class PageActions:
    """Own actions come first: on this screen their keys mean them."""

    first: tuple[Action, ...]
    shared: tuple[str, ...]
    last: tuple[Action, ...] = ()
    """Own ones that give way first where there is little room."""

    @property
    def own(self) -> tuple[Action, ...]:
        """Those of this screen alone."""
        return (*self.first, *self.last)

    @property
    def all(self) -> tuple[Action, ...]:
        """In the order of the footer."""
        shown = [each for each in ACTIONS if each.id in self.shared]
        return (BACK, *self.first, *shown, *self.last)


PAGES = {
    "instances": PageActions(
        (
            Action("mark_all", "asterisk", "All", "Mark all that are shown, or none", always),
            FILTER,
            Action("sort_right", "greater_than_sign", "Sort", "Sort by the next column", always),
        ),
        ("mark", *RUN, "try", "instance", *EVERYWHERE),
        (
            Action("sort_left", "less_than_sign", "Sort", "Sort by the column before", always),
            Action("reverse", "v", "Turn", "Sort the other way round", always),
            COPY,
        ),
    ),
    "instance": PageActions(
        (
            Action("filter", "slash", "Search", "Go to lines of the log with these words", always),
            COPY,
            Action("again", "a", "Check", "Look again: asked against got", always),
        ),
        (*RUN, "try", *EVERYWHERE),
        (
            Action("next", "n", "Next", "The next line that was searched for", always),
            Action("before", "N", "Before", "The line before that was searched for", always),
        ),
    ),
    "layouts": PageActions(
        (
            Action("mark_layout", "space", "Mark", "Mark it as A or B of a comparison", always),
            Action("compare", "a", "A/B", "Compare two layouts on this machine", always),
            COPY,
        ),
        ("save", "instances", *EVERYWHERE),
    ),
    "ab": PageActions(
        (
            Action(
                "ab_keep", "w", "Keep winner", "Keep the arm that won, and stop the other", always
            ),
            Action("ab_back", "r", "Roll back", "Put back exactly what ran before", always),
            Action("ab_streams", "c", "Streams", "How many requests at a time", always),
            Action(
                "ab_pairs",
                "p",
                "Pairs",
                "At most so many pairs; more see smaller differences",
                always,
            ),
            Action("ab_time", "t", "Time", "How long it may measure", always),
        ),
        EVERYWHERE,
        (COPY,),
    ),
    "events": PageActions(
        (
            FILTER,
            Action("severity", "f", "Severity", "All, or warnings and errors, or errors", always),
            COPY,
        ),
        ("instances", *EVERYWHERE),
    ),
    "doctor": PageActions(
        (
            FILTER,
            Action("severity", "f", "Severity", "Problems alone, with advice, or all", always),
            Action("again", "a", "Check", "Have everything checked again", always),
            COPY,
        ),
        ("instances", *EVERYWHERE),
    ),
}


def all_actions() -> dict[str, Action]:
    """Every action that a key can be given to, by its id."""
    own = {each.id: each for page in PAGES.values() for each in page.own}
    return {**BY_ID, **own}


def together() -> tuple[tuple[str, ...], ...]:
    """Ids that are at hand on one screen, so that no two of them may have one key."""
    board = tuple(BY_ID)
    return (board, *((*(own.id for own in page.own), *page.shared) for page in PAGES.values()))
