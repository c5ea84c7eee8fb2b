"""Layout files: what each would change of what runs, its text, and applying it as an offer."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.worker import Worker

from engine.control import ApplyLayout, Offer
from engine.core.errors import ControlError
from engine.layout_folders import FoundLayout, found_layouts
from tui.actions import BY_ID, Action, why_no_comparison
from tui.desk import Desk
from tui.messages import ComparisonWanted
from tui.present.ab_wish import of_layouts
from tui.present.ink import Line, Span
from tui.present.layout_list import file_lines, layout_head, layout_rows, shortened
from tui.present.offer_text import offer_lines
from tui.present.text import clean, wrapped
from tui.screens.page import Page, page_bindings
from tui.view import View
from tui.widgets.lines import Lines
from tui.widgets.pick_list import PickList
from tui.widgets.tabs import Tabs

TABS = ("changes", "file")
ASK_AFTER_S = 0.15
"""A selection that only passes by asks nothing."""


class LayoutsScreen(Page):
    """The user's own and the shipped ones."""

    PAGE = "layouts"
    AUTO_FOCUS = "PickList"
    BINDINGS: ClassVar[list[BindingType]] = [
        *page_bindings("layouts"),
        *(Binding(str(at), f"choose('{name}')", show=False) for at, name in enumerate(TABS, 1)),
        Binding("right", "tab(1)", show=False),
        Binding("left", "tab(-1)", show=False),
    ]

    def __init__(self, desk: Desk, opened: str = "") -> None:
        super().__init__(desk)
        self.layouts: tuple[FoundLayout, ...] = ()
        self.running = opened
        """The file that was applied last, as far as it is known."""
        self.seen: Offer | ControlError | None = None
        self._asking: Worker[None] | None = None
        self._wanted: Path | None = None
        """What was saved last, to be selected when the files are found again."""
        self.marked: tuple[Path, ...] = ()
        """A and B of a comparison: the newest two."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """A/B says what is missing for it."""
        return tuple(
            replace(each, why_not=self._why_no_ab) if each.id == "compare" else each
            for each in super().actions
        )

    def body(self) -> Iterable[Widget]:
        palette = self.desk.palette
        with Container(id="lower"):
            yield PickList(palette, id="files")
            with Container(id="aside"):
                yield Tabs(palette, TABS, id="tabs")
                with VerticalScroll(id="scroll", classes="frame") as scroll:
                    scroll.can_focus = True
                    yield Lines(palette, id="words")

    def on_mount(self) -> None:
        super().on_mount()
        self._ask(self._find)

    def on_unmount(self) -> None:
        if self._asking:
            self._asking.cancel()

    @property
    def chosen(self) -> FoundLayout | None:
        """The selected file."""
        at = self.query_one(PickList).selected
        return self.layouts[at] if at < len(self.layouts) else None

    def show(self) -> None:
        files, glyphs = self.query_one(PickList), self.desk.glyphs
        rows = layout_rows(
            self.layouts,
            files.size.width,
            glyphs,
            running=self.running,
            selected=files.selected,
            marked=self.marked,
        )
        files.present(rows)
        folder = self.desk.folder
        files.border_title = "layouts"
        files.border_subtitle = Content(f"yours: {shortened(folder)}" if folder else "")
        words = self.query_one("#words", Lines)
        words.show(self._lines(words.size.width))
        scroll = self.query_one("#scroll")
        scroll.border_title = Content(clean(self.chosen.path.name) if self.chosen else "")
        scroll.border_subtitle = "enter: the plan, to apply" if self.chosen else ""

    def _lines(self, width: int) -> list[Line]:
        chosen, glyphs = self.chosen, self.desk.glyphs
        if chosen is None:
            return [(Span("looking for layouts…", "muted"),)]
        head = layout_head(chosen, width, glyphs)
        if self.query_one(Tabs).chosen == "file":
            return [*head, *file_lines(chosen.text, width, glyphs)]
        match self.seen:
            case None:
                return [*head, (Span("comparing with what runs…", "muted"),)]
            case ControlError() as error:
                words = clean(f"{error.what}: {error.why}. {error.do}")
                return [*head, *((Span(part, "error"),) for part in wrapped(words, width))]
            case offer:
                return [*head, *offer_lines(self._change(chosen), offer, width, glyphs)]

    # Asking

    def _ask(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._asking:
            self._asking.cancel()
        self._asking = self.app.run_worker(work, group="layouts", exit_on_error=False)

    async def _find(self) -> None:
        await self._ask_what_runs()
        opened = [Path(self.running)] if self.running else []
        # In a thread: a home may lie on a disk far away.
        found = await asyncio.to_thread(found_layouts, self.desk.folder, opened)
        wanted = self._wanted or (self.chosen.path if self.chosen else None)
        self.layouts, self._wanted = found, None
        paths = [each.path for each in self.layouts]
        if wanted in paths:
            self.query_one(PickList).selected = paths.index(wanted)
        self.draw()
        await self._compare()

    async def _ask_what_runs(self) -> None:
        if self.desk.view().readonly:
            return  # the answer holds secrets, so the service keeps it from those who only look
        try:
            held = await self.desk.control().layout()
        except ControlError:
            return
        self.running = held.path or self.running

    async def _compare(self) -> None:
        """What the selected file would do to what runs; an offer changes nothing."""
        chosen = self.chosen
        if chosen is None:
            return
        try:
            self.seen = await self.desk.control().offer(self._change(chosen))
        except ControlError as error:
            self.seen = error
        self.draw()

    async def _compare_soon(self) -> None:
        await asyncio.sleep(ASK_AFTER_S)
        await self._compare()

    def _change(self, chosen: FoundLayout) -> ApplyLayout:
        return ApplyLayout(str(chosen.path), chosen.text, str(chosen.path.resolve().parent))

    def on_pick_list_moved(self, _: PickList.Moved) -> None:
        self.seen = None
        self.query_one("#scroll", VerticalScroll).scroll_home(animate=False)
        self.draw()
        self._ask(self._compare_soon)

    def on_pick_list_chosen(self, _: PickList.Chosen) -> None:
        chosen = self.chosen
        if chosen is None:
            return
        if self.desk.view().readonly:
            words = "this panel was opened with --readonly"
            self.app.notify(words, title="Apply", severity="warning", markup=False)
            return
        self.desk.propose(self._change(chosen))

    # Actions

    def on_tabs_chosen(self, _: Tabs.Chosen) -> None:
        self.draw()

    def action_tab(self, by: int) -> None:
        self.query_one(Tabs).step(by)

    def action_choose(self, name: str) -> None:
        self.query_one(Tabs).choose(name)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._ask(self._find)

    def do_save(self) -> None:
        """What runs into the selected file, or under a name like that of a shipped one."""
        if BY_ID["save"].why_not(self.desk.view()) or self.chosen is None:
            self.desk.act("save")  # which tells the reason
        else:
            self.desk.save(str(self.chosen.path), self._saved)

    def _saved(self, path: Path | None, /) -> None:
        if path is not None:
            self._wanted = path
            self._ask(self._find)

    def do_mark_layout(self) -> None:
        """As A or B, or not any more."""
        if (chosen := self.chosen) is None:
            return
        if chosen.path in self.marked:
            self.marked = tuple(each for each in self.marked if each != chosen.path)
        else:
            self.marked = (*self.marked, chosen.path)[-2:]
        self.draw()

    def _arms(self) -> tuple[Path, ...]:
        """The two that are marked, or the one that is and the one that is selected."""
        chosen = self.chosen
        more = (chosen.path,) if chosen and chosen.path not in self.marked else ()
        return (*self.marked, *more)[:2]

    def _why_no_ab(self, view: View) -> str | None:
        reason = why_no_comparison(view)
        if reason is None and (not self.marked or len(self._arms()) < 2):
            return "mark one layout with space, then select or mark the other one"
        return reason

    def do_compare(self) -> None:
        if reason := self._why_no_ab(self.desk.view()):
            self.app.notify(reason, title="A/B", severity="warning", markup=False)
            return
        first, second = self._arms()
        self.app.post_message(ComparisonWanted(of_layouts(first, second)))

    def do_copy(self) -> None:
        if self.chosen and self.query_one(Tabs).chosen == "file":
            self.desk.copy(self.chosen.text, clean(self.chosen.path.name))
        else:
            self.copy_lines(self.query_one("#words", Lines).lines, "what is shown")
