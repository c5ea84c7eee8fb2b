"""Check what makes engines slow or wrong on this machine, and say what to do about it.

Nothing is changed: commands are told for you to run. Exit code 1 where there is a problem;
advice and what is not known leave it at 0.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from engine.cli.text import folded, print_json
from engine.core.checks import SCHEMA, Check, counted, gravest_first, told
from engine.core.codec import to_builtins
from engine.doctor.host import Host
from engine.doctor.live import ask
from engine.doctor.registry import examine
from engine.host.archive import open_root
from engine.host.machine import read_machine
from engine.host.root import HostRoot

_MARKS = {"problem": "✗", "advice": "◌", "unknown": "?", "ok": "✓"}
_PLAIN = {"problem": "x", "advice": "!", "unknown": "?", "ok": "+"}
_LABEL = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="a recorded machine: a folder with its sys and proc, or an archive of it; what was "
        "not recorded is told as unknown",
    )
    parser.add_argument("--json", action="store_true", help=f"print {SCHEMA}")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Check, and print the gravest first."""
    with ExitStack() as opened:
        root = opened.enter_context(open_root(asked.root)) if asked.root else HostRoot()
        answers = ask(root) if root.live else None
        checks = examine(Host(root, read_machine(root), answers))
    if asked.json:
        print_json({"schema": SCHEMA, "checks": to_builtins(checks)})
    else:
        plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        columns = shutil.get_terminal_size().columns
        print(told_checks(checks, columns, _PLAIN if plain else _MARKS))
    return int(any(one.state == "problem" for one in checks))


def told_checks(checks: Sequence[Check], width: int, marks: Mapping[str, str] = _MARKS) -> str:
    """What needs something done says what was read, why it counts and what to do."""
    names = max((len(one.id) for one in checks), default=0)
    lines: list[str] = []
    state = ""
    for one in gravest_first(checks):
        short = one.state in ("ok", "unknown")
        if lines and not (short and state == one.state):
            lines.append("")
        state = one.state
        head = f"{marks[state]} {state:<{_LABEL}}{one.id:<{names}}  "
        words = f"{one.found}: {one.why}" if state == "unknown" and one.why else one.found
        lines += folded(f"{head}{words}", width, indent=" " * len(head))
        if state == "ok":
            continue
        shown = [("do", one.do), ("needs", told(one.needs)), ("undo", one.undo)]
        if state != "unknown":
            shown = [("read", _read(one)), ("why", one.why), *shown]
        for label, text in shown:
            if text:
                lines += folded(f"  {label:<{_LABEL}}{text}", width, indent=" " * (_LABEL + 2))
    return "\n".join([*lines, "", counted(checks)])


def _read(one: Check) -> str:
    return "; ".join(
        f"{each.path}: {'not told' if each.value is None else each.value}" for each in one.evidence
    )
