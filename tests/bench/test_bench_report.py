from array import array
from dataclasses import replace
from itertools import pairwise

import pytest

from engine.bench.health import why_limited
from engine.bench.prepare import base_url, next_words
from engine.bench.prompts import WORDS, Prompts
from engine.bench.report import report_json
from engine.bench.report_text import report_text
from engine.bench.tally import Flight, Tally
from engine.bench.values import ClientHealth, Report, TargetReport
from engine.core.quantiles import summarize
from engine.drivers.openai_api import Finished

HEALTHY = ClientHealth(cpu_share=0.12, runqueue_wait_share=0.004)


def target(name: str, requests: int) -> TargetReport:
    return TargetReport(
        name=name,
        url="http://127.0.0.1:8001",
        concurrency=4,
        requests=requests,
        errors=0,
        ttft=summarize([0.05] * requests),
        itl=summarize([0.01] * requests * 9),
        tpot=summarize([0.01] * requests),
        e2e=summarize([0.14] * requests),
        output_tokens_per_s=2711.4,
        total_tokens_per_s=9000.0,
        window_s=10.0,
        prompt_tokens=64.0,
        output_tokens=10.0,
    )


def report(*targets: TargetReport, client: ClientHealth = HEALTHY) -> Report:
    return Report(targets, client, {})


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_fits_and_keeps_units_apart(width: int) -> None:
    text = report_text(report(target("a", 60), target("numa-1", 600)), width)
    table = text.partition("\n\na: ")[0]
    assert all(len(line) <= width for line in table.splitlines())
    for title in ("TTFT ms", "ITL ms", "TPOT ms", "tokens/s", "requests"):
        assert title in text
    assert "2,711" in text
    assert "a: – TTFT, TPOT, end to end: p99 needs 500 requests, there were 60" in text
    assert text.splitlines()[-1] == (
        "The client was not the limit: 12% of a core, run-queue wait 0.4%. "
        "Measured on 660 requests in 10.0 s."
    )


def test_a_reason_that_several_targets_share_is_said_once() -> None:
    text = report_text(report(target("a", 60), target("b", 60)), 100)
    assert text.count("p99 needs 500 requests") == 1
    assert "a, b: –" in text


def test_nothing_measured_is_dashes_and_nulls() -> None:
    nothing = replace(target("a", 0), output_tokens_per_s=None, total_tokens_per_s=None)
    told = report_json(report(nothing))
    assert isinstance(told["targets"], list)
    assert told["targets"][0]["ttft_ms"] == dict.fromkeys(("mean", "p50", "p90", "p99"))
    assert told["targets"][0]["output_tokens_per_s"] is None
    assert "a: – TTFT, TPOT, end to end: no requests" in report_text(report(nothing), 80)


def test_a_starved_client_is_said_and_not_hidden() -> None:
    limits = why_limited(0.91, 0.054)
    client = ClientHealth(cpu_share=0.91, runqueue_wait_share=0.054, limits=limits)
    assert report_json(report(target("a", 9), client=client))["client"] == {
        "cpu_share": 0.91,
        "runqueue_wait_share": 0.054,
        "limited": True,
    }
    last = report_text(report(target("a", 9), client=client), 80).splitlines()[-1]
    assert last.startswith("The client was a limit: it used 91% of a core, more than 70% and")
    assert why_limited(0.69, 0.019) == ()
    assert why_limited(0.1, None) == ()


def finished(sent_at: float, *times: float, completion_tokens: int | None = None) -> Finished:
    return Finished(
        sent_at=sent_at,
        first_at=times[0],
        last_at=times[-1],
        piece_times=array("d", times),
        tokens=len(times),
        prompt_tokens=10,
        completion_tokens=completion_tokens,
        finish_reason="length",
    )


def test_only_what_lies_in_the_window_counts() -> None:
    tally = Tally()
    tally.add(finished(0.0, 1.0, 2.0), Flight(measured=False))  # The warm-up.
    tally.opened_at = 10.0
    # Begun before: two tokens, no latency.
    tally.add(finished(8.0, 9.0, 9.9, 10.5, 11.0), Flight(measured=False))
    # Three tokens to a piece.
    tally.add(finished(11.0, 12.0, 13.0, completion_tokens=6), Flight(measured=True))
    tally.closed_at = 20.0
    tally.cut(
        Flight(array("d", [19.0, 20.0, 20.1]), measured=True)
    )  # Two, at the mean weight of 10 / 8.
    assert (tally.finished, tally.ended, tally.errors) == (1, 3, 0)
    assert tally.output_tokens_per_s() == pytest.approx((2 + 6 + 2 * 12 / 8) / 10)
    assert tally.total_tokens_per_s(14.0) == pytest.approx((2 + 6 + 2 * 12 / 8 + 10 + 14) / 10)
    assert tally.total_tokens_per_s(None) is None
    assert tally.ttft().mean == 1.0
    assert tally.tpot().mean == pytest.approx(1.0 / 5)
    assert tally.e2e().mean == 2.0


def test_endless_loads_keep_the_newest_latencies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.bench.tally.GAPS_KEPT", 10)
    tally = Tally(opened_at=0.0)
    for number in range(20):
        times = (number + step / 10 for step in range(1, 6))
        tally.add(finished(number, *times), Flight(measured=True))
    assert (tally.finished, tally.dropped) == (20, 18)
    assert tally.ttft().count == 2


def test_prompts_depend_on_seed_and_number_only() -> None:
    one, other = Prompts(0), Prompts(0)
    assert one.text(5, 40) == other.text(5, 40)
    one.text(9, 5000)
    assert one.text(5, 40) == other.text(5, 40)
    assert one.text(5, 40) != Prompts(1).text(5, 40)
    assert len(set(WORDS)) == len(WORDS)
    many = [one.text(number, 12) for number in range(3000)]
    assert len(set(many)) == 3000
    assert all(len(text.split()) == 12 for text in many)
    assert all(a.split()[0] != b.split()[0] for a, b in pairwise(many))
    assert len(one.text(7, 1).split()) == 1


def test_the_number_of_words_follows_what_the_engine_counts() -> None:
    assert next_words([(32, 64)], 64) is None
    assert next_words([(32, 48)], 96) == 64
    # 5 tokens come with every prompt, and 2 with every word.
    assert next_words([(10, 25), (40, 85)], 65) == 30
    assert next_words([(30, 65), (40, 85)], 66) is None, "it was tried already"


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_address_may_end_as_clients_like_it(url: str) -> None:
    assert base_url(url) == "http://h:1"
