"""The figures of an engine alone: how they are summed up, shown and written."""

from typing import Any

import msgspec
import pytest

from engine.bench.offline import (
    HEADER,
    Measured,
    OfflineLoad,
    OfflineReport,
    Place,
    headline,
    notes,
    offline_json,
    offline_report,
    offline_rows,
    read_measured,
)
from engine.core.errors import ControlError, UsageError

LOAD = OfflineLoad(batch_sizes=(1, 4), input_len=32, output_len=11, iterations=5)
ENGINE = {"dtype": "bfloat16", "weight_only": "int8", "isa": "AVX512", "path": "lean"}
PLACE = Place("a", "torch", "m", "numa:0", "0-3", "bind", "0")


def measured(**engine: Any) -> Measured:
    batches = [
        {
            "batch_size": size,
            "first_token_s": [0.100 * size] * 5,
            "next_token_s": [0.010 * size + 0.001 * (number % 2) for number in range(50)],
            "cpu_s": 0.55,
            "max_rss_bytes": 1 << 30,
        }
        for size in (1, 4)
    ]
    written = {"load_s": 3.25, "engine": {**ENGINE, **engine}, "batches": batches}
    return read_measured(msgspec.json.encode(written))


def report(place: Place = PLACE, **engine: Any) -> OfflineReport:
    return offline_report(measured(**engine), place, LOAD, started_at="2026-01-01T00:00:00+00:00")


def test_figures_of_the_first_and_the_next_tokens() -> None:
    one, four = report().batches
    assert one.first_token.mean == pytest.approx(0.1)
    assert one.next_token.mean == pytest.approx(0.0105)
    assert one.next_token.p90 == pytest.approx(0.011)
    assert one.iteration_s == pytest.approx(0.1 + 10 * 0.0105)
    assert one.output_tokens_per_s == pytest.approx(11 / 0.205)
    assert four.output_tokens_per_s == pytest.approx(44 / (0.4 + 10 * 0.0405))
    assert one.cpu_s_per_token == pytest.approx(0.01)


def test_a_percentile_of_too_few_samples_is_not_made_up() -> None:
    (shown, _) = offline_json([report()])["instances"][0]["batches"]
    assert shown["first_token_ms"] == {
        "count": 5, "mean": 100.0, "p50": 100.0, "p90": None, "p99": None,
    }  # fmt: skip
    assert shown["next_token_ms"]["count"] == 50
    assert shown["next_token_ms"]["p90"] == 11.0
    assert shown["next_token_ms"]["p99"] is None
    row = dict(zip(HEADER, offline_rows(report())[0], strict=True))
    assert row["first mean"] == "100.0"
    assert row["first p90"] == row["next p99"] == "–"
    assert "– next: p99 needs 500 samples, there were 50" in notes(report())


def test_the_object_can_be_repeated_from_its_manifest() -> None:
    made = offline_json([report()])
    assert made["schema"] == "slotdeck.offline/1"
    (one,) = made["instances"]
    assert one["memory"] == {"policy": "bind", "nodes": "0"}
    manifest = one["manifest"]
    assert manifest["load"] == {
        "batch_sizes": [1, 4], "input_len": 32, "output_len": 11, "iterations": 5, "warmups": 3,
    }  # fmt: skip
    assert manifest["engine"]["isa"] == "AVX512"
    assert "beam search is not measured" in manifest["rules"]["decoding"]
    assert msgspec.json.decode(msgspec.json.encode(made)) == made


def test_words_say_what_makes_figures_doubtful() -> None:
    assert headline(report()) == (
        "a: m on torch, bfloat16 with int8 weights, AVX512, PU 0-3, memory bind 0"
    )
    busy = Place("a", "torch", "m", "s", "0", "bind", "0", beside=("b",), degraded="no policy")
    text = " ".join(
        notes(report(busy, load_format="dummy", path="transformers", path_reason="its activation"))
    )
    for part in ("same PUs: b", "no policy", "weights are random", "not by the lean path: its"):
        assert part in text
    assert "same PUs" not in " ".join(notes(report()))


def test_the_command_line_of_the_worker() -> None:
    from pathlib import Path

    from engine.worker import options

    words = ["--model", "m", *LOAD.words(Path("/tmp/x.json"))]
    asked = options.parse(words, api_key=None).offline
    assert asked is not None
    assert (asked.out, asked.batch_sizes) == (Path("/tmp/x.json"), (1, 4))
    assert (asked.input_len, asked.output_len) == (32, 11)
    assert (asked.iterations, asked.warmups) == (5, 3)


@pytest.mark.parametrize(
    "wrong", [{"batch_sizes": ()}, {"batch_sizes": (1, 0)}, {"output_len": 0}, {"warmups": -1}]
)
def test_what_cannot_be_measured(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        OfflineLoad(**wrong)


def test_a_file_of_something_else() -> None:
    with pytest.raises(ControlError, match="cannot be read"):
        read_measured(b'{"load_s": 1}')
