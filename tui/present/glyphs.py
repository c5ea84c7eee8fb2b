"""The characters of the screen: one set for UTF-8 terminals, one for plain ASCII."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Everything on screen that is not a letter or a digit."""

    levels: str
    """How busy a PU is, from idle to full."""
    area: str
    """Parts of a cell from the lowest to the whole, for figures over time."""
    corners: str
    """Top left, top right, bottom left, bottom right."""
    across: str
    down: str
    full: str
    rest: str
    half: str | None
    """Upper half block: two SMT siblings in one cell, or None."""
    free: str
    barred: str
    several: str
    taken: str
    """Held by a stranger."""
    unknown: str
    gauge: str
    """Used and free cells of a memory bar."""
    brackets: str
    """Join GPUs below one bridge: top, middle, bottom, alone."""
    ends: str
    """First and last core of the selected instance: its handles."""
    marks: dict[str, str]
    """A mark for each state of an instance."""
    pointer: str
    marked: str
    crumb: str
    descending: str
    ascending: str
    dot: str
    more: str
    arrow: str
    edge: str


UNICODE = Glyphs(
    levels="▁▂▃▄▅▆▇█",
    area="▁▂▃▄▅▆▇█",
    corners="╭╮╰╯",
    across="─",
    down="│",
    full="━",
    rest="─",
    half="▀",
    free="·",
    barred="×",
    several="+",
    taken="▒",
    unknown="–",
    gauge="▅▁",
    brackets="┌│└ ",
    ends="◂▸",
    marks={
        "starting": "◐",
        "ready": "●",
        "stopping": "◑",
        "stopped": "○",
        "backoff": "◌",
        "failed": "✗",
    },
    pointer="▌",
    marked="✓",
    crumb="›",
    descending="▾",
    ascending="▴",
    dot="·",
    more="…",
    arrow="→",
    edge="▏",
)

ASCII = Glyphs(
    levels="01234567",
    area=".:|#",
    corners="++++",
    across="-",
    down="|",
    full="#",
    rest="-",
    half=None,
    free=".",
    barred="x",
    several="&",
    taken="%",
    unknown="-",
    gauge="=.",
    brackets="/|\\ ",
    ends="<>",
    marks={
        "starting": "~",
        "ready": "*",
        "stopping": "v",
        "stopped": "o",
        "backoff": "!",
        "failed": "X",
    },
    pointer=">",
    marked="+",
    crumb=">",
    descending="v",
    ascending="^",
    dot="-",
    more="~",
    arrow="->",
    edge="|",
)

TO_ASCII = str.maketrans(
    {"–": "-", "—": "-", "·": "-", "…": "~", "→": ">", "×": "x", "“": '"', "”": '"', "’": "'"}
)


def spelled(text: str, glyphs: Glyphs) -> str:
    """The text in the characters of this set."""
    if glyphs is not ASCII:
        return text
    return text.translate(TO_ASCII).encode("ascii", "replace").decode("ascii")
