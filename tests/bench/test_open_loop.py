"""An open loop: the schedule holds whatever the engine does, and waiting is not left out."""

import asyncio
import itertools
import statistics
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from engine.bench import Load, report_json, report_text, run
from engine.bench.alarm import Alarm
from engine.bench.health import why_late
from engine.bench.levels import joined
from engine.bench.open_loop import gaps
from engine.core.errors import UsageError
from engine.core.goodput import Limits
from tests.bench.fakes import Fake, log

EVERY_50_MS = Load(
    rate=20.0, arrival="constant", output_len=3, duration_s=None, requests=20, warmup_requests=2
)


async def test_a_slow_engine_does_not_move_the_schedule(fake: Fake) -> None:
    """A stream that waits for its answers would ask twice a second here; the schedule asks 20."""
    target = fake("--ttft-ms", "500")
    (row,) = (await run([target], EVERY_50_MS)).targets
    assert row.schedule is not None
    assert (row.requests, row.schedule.sent, row.errors, row.cut_off) == (20, 20, 0, 0)
    assert row.concurrency is None
    arrived = [one["received_at"] for one in (await log(target)) if one["body"]["max_tokens"] == 3]
    assert statistics.fmean(b - a for a, b in pairwise(arrived[-20:])) == pytest.approx(
        0.05, rel=0.1
    )
    assert row.schedule.most_in_flight >= 8
    assert row.schedule.held_back == 0
    assert row.schedule.gap_cv is not None


async def test_what_waits_for_room_is_told_with_its_wait(fake: Fake) -> None:
    target = fake("--ttft-ms", "200", "--itl-ms", "1")
    load = replace(EVERY_50_MS, max_in_flight=2, warmup_requests=0, limits=Limits(ttft_s=0.5))
    report = await run([target], load)
    (row,) = report.targets
    kept = row.schedule
    assert kept is not None
    assert kept.most_in_flight == 2
    assert kept.held_back >= 15
    assert kept.ttft.mean is not None
    assert row.ttft.mean is not None
    # Two at once of 0.2 s each are 10 a second where 20 are due: the last waits about a second.
    assert kept.ttft.mean > row.ttft.mean + 0.2
    assert kept.gap_cv is None, "a schedule that was held back has no regularity to judge"
    assert row.goodput is not None
    assert 0 < row.goodput.met < row.goodput.of == 20, "limits count from the schedule"
    assert f"{kept.held_back} of 20 requests had to wait because 2 were under way" in report_text(
        report, 100
    )


async def test_answers_that_come_after_the_window_count(fake: Fake) -> None:
    target = fake("--ttft-ms", "400", "--itl-ms", "1")
    load = Load(rate=10.0, arrival="constant", output_len=2, duration_s=1.0, warmup_requests=1)
    (row,) = (await run([target], load)).targets
    assert row.schedule is not None
    assert row.requests == row.schedule.sent >= 9
    assert row.window_s == pytest.approx(1.0, abs=0.3)
    tokens = (row.output_tokens_per_s or 0) * row.window_s
    assert tokens < 2 * row.requests + 8, "tokens count inside the window only"
    assert row.schedule.unfinished == 0


async def test_an_engine_that_is_gone_ends_the_schedule(fake: Fake) -> None:
    target = fake("--die-after-tokens", "20")
    load = Load(rate=100.0, output_len=10, duration_s=20.0, warmup_requests=0)
    (row,) = (await run([target], load)).targets
    assert row.gave_up_s is not None
    assert row.errors >= 30
    assert row.window_s < 15


async def test_rows_of_an_open_loop_and_of_several_levels(fake: Fake) -> None:
    target = fake()
    limits = Limits(ttft_s=10.0, itl_s=10.0)
    loads = [replace(EVERY_50_MS, rate=rate, requests=4, limits=limits) for rate in (20.0, 40.0)]
    report = joined([await run([target], load) for load in loads])
    told = report_json(report)
    assert isinstance(told["targets"], list)
    assert [(row["concurrency"], row["rate"]) for row in told["targets"]] == [
        (None, 20.0),
        (None, 40.0),
    ]
    row = told["targets"][0]
    assert row["goodput"]["share"] == 1.0
    assert row["goodput"]["limits"] == {
        "ttft_ms": 10_000.0,
        "itl_ms": 10_000.0,
        "tpot_ms": None,
        "e2e_ms": None,
    }
    assert row["schedule"]["arrival"] == "constant"
    assert list(row["schedule"]["ttft_ms"]) == ["mean", "p50", "p90", "p99"]
    assert isinstance(report.manifest["levels"], list)
    assert [one["load"]["rate"] for one in report.manifest["levels"]] == [20.0, 40.0]
    text = report_text(report, 120)
    for said in ("t1 20/s", "t1 40/s", "TTFT from schedule ms", "100.0%", "4 of 4 requests"):
        assert said in text


def test_arrivals_are_drawn_from_the_seed() -> None:
    load = Load(rate=50.0, seed=3)
    drawn = list(itertools.islice(gaps(load), 20_000))
    assert statistics.fmean(drawn) == pytest.approx(0.02, rel=0.05)
    assert statistics.stdev(drawn) / statistics.fmean(drawn) == pytest.approx(1.0, abs=0.05)
    assert list(itertools.islice(gaps(load), 50)) == drawn[:50]
    assert list(itertools.islice(gaps(replace(load, seed=4)), 50)) != drawn[:50]
    even = itertools.islice(gaps(replace(load, arrival="constant")), 5)
    assert list(even) == [0.02] * 5


async def test_an_alarm_never_rings_early() -> None:
    alarm = Alarm()
    late = []
    for _ in range(20):
        at = time.perf_counter() + 0.003
        await alarm.until(at)
        late.append(time.perf_counter() - at)
    await alarm.until(time.perf_counter() - 1)
    waiting = asyncio.create_task(alarm.until(time.perf_counter() + 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    alarm.close()
    assert min(late) >= 0


def test_late_sends_are_the_clients_fault() -> None:
    assert why_late([0.0, None, 0.01], 0.005) == ()
    (why,) = why_late([0.0, 0.034], 0.005)
    assert why == "it began 3.4% of its sends more than 5 ms late, more than 1%"


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": float("inf")}, {"arrival": "bursts"}, {"max_in_flight": 0}]
)
def test_schedules_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(Load(), **wrong)
