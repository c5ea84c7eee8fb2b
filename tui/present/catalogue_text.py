"""The palette of models and engines for a new instance, as lines, and its first name."""

import re
from collections.abc import Collection

from engine.control import Catalogue, EngineOffered, ModelOffered
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, cut
from tui.present.text import clean, wrapped
from tui.present.units import memory


def fresh_name(model: str, taken: Collection[str]) -> str:
    """From the model's own name, short, and with a number where it is taken."""
    path = model.rpartition(":")[2].rstrip("/")
    words = path.split("/")
    hub = next((word for word in words if word.startswith("models--")), "")
    last = hub.rpartition("--")[2] if hub else words[-1]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", last).strip("-").lower()[:20].strip("-") or "new"
    number = 1
    while (name := stem if number == 1 else f"{stem}-{number}") in taken:
        number += 1
    return name


def why_not_both(engine: EngineOffered, model: ModelOffered) -> str:
    """Why this pair cannot be started; empty where it can."""
    if engine.why_not:
        return f"{engine.name}: {engine.why_not}"
    return f"{model.name}: {model.why_not}" if model.why_not else ""


def model_rows(catalogue: Catalogue, *, model: int, width: int, glyphs: Glyphs) -> list[Line]:
    """A model a row, with the memory that its weights take."""
    rows: list[Line] = []
    for at, each in enumerate(catalogue.models):
        here = at == model
        ink = "faint" if each.why_not else "name" if here else "text"
        size = f"  {memory(each.weights_bytes)}" if each.weights_bytes is not None else ""
        rows.append(
            (
                Span(f"{glyphs.pointer if here else ' '} ", "pointer"),
                Span(_tail(clean(each.name), width - 2 - len(size), glyphs), ink),
                Span(size, "muted"),
            )
        )
    return [_spelled(row, width, glyphs) for row in rows]


def catalogue_lines(
    catalogue: Catalogue,
    *,
    model: int,
    engine: int,
    weights: int,
    name: str,
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """The engine with its form of weights, and what stands against it."""
    lines: list[Line] = [(Span("Engine", "title"), Span("   left and right", "muted"))]
    row: list[Span] = []
    for at, offered in enumerate(catalogue.engines):
        ink = "faint" if offered.why_not else "name" if at == engine else "text"
        row += [
            Span(f"{glyphs.pointer if at == engine else ' '} ", "pointer"),
            Span(f"{offered.name}  ", ink),
        ]
    lines.append(tuple(row))
    chosen = catalogue.engines[engine]
    forms = chosen.weight_only or ("none",)
    lines += [
        (),
        (
            Span("Weights", "title"),
            Span(f"  {forms[weights % len(forms)]}", "name"),
            Span(f"   w: the next of {len(forms)}" if len(forms) > 1 else "", "muted"),
        ),
        (Span("Name", "title"), Span(f"     {name}", "name")),
    ]
    if why := why_not_both(chosen, catalogue.models[model]):
        lines.append(())
        lines += [(Span(part, "error"),) for part in wrapped(why, width)]
    return [_spelled(line, width, glyphs) for line in lines]


def _spelled(line: Line, width: int, glyphs: Glyphs) -> Line:
    return cut(
        tuple(Span(spelled(span.text, glyphs), span.ink) for span in line), width, glyphs.more
    )


def _tail(text: str, width: int, glyphs: Glyphs) -> str:
    """The end of a path says more than its beginning."""
    return text if len(text) <= width else glyphs.more + text[-max(1, width - 1) :]
