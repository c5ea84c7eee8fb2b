"""Turns tokens into text that may be sent: whole characters, and nothing of a stop string."""

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]

_UNFINISHED = "\ufffd"
_WINDOW = 16


class Detokenizer:
    """Text of the newest tokens, with bytes of an unfinished character held back."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._sent = 0
        """How many characters of the window's text went out already."""

    def add(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._decode(self._ids)
        # A character has at most four bytes, so at most three can be waiting for the rest.
        whole = len(text)
        while whole > max(self._sent, len(text) - 3) and text[whole - 1] == _UNFINISHED:
            whole -= 1
        piece = text[self._sent : whole]
        self._sent = max(self._sent, whole)
        held = len(text) - whole
        if len(self._ids) > (4 * _WINDOW if held else _WINDOW):
            # The last few stay: some tokenizers write a token otherwise at the start of a text.
            del self._ids[: -_WINDOW // 2]
            self._sent = max(0, len(self._decode(self._ids)) - held)
        return piece

    def rest(self) -> str:
        """What was held back, now that no token follows."""
        piece = self._decode(self._ids)[self._sent :] if self._ids else ""
        self._ids, self._sent = [], 0
        return piece


class StopStrings:
    """Passes text on until a stop string appears; holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            piece, self._held = self._held[: min(found)], ""
            return piece
        keep = max(self._possible_start(stop) for stop in self._stops)
        cut = len(self._held) - keep
        piece, self._held = self._held[:cut], self._held[cut:]
        return piece

    def rest(self) -> str:
        piece, self._held = self._held, ""
        return piece

    def _possible_start(self, stop: str) -> int:
        """How many characters at the end of the held text begin this stop string."""
        for size in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:size]):
                return size
        return 0
