"""The map cell by cell: what a newer moment changes is drawn anew, and nothing else."""

from collections.abc import Iterable, Iterator, Sequence

from tui.present.changes import different_runs, runs
from tui.present.ink import Line, Span, cells_of, merged
from tui.present.map_cells import map_row
from tui.present.map_live import Live, live_cells
from tui.present.map_parts import Part, Plan, Scale
from tui.present.map_scene import Scene

Run = tuple[int, int, int]
"""Row, first cell, and how many."""
_TOLD = frozenset({Part.TOP, Part.GPU, Part.STRIP})
"""Parts with a NUMA node's memory or a GPU in them."""


class Picture:
    """Rows are drawn when they are first asked for, and kept."""

    def __init__(self, plan: Plan, scene: Scene) -> None:
        self._plan = plan
        self._scene = scene
        self._rows: dict[int, list[Span]] = {}
        """Cells: spans of one character."""
        self._live: dict[int, list[tuple[int, Live]]] = {}
        """PU -> where it is shown."""
        self._marks = self._marks_of(scene)

    def cells(self, y: int) -> list[Span]:
        """A row's cells as they are now."""
        row = self._rows.get(y)
        if row is None:
            row = self._rows[y] = cells_of(map_row(self._plan, self._scene, y))
            self._find_live(y)
        return row

    def line(self, y: int) -> Line:
        """The same with neighbours of one ink joined."""
        return merged(self.cells(y), blanks=True)

    def take(self, scene: Scene) -> list[Run]:
        """Show a newer scene; what of the rows drawn so far has to be written again."""
        before, self._scene = self._scene, scene
        marks, self._marks = self._marks, self._marks_of(scene)
        if not scene.has_setting_of(before):
            self._live.clear()
            found = [run for y in self._rows for run in self._redrawn(y)]
            for y in self._rows:
                self._find_live(y)
            return found
        found = []
        if (scene.nodes, scene.gpus) != (before.nodes, before.gpus):
            told = [y for y in self._rows if self._tells(y)]
            found += [run for y in told for run in self._redrawn(y)]
        found += self._loads(self._changed(marks))
        return found

    def _loads(self, pus: Iterable[int]) -> Iterator[Run]:
        """Draw what shows these PUs' load."""
        places: dict[int, dict[int, Live]] = {}
        for pu in pus:
            for y, live in self._live.get(pu, ()):
                places.setdefault(y, {})[live.x] = live
        for y, found in places.items():
            row = self._rows[y]
            other: list[int] = []
            for x, live in found.items():
                spans = live.draw(self._scene)
                if len(spans) > 1:
                    spans = cells_of(spans)
                for at, cell in enumerate(spans, x):
                    if row[at] != cell:
                        row[at] = cell
                        other.append(at)
            yield from ((y, *run) for run in runs(sorted(other)))

    def _redrawn(self, y: int) -> Iterator[Run]:
        old = self._rows[y]
        new = self._rows[y] = cells_of(map_row(self._plan, self._scene, y))
        yield from ((y, *run) for run in different_runs(old, new))

    def _tells(self, y: int) -> bool:
        """Whether memory or a GPU's figures stand in this row."""
        return y < self._plan.height and any(p.part in _TOLD for p in self._plan.rows[y])

    def _find_live(self, y: int) -> None:
        for live in live_cells(self._plan, self._scene, y):
            for pu in live.pus:
                self._live.setdefault(pu, []).append((y, live))

    def _marks_of(self, scene: Scene) -> Sequence[float | None]:
        """A number for each PU that changes whenever what is drawn of it may."""
        shares = list(scene.busy.values())
        if self._plan.scale in (Scale.LARGE, Scale.ROWS):
            return shares
        try:
            return [None if share is None else int(share * 8) for share in shares]
        except (ValueError, OverflowError):  # no number after all
            return shares

    def _changed(self, marks: Sequence[float | None]) -> Iterable[int]:
        if len(marks) != len(self._marks):
            return list(self._live)
        pus = zip(self._scene.busy, marks, self._marks, strict=True)
        return [pu for pu, before, now in pus if before != now]
