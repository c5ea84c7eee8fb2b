"""Steps of a long work on standard error: a line each, which a terminal sees grow."""

import sys


class Steps:
    """`engine.engines.progress.Progress` for a terminal, a pipe or a log."""

    def __init__(self, width: int) -> None:
        self._live = sys.stderr.isatty()
        self._width = width
        self._step = ""
        self._open = False

    def begin(self, step: str) -> None:
        self.cut()
        self._step = step
        self._open = True
        self._write(f"{step} … ")

    def now(self, detail: str) -> None:
        if self._live and self._open:
            line = f"{self._step} … {detail}"[: self._width - 1]
            self._write(f"\r\x1b[K{line}")

    def end(self, detail: str) -> None:
        start = f"\r\x1b[K{self._step} … " if self._live else ""
        self._write(f"{start}{detail}\n")
        self._open = False

    def cut(self) -> None:
        """End the line of a step that did not end well."""
        if self._open:
            self._write("\n")
            self._open = False

    def _write(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)
