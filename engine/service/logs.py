"""Reading the bounded logs that the shims write: pieces named by their first byte's offset."""

import contextlib
from pathlib import Path

from engine.control import LogLines

_TRIES = 5
_LAST_WORDS_BYTES = 64 << 10


def read_log(folder: Path, *, offset: int, limit_bytes: int) -> LogLines:
    """Up to `limit_bytes` from `offset` on; -1 reads the end, from the start of a line.

    An offset that is no longer kept continues at the oldest byte that is.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):  # a piece went away while we looked
            return _read(folder, offset=offset, limit_bytes=limit_bytes)
    return LogLines("", max(offset, 0))


def _read(folder: Path, *, offset: int, limit_bytes: int) -> LogLines:
    try:
        pieces = sorted(
            (int(path.name[4:]), path) for path in folder.iterdir() if path.name[:4] == "log-"
        )
    except FileNotFoundError:
        return LogLines("", 0)
    if not pieces:
        return LogLines("", 0)
    end = pieces[-1][0] + pieces[-1][1].stat().st_size
    tail = offset < 0
    if tail:
        offset = max(pieces[0][0], end - limit_bytes)
    offset = min(max(offset, pieces[0][0]), end)
    start = offset
    data = b""
    for position, (first, path) in enumerate(pieces):
        after = pieces[position + 1][0] if position + 1 < len(pieces) else end
        if after <= offset or len(data) >= limit_bytes:
            continue
        with path.open("rb") as file:
            file.seek(offset - first)
            data += file.read(min(after - offset, limit_bytes - len(data)))
        offset = start + len(data)
    if tail and start > pieces[0][0] and b"\n" in data:
        data = data[data.index(b"\n") + 1 :]
    cut = _cut_character(data)
    return LogLines(data[: len(data) - cut].decode("utf-8", "replace"), offset - cut)


def _cut_character(data: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character whose rest comes with the next piece."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if needs > back else 0
        if byte < 0x80:
            return 0
    return 0


def said_since(folder: Path, begin: int) -> str:
    """The end of what was printed from an offset on."""
    end = read_log(folder, offset=-1, limit_bytes=1).next_offset
    offset = max(begin, end - _LAST_WORDS_BYTES)
    return read_log(folder, offset=offset, limit_bytes=_LAST_WORDS_BYTES).text


def last_line(text: str) -> str:
    """The last line with words in it, for the reason of a crash; at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
