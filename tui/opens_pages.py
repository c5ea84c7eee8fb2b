"""Opens the screens beside the board."""

from textual.app import App

from tui.actions import why_no_comparison
from tui.desk import Desk
from tui.messages import ComparisonWanted, InstanceOpened
from tui.present.ab_wish import of_instance
from tui.screens.page import Page


class OpensPages(App[None]):
    """Each by the action of its name."""

    desk: Desk

    def on_instance_opened(self, message: InstanceOpened) -> None:
        self.desk.select(message.name)
        self.do_instance()

    def do_instance(self) -> None:
        """All of the selected instance."""
        from tui.screens.instance import InstanceScreen

        if name := self.desk.view().selected:
            self._open(InstanceScreen(self.desk, name))

    def do_instances(self) -> None:
        """The table of all."""
        from tui.screens.instances import InstancesScreen

        self._open(InstancesScreen(self.desk))

    def do_layouts(self) -> None:
        """Layout files."""
        from tui.screens.layouts import LayoutsScreen

        self._open(LayoutsScreen(self.desk, self.desk.opened()))

    def do_events(self) -> None:
        """What happened."""
        from tui.screens.events import EventsScreen

        self._open(EventsScreen(self.desk))

    def do_doctor(self) -> None:
        """What is wrong with the machine."""
        from tui.screens.doctor import DoctorScreen

        self._open(DoctorScreen(self.desk))

    def do_ab(self) -> None:
        """One card or two, or one instance or two halves."""
        if wish := of_instance(self.desk.view()):
            self.post_message(ComparisonWanted(wish))

    def on_comparison_wanted(self, message: ComparisonWanted) -> None:
        from tui.screens.ab import AbScreen

        if reason := why_no_comparison(self.desk.view()):
            self.notify(reason, title="A/B", severity="warning", markup=False)
            return
        self._open(AbScreen(self.desk, message.wish))

    def _open(self, page: Page) -> None:
        """Upon the board, or upon the table that one comes from; never a pile of them."""
        while isinstance(self.screen, Page) and not (
            self.screen.PAGE == "instances" and page.PAGE == "instance"
        ):
            self.pop_screen()
        self.push_screen(page)
