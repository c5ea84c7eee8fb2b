"""What a shim is to do, as its launcher writes it (`pack_order`)."""

import os

CHUNK = 1 << 16


class Order:
    """What to start and how; ValueError where it is not whole."""

    def __init__(self, text: bytes) -> None:
        words = iter(text.split(b"\0"))
        self.folder, self.mark = os.fsdecode(next(words)), next(words)
        self.piece_bytes = int(next(words))
        self.pus = [int(pu) for pu in next(words).split(b",")]
        self.relief = [int(word) for word in next(words).split()]
        """Of an engine whose shim has died: pid, start time, its output's pipe, and where its
        words begin in the log. It is there already: nothing more follows."""
        if self.relief:
            if next(words) != b"end":
                raise ValueError("the order is cut")
            return
        self.policy = [int(word, 16) for word in next(words).split()]
        """The calls to set and to get it, the mode and the mask of nodes; or nothing."""
        self.core_files = next(words) == b"core"
        self.score, self.score_must = next(words), next(words) == b"must"
        """How soon the kernel is to end it when memory runs out."""
        self.groups = [next(words) for _ in range(int(next(words)))]
        """Files by which it enters its control groups."""
        self.argv = [next(words) for _ in range(int(next(words)))]
        *settings, end = words
        if end != b"end":
            raise ValueError("the order is cut")
        pairs = (one.partition(b"=") for one in settings)
        self.env = {name: value for name, _, value in pairs}


def read_order() -> Order | None:
    """Begins with its length; None where the launcher has gone."""
    text = b""
    while b"\n" not in text or len(text) < int(text[: text.index(b"\n")]) + text.index(b"\n") + 1:
        if not (data := os.read(0, CHUNK)):
            return None
        text += data
    return Order(text[text.index(b"\n") + 1 :])
