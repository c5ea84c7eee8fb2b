"""Runs on disk: a comparison with all its blocks, and saved runs read again as blocks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from engine.bench.ab_block import LATENCIES, total
from engine.bench.ab_texts import Texts
from engine.bench.report import SCHEMA as BENCH
from engine.core.codec import convert, to_builtins
from engine.core.compare import SCHEMA as AB
from engine.core.compare import outcome_json
from engine.core.comparing.values import Block, Outcome, Pair
from engine.core.errors import UsageError

LARGEST_FILE = 256 << 20


@dataclass(frozen=True, slots=True)
class SavedRun:
    """One arm, as a file has it."""

    name: str
    blocks: tuple[Block, ...]
    manifests: tuple[object, ...]


def comparison_json(outcome: Outcome, texts: Texts | None) -> dict[str, object]:
    """`slotdeck.ab/1`, with what both arms wrote."""
    said = None if texts is None else to_builtins(texts)
    return {**outcome_json(outcome), "texts": said}


def with_blocks(
    answer: Mapping[str, object], aa: Sequence[Pair], pairs: Sequence[Pair]
) -> dict[str, object]:
    """The same for a file: every block of both arms as it was measured."""
    return {
        **answer,
        "blocks": {
            "aa": [to_builtins([pair.a, pair.b]) for pair in aa],
            "pairs": [to_builtins([pair.a, pair.b]) for pair in pairs],
        },
    }


def write(path: str, answer: Mapping[str, object]) -> None:
    """Whole or not at all."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.part")
    try:
        beside.write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(
            what=f"{path} was not written",
            why=error.strerror or str(error),
            do="Name a file in a folder that can be written",
        ) from None


def read_run(path: str, arm: str) -> SavedRun:
    """A file's blocks of one arm. Raises UsageError.

    Several objects in one file are as many blocks: `slotdeck bench … --json >> FILE`, repeated.
    """
    blocks: list[Block] = []
    manifests: list[object] = []
    name = Path(path).stem
    for number, value in enumerate(_objects(path)):
        schema = value.get("schema") if isinstance(value, dict) else None
        try:
            if schema == BENCH:
                blocks.append(_bench_block(value, arm, number))
            elif schema == AB:
                blocks += _ab_blocks(value, arm)
                name = value["arms"][arm]
            else:
                raise _wrong(path, f"its schema is {schema!r}, not {BENCH} or {AB}")
        except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
            why = f"it does not look like a {schema} ({type(error).__name__}: {error})"
            raise _wrong(path, why) from None
        manifests.append(value.get("manifest"))
    if not blocks:
        raise _wrong(path, f"it has no block of arm {arm}")
    return SavedRun(name, tuple(blocks), tuple(manifests))


def _objects(path: str) -> list[Any]:
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST_FILE).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            what=f"{path} cannot be read",
            why=reason or str(error),
            do="Name a file with a saved run",
        ) from None
    found: list[Any] = []
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(path, f"it is not JSON ({error})") from None
        found += value if isinstance(value, list) else [value]
        text = text[end:].lstrip()
    return found


def _bench_block(value: dict[str, Any], arm: str, number: int) -> Block:
    """All targets of one measurement together."""
    targets = value["targets"]
    figures: dict[str, float | None] = {}
    for name in (f"{one}_ms" for one in LATENCIES):
        weighted = [
            (one[name]["p50"], one["requests"])
            for one in targets
            if one[name]["p50"] is not None and one["requests"]
        ]
        medians, weights = [one for one, _ in weighted], [one for _, one in weighted]
        figures[name] = fmean(medians, weights) if medians else None
        if len(targets) == 1:
            figures |= {f"{name}_{part}": targets[0][name][part] for part in ("p90", "p99")}
    for name in ("output_tokens_per_s", "total_tokens_per_s"):
        figures[name] = total([one[name] for one in targets])
    errors = sum(int(one["errors"]) for one in targets)
    limited = value["client"]["limited"] is True
    return Block(
        arm=arm,
        started_s=float(number),
        metrics=figures,
        requests=sum(int(one["requests"]) for one in targets),
        errors=errors,
        client_limited="its run says so" if limited else None,
    )


def _ab_blocks(value: dict[str, Any], arm: str) -> list[Block]:
    """Of its pairs, those of this arm; a comparison without blocks has none to give."""
    place = ("a", "b").index(arm)
    return [convert(pair[place], Block) for pair in value["blocks"]["pairs"]]


def _wrong(path: str, why: str) -> UsageError:
    return UsageError(
        what=f"{path} is no saved run",
        why=why,
        do="Name a file of `slotdeck bench --json` or of `slotdeck ab --output FILE`",
    )
