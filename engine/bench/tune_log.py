"""What a search measures, on disk figure by figure: an interrupt or a kill loses one block."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import UsageError

SCHEMA = "slotdeck.tune-log/1"

Figures = Mapping[int, Mapping[str, float | str]]
"""By round and candidate; a text is why there is none."""


class TuneLog:
    """JSON lines: the question, then what was measured, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            self._add("\n")

    def ask(self, question: Mapping[str, object]) -> None:
        self.path.touch(mode=0o600)
        self._write({"schema": SCHEMA, "question": question})

    def begin(self, number: int) -> None:
        """Of this round nothing that was measured before counts."""
        self._write({"round": number})

    def measured(self, number: int, candidate: str, value: float | str) -> None:
        self._write({"round": number, "candidate": candidate, "value": value})

    def _write(self, line: Mapping[str, object]) -> None:
        self._add(json.dumps(line) + "\n")

    def _add(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)


@dataclass(frozen=True, slots=True)
class Kept:
    """Of a search that was broken off."""

    question: Mapping[str, object]
    figures: Figures


def read_log(path: Path) -> Kept:
    """Raises UsageError."""
    try:
        first, *lines = path.read_text().splitlines()
        told = json.loads(first)
        if told["schema"] != SCHEMA:
            raise ValueError(f"its schema is {told['schema']!r}")
        figures: dict[int, dict[str, float | str]] = {}
        for text in lines:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # Its writer was killed over it.
            if "candidate" not in line:
                figures[line["round"]] = {}
            else:
                figures.setdefault(line["round"], {})[line["candidate"]] = line["value"]
        return Kept(told["question"], figures)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            what=f"{path} cannot be gone on with",
            why=getattr(error, "strerror", None) or str(error) or "it is empty",
            do="Name the file that `slotdeck tune` told when it was broken off",
        ) from None
