"""Colour schemes: what each hue is in the dark, in the light, in 16 colours and in none."""

from dataclasses import dataclass, replace

from textual.theme import Theme


@dataclass(frozen=True, slots=True)
class Scheme:
    """Hues as text styles; inks and glows are made of them in the palette."""

    name: str
    theme: Theme
    hues: dict[str, str]
    heat: tuple[str, ...]
    """From idle to full; all alike where only the height of a bar tells."""
    owners: tuple[str, ...]
    halves: bool = True
    """Whether two loads in one cell can be told apart by colour."""


DARK = Scheme(
    name="dark",
    theme=Theme(
        name="slotdeck",
        primary="#7aa2f7",
        secondary="#7dcfff",
        accent="#7dcfff",
        success="#9ece6a",
        warning="#e0af68",
        error="#f7768e",
        foreground="#c8d0e8",
        background="#14161f",
        surface="#191c27",
        panel="#232839",
        dark=True,
        variables={"border": "#3b4261", "footer-key-foreground": "#7dcfff"},
    ),
    hues={
        "bright": "#dfe5f7",
        "plain": "#c8d0e8",
        "soft": "#b4bddb",
        "dim": "#8f99bf",
        "muted": "#7f89b0",
        "quiet": "#7a83a8",
        "faint": "#535b7c",
        "line": "#3b4261",
        "track": "#2b3046",
        "blue": "#7aa2f7",
        "cyan": "#7dcfff",
        "green": "#9ece6a",
        "yellow": "#e0af68",
        "orange": "#ff9e64",
        "red": "#f7768e",
        "violet": "#a99be0",
        "plum": "#6b5470",
        "brand": "bold #14161f on #7aa2f7",
        "at:cursor": "on #2e3a5e",
        "at:good": "on #2f4a34",
        "at:bad": "on #552b38",
        "at:maybe": "on #4a4030",
        "at:row": "on #232839",
        "at:focus": "on #2b3554",
    },
    heat=(
        *("#39415c", "#33617a", "#2f8087", "#4a9f78"),
        *("#8aae5f", "#c6ab56", "#dc8d4f", "#e8685a"),
    ),
    owners=(
        *("#7aa2f7", "#9ece6a", "#e0af68", "#bb9af7"),
        *("#7dcfff", "#f7768e", "#73daca", "#ff9e64"),
    ),
)
LIGHT = Scheme(
    name="light",
    theme=Theme(
        name="slotdeck-light",
        primary="#2f5bd0",
        secondary="#0b7285",
        accent="#0b7285",
        success="#37741c",
        warning="#8f5a00",
        error="#c0234a",
        foreground="#2a3047",
        background="#f6f7fb",
        surface="#ffffff",
        panel="#e3e7f2",
        dark=False,
        variables={"border": "#b3bbd2", "footer-key-foreground": "#0b7285"},
    ),
    hues={
        "bright": "#11162b",
        "plain": "#2a3047",
        "soft": "#3a4260",
        "dim": "#515a7c",
        "muted": "#5c6588",
        "quiet": "#646d8f",
        "faint": "#98a0ba",
        "line": "#b3bbd2",
        "track": "#d3d8e6",
        "blue": "#2f5bd0",
        "cyan": "#0b7285",
        "green": "#37741c",
        "yellow": "#8f5a00",
        "orange": "#b34700",
        "red": "#c0234a",
        "violet": "#6741b8",
        "plum": "#9a7aa3",
        "brand": "bold #ffffff on #2f5bd0",
        "at:cursor": "on #cfdcff",
        "at:good": "on #cdebc0",
        "at:bad": "on #ffd3dc",
        "at:maybe": "on #fbe3b4",
        "at:row": "on #e3e7f2",
        "at:focus": "on #d3defc",
    },
    heat=(
        *("#b9c0d4", "#86b4c9", "#4f9da3", "#3c8a5c"),
        *("#6d8a20", "#a07c00", "#bf5f14", "#c0283a"),
    ),
    owners=(
        *("#2f5bd0", "#37741c", "#8f5a00", "#7b35b8"),
        *("#0b7285", "#c0234a", "#0b6e5f", "#b34700"),
    ),
)


def _terminals_own(name: str, *, hues: bool) -> Theme:
    """A theme in the terminal's own colours, so that it suits its background."""
    blue, cyan, green, yellow, red = (
        f"ansi_{each if hues else 'default'}"
        for each in ("blue", "cyan", "green", "yellow", "red")
    )
    plain = "ansi_default"
    marked = {"foreground": "ansi_black", "background": "ansi_cyan"}
    if not hues:
        marked = {"foreground": plain, "background": plain}
    return Theme(
        name=name,
        ansi=True,
        primary=cyan,
        secondary=blue,
        accent=cyan,
        success=green,
        warning=yellow,
        error=red,
        foreground=plain,
        background=plain,
        surface=plain,
        panel=plain,
        boost=plain,
        variables={
            "border": plain,
            "border-blurred": plain,
            "ansi-foreground": plain,
            "ansi-background": plain,
            "block-cursor-foreground": marked["foreground"],
            "block-cursor-background": marked["background"],
            "block-cursor-text-style": "reverse" if not hues else "none",
            "input-cursor-foreground": marked["foreground"],
            "input-cursor-background": marked["background"],
            "input-cursor-text-style": "reverse" if not hues else "none",
            "input-selection-foreground": marked["foreground"],
            "input-selection-background": marked["background"],
            "screen-selection-foreground": marked["foreground"],
            "screen-selection-background": marked["background"],
            "footer-key-foreground": cyan,
            "scrollbar": plain,
            "scrollbar-background": plain,
        },
    )


SIXTEEN = Scheme(
    name="16 colours",
    theme=_terminals_own("slotdeck-16", hues=True),
    hues={
        # No "bright" colours: a Linux console has them as bold only, and bright black as nothing.
        "bright": "default",
        "plain": "default",
        "soft": "default",
        "dim": "default",
        "muted": "default",
        "quiet": "default",
        "faint": "dim",
        "line": "default",
        "track": "dim",
        "blue": "cyan",
        "cyan": "cyan",
        "green": "green",
        "yellow": "yellow",
        "orange": "yellow",
        "red": "red",
        "violet": "magenta",
        "plum": "dim",
        "brand": "bold reverse",
        "at:cursor": "reverse",
        "at:good": "reverse",
        "at:bad": "reverse",
        "at:maybe": "reverse",
        # A row keeps no colour of its own: reversed, each would be a block.
        "at:row": "bold underline",
        "at:focus": "default reverse",
    },
    heat=("cyan", "cyan", "cyan", "green", "green", "yellow", "yellow", "red"),
    owners=("cyan", "green", "yellow", "magenta", "blue", "red", "bold cyan", "bold green"),
    halves=False,
)
PLAIN = Scheme(
    name="no colours",
    theme=_terminals_own("slotdeck-plain", hues=False),
    hues={
        **dict.fromkeys(SIXTEEN.hues, "default"),
        **{hue: style for hue, style in SIXTEEN.hues.items() if hue.startswith(("at:", "brand"))},
        "faint": "dim",
        "track": "dim",
        "plum": "dim",
        "red": "bold",
    },
    heat=("default",) * 8,
    owners=("bold",) * 8,
    halves=False,
)
# Of 256 colours the nearest to a dark blue-grey is a deep blue: these are colours of the palette.
DARK_256 = replace(
    DARK,
    name="dark, 256 colours",
    theme=replace(
        DARK.theme,
        name="slotdeck-256",
        background="#121212",
        surface="#1c1c1c",
        panel="#262626",
        variables={**DARK.theme.variables, "border": "#585858"},
    ),
    hues={
        **DARK.hues,
        "faint": "#6c6c6c",
        "line": "#585858",
        "track": "#3a3a3a",
        "at:cursor": "on #00005f",
        "at:good": "on #005f00",
        "at:bad": "on #5f0000",
        "at:maybe": "on #5f5f00",
        "at:row": "on #262626",
        "at:focus": "on #303030",
    },
)
LIGHT_256 = replace(
    LIGHT,
    name="light, 256 colours",
    theme=replace(
        LIGHT.theme,
        name="slotdeck-light-256",
        background="#eeeeee",
        surface="#ffffff",
        panel="#dadada",
        variables={**LIGHT.theme.variables, "border": "#a8a8a8"},
    ),
    hues={
        **LIGHT.hues,
        "faint": "#8a8a8a",
        "line": "#a8a8a8",
        "track": "#c6c6c6",
        "at:cursor": "on #d7d7ff",
        "at:good": "on #d7ffd7",
        "at:bad": "on #ffd7d7",
        "at:maybe": "on #ffffaf",
        "at:row": "on #dadada",
        "at:focus": "on #d0d0d0",
    },
)
SCHEMES = {each.name: each for each in (DARK, LIGHT, DARK_256, LIGHT_256, SIXTEEN, PLAIN)}


def scheme_for(theme: str, colours: str) -> Scheme:
    """`theme` is dark or light; where the terminal has few colours, its own are taken."""
    match colours:
        case "none":
            return PLAIN
        case "16":
            return SIXTEEN
        case "256":
            return LIGHT_256 if theme == "light" else DARK_256
        case _:
            return LIGHT if theme == "light" else DARK


def turned(scheme: Scheme) -> Scheme | None:
    """The light one of a dark scheme and the other way round; the terminal's own have none."""
    pairs = ((DARK, LIGHT), (DARK_256, LIGHT_256))
    both = {one.name: other for pair in pairs for one, other in (pair, pair[::-1])}
    return both.get(scheme.name)
