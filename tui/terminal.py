"""What this terminal can do, from its variables, and what the user wants of that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Depth = Literal["truecolor", "256", "16", "none"]
_MANY = ("256color", "kitty", "alacritty", "foot", "wezterm", "ghostty", "contour", "rio")
_NONE = ("vt100", "vt102", "vt220", "vt320", "ansi-m", "linux-m", "xterm-mono")
MOST_COPIED_BYTES = 74_000
"""Terminals take about 100,000 bytes in base64, and drop what is longer without a word."""
DUMB = ("dumb", "unknown", "emacs")


@dataclass(frozen=True, slots=True)
class TerminalKind:
    """Colours, and whether a program may set the clipboard."""

    colours: Depth
    no_clipboard: str = ""
    """Why a text cannot be copied from here."""
    clipboard_note: str = ""
    """What copying needs here."""

    @property
    def for_textual(self) -> dict[str, str]:
        """Variables that Textual reads when it is imported."""
        system = {"truecolor": "truecolor", "256": "256", "16": "standard", "none": "standard"}
        # Empty is unset to those who follow no-color.org, but any value at all is set to Textual.
        plain = {"NO_COLOR": "1"} if self.colours == "none" else {}
        return {"TEXTUAL_COLOR_SYSTEM": system[self.colours], **plain}

    def why_not_copied(self, text: str) -> str:
        """Why this text cannot go to the clipboard; empty where it can."""
        if not text:
            return "there is nothing to copy"
        if len(text.encode()) > MOST_COPIED_BYTES:
            return "it is more than terminals take at once (74 kB); show less of it"
        return self.no_clipboard


def terminal_kind(environment: Mapping[str, str], *, asked: str = "auto") -> TerminalKind:
    """`asked`: the number of colours that the user wants, or auto."""
    term = environment.get("TERM", "")
    no_clipboard = note = ""
    if environment.get("TMUX"):
        note = "tmux passes it on with `set -g set-clipboard on`"
    elif term.startswith("screen") and environment.get("STY"):
        no_clipboard = "GNU screen lets no program set the clipboard"
    elif term.startswith("linux"):
        no_clipboard = "the Linux console has no clipboard"
    return TerminalKind(_colours(environment, term, asked), no_clipboard, note)


def _colours(environment: Mapping[str, str], term: str, asked: str) -> Depth:
    match asked:
        case "truecolor" | "256" | "16" | "none":
            return asked
        case _:
            pass
    if environment.get("NO_COLOR"):
        return "none"
    if environment.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return "truecolor"
    if term.endswith("-direct"):
        return "truecolor"
    if any(word in term for word in _MANY):
        return "256"
    return "none" if term in _NONE else "16"
