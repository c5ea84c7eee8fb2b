import asyncio
import json
import os
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.bench import Load, Progress, Target, report_json, report_text, run, run_blocking
from engine.core.errors import EngineUnreachable, UsageError
from tests.bench.fakes import Fake, log


def open_files() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


async def test_the_report_has_exactly_the_keys_of_the_contract(fake: Fake) -> None:
    report = await run([fake()], Load(output_len=5, duration_s=None, requests=3))
    told = report_json(report)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert list(told) == ["schema", "targets", "client", "manifest"]
    assert told["schema"] == "slotdeck.bench/1"
    assert isinstance(told["targets"], list)
    (row,) = told["targets"]
    assert list(row) == [
        "name",
        "url",
        "concurrency",
        "rate",
        "requests",
        "errors",
        "ttft_ms",
        "itl_ms",
        "tpot_ms",
        "e2e_ms",
        "output_tokens_per_s",
        "total_tokens_per_s",
        "schedule",
        "goodput",
    ]
    assert (row["schedule"], row["goodput"]) == (None, None), "a closed loop without limits"
    for latency in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"):
        assert list(row[latency]) == ["mean", "p50", "p90", "p99"]
        assert row[latency]["p50"] is not None
        assert (row[latency]["p90"], row[latency]["p99"]) == (None, None), "3 requests, 12 gaps"
    assert isinstance(told["client"], dict)
    assert list(told["client"]) == ["cpu_share", "runqueue_wait_share", "limited"]
    assert isinstance(told["manifest"], dict)
    assert told["manifest"]["load"]["requests"] == 3
    assert os.uname().nodename not in json.dumps(told)


async def test_figures_agree_with_the_servers_own_log(fake: Fake) -> None:
    target = fake("--ttft-ms", "30", "--itl-ms", "8")
    report = await run([target], Load(concurrency=2, output_len=15, duration_s=None, requests=10))
    (row,) = report.targets
    seen = [request for request in await log(target) if len(request["sent"]) == 15]
    ttft = statistics.median(request["sent"][0] - request["received_at"] for request in seen)
    itl = statistics.median(
        later - earlier for request in seen for earlier, later in pairwise(request["sent"])
    )
    assert row.requests == row.ttft.count == row.tpot.count == row.e2e.count == 10
    assert row.itl.count == 10 * 14
    assert row.ttft.p50 is not None
    assert row.itl.p50 is not None
    assert row.ttft.p50 == pytest.approx(ttft, abs=0.004)
    assert row.itl.p50 == pytest.approx(itl, abs=0.004)
    assert row.output_tokens == 15


async def test_sixteen_streams_lose_and_invent_nothing(fake: Fake) -> None:
    target = fake("--itl-ms", "2", "--glue", "2")
    load = Load(concurrency=16, output_len=7, duration_s=None, requests=64)
    report = await run([target], load)
    (row,) = report.targets
    seen = await log(target)
    assert (row.requests, row.errors, row.cut_off) == (64, 0, 0)
    assert row.itl.count == 64 * 6
    assert row.ttft.p90 is not None
    assert row.ttft.p99 is None
    assert row.itl.p90 is not None
    assert not any(request["aborted"] for request in seen)
    assert all(len(request["sent"]) == 7 for request in seen)
    # Warm-up, those in flight while the window opened, and the probes come on top.
    assert 64 + 16 <= len(seen) <= 64 + 2 * 16 + 4


async def test_all_prompts_differ_from_the_first_word_on(fake: Fake) -> None:
    target = fake()
    await run([target], Load(concurrency=4, output_len=2, duration_s=None, requests=60))
    prompts = [request["prompt"] for request in await log(target)]
    assert len(set(prompts)) == len(prompts) >= 60
    words = [prompt.split()[0] for prompt in prompts]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("per_word", ["0.5", "1.0", "1.37", "3.1"])
@pytest.mark.parametrize("input_len", [16, 300])
async def test_prompts_reach_the_length_that_was_asked(
    fake: Fake, per_word: str, input_len: int
) -> None:
    target = fake("--tokens-per-word", per_word)
    load = Load(input_len=input_len, output_len=2, duration_s=None, requests=2)
    (row,) = (await run([target], load)).targets
    assert row.prompt_tokens == pytest.approx(input_len, abs=max(2.0, 0.02 * input_len))


async def test_a_window_cuts_what_is_in_flight_and_counts_its_tokens(fake: Fake) -> None:
    target = fake("--ttft-ms", "10", "--itl-ms", "10")
    load = Load(concurrency=3, output_len=1000, duration_s=1.0, warmup_requests=0)
    (row,) = (await run([target], load)).targets
    assert (row.requests, row.cut_off) == (0, 3)
    assert row.ttft.mean is None
    in_window = sum(len(request["sent"]) for request in (await log(target))[-3:])
    assert row.output_tokens_per_s is not None
    # The server may send a few more before it learns of the end.
    assert in_window - 12 <= row.output_tokens_per_s * row.window_s <= in_window
    for _ in range(100):
        seen = await log(target)
        if sum(request["aborted"] for request in seen) == 3:
            break
        await asyncio.sleep(0.02)
    assert sum(request["aborted"] for request in seen) == 3


async def test_the_warm_up_is_dropped(fake: Fake) -> None:
    target = fake()
    load = Load(concurrency=1, output_len=2, duration_s=None, requests=5, warmup_requests=7)
    (row,) = (await run([target], load)).targets
    assert row.requests == 5
    sent = [request for request in await log(target) if request["body"]["max_tokens"] == 2]
    assert len(sent) - 7 - 5 <= 4, "besides the probes, nothing is sent for nothing"


async def test_several_targets_share_one_window(fake: Fake) -> None:
    fast, slow = fake("--itl-ms", "1"), fake("--itl-ms", "10")
    load = Load(concurrency=2, output_len=10, duration_s=1.0)
    report = await run([fast, slow], load)
    rates = [row.output_tokens_per_s for row in report.targets]
    assert [row.name for row in report.targets] == ["t1", "t2"]
    assert report.targets[0].window_s == report.targets[1].window_s == pytest.approx(1.0, abs=0.3)
    assert rates[0] is not None
    assert rates[1] is not None
    assert rates[0] > rates[1] > 0
    theirs = [{r["prompt"] for r in await log(target)} for target in (fast, slow)]
    assert theirs[1] <= theirs[0], "all targets get the same prompts"


async def test_more_than_one_token_an_event_is_counted_by_usage(fake: Fake) -> None:
    target = fake("--tokens-per-event", "3", "--itl-ms", "5")
    report = await run([target], Load(output_len=10, duration_s=None, requests=4))
    (row,) = report.targets
    assert (row.counted_by, row.tokens_per_piece, row.output_tokens) == ("usage", 3.0, 30.0)
    assert row.tpot.mean == pytest.approx((row.itl.mean or 0) * 9 / 29, rel=0.01)
    assert (row.output_tokens_per_s or 0) * row.window_s == pytest.approx(120, abs=31)


async def test_an_engine_without_usage_is_measured_and_said_so(fake: Fake) -> None:
    target = fake("--no-usage")
    report = await run([target], Load(output_len=6, duration_s=None, requests=4))
    (row,) = report.targets
    assert (row.counted_by, row.output_tokens, row.prompt_tokens) == ("pieces", 6.0, None)
    assert row.total_tokens_per_s is None
    text = report_text(report, 100)
    assert "counted by events with text" in text
    assert "does not report the length of its prompts" in text


async def test_answers_from_a_prefix_cache_are_not_hidden(fake: Fake) -> None:
    load = Load(output_len=2, duration_s=None, requests=3)
    report = await run([fake("--cached-share", "0.75"), fake()], load)
    cached, plain = report.targets
    assert cached.cached_share == pytest.approx(0.75, abs=0.02)
    assert plain.cached_share is None
    assert "t1: 75% of the prompt tokens came from a prefix cache" in report_text(report, 100)


async def test_a_target_that_dies_ends_with_what_it_has(fake: Fake) -> None:
    alive, dying = fake("--itl-ms", "2"), fake("--itl-ms", "2", "--die-after-tokens", "150")
    report = await run([alive, dying], Load(concurrency=2, output_len=10, duration_s=1.5))
    living, dead = report.targets
    assert living.errors == 0
    assert dead.requests > 0
    assert dead.errors >= 2
    assert dead.gave_up_s is not None
    assert dead.window_s < living.window_s
    assert dead.first_error is not None
    assert "t2: all streams gave up" in report_text(report, 100)


async def test_errors_are_counted_with_the_first_message(fake: Fake) -> None:
    alive, broken = fake(), fake("--drop-after-tokens", "12")
    load = Load(output_len=20, duration_s=None, requests=6)
    report = await run([alive, broken], load)
    row = report.targets[1]
    assert (report.targets[0].requests, row.requests) == (6, 0)
    assert row.errors == 3, "a stream gives up after three in a row"
    assert "closed in the middle" in (row.first_error or "")
    assert row.output_tokens_per_s is not None, "tokens of a broken stream were made all the same"
    assert "3 errors, the first: " in report_text(report, 100)


async def test_one_unreachable_target_does_not_spoil_the_others(fake: Fake) -> None:
    load = Load(output_len=3, duration_s=None, requests=2)
    report = await run([fake(), Target("gone", "http://127.0.0.1:1")], load)
    assert [row.requests for row in report.targets] == [2, 0]
    assert [row.errors for row in report.targets] == [0, 1]
    assert "connection refused" in (report.targets[1].first_error or "")


async def test_when_no_target_answers_it_raises(fake: Fake) -> None:
    gone = Target("gone", "http://127.0.0.1:1", model="m")
    with pytest.raises(EngineUnreachable, match="connection refused"):
        await run([gone], Load())
    with pytest.raises(EngineUnreachable, match="None of the 2 targets") as caught:
        await run([gone, fake("--status", "500")], Load())
    assert "HTTP 500" in caught.value.why
    with pytest.raises(UsageError, match="no target"):
        await run([], Load())


async def test_cancelling_an_endless_load_closes_every_socket(fake: Fake) -> None:
    target = fake("--itl-ms", "5")
    before = open_files()
    affinity = os.sched_getaffinity(0)
    measuring = asyncio.Event()

    def watch(progress: Progress) -> None:
        if progress.phase == "measuring" and progress.elapsed_s > 0.2:
            measuring.set()

    load = Load(concurrency=8, output_len=30, duration_s=float("inf"))
    work = asyncio.create_task(
        run([target], load, on_progress=watch, client_pus=frozenset({min(affinity)}))
    )
    await asyncio.wait_for(measuring.wait(), 60)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert open_files() == before
    assert os.sched_getaffinity(0) == affinity


async def test_progress_goes_through_the_phases(fake: Fake) -> None:
    told: list[Progress] = []
    load = Load(concurrency=2, output_len=10, duration_s=1.2)
    await run([fake("--itl-ms", "5")], load, on_progress=told.append)
    phases = list(dict.fromkeys(progress.phase for progress in told))
    assert phases == ["preparing", "warming up", "measuring"]
    last = told[-1].targets[0]
    assert last.finished > 0
    assert last.errors == 0
    assert last.tokens_per_s is not None
    assert last.tokens_per_s > 0


async def test_the_client_stays_where_it_was_put_and_says_so(fake: Fake) -> None:
    first = min(os.sched_getaffinity(0))
    load = Load(output_len=2, duration_s=None, requests=1)
    report = await run([fake()], load, client_pus=frozenset({first}))
    assert report.manifest["client_pus"] == {"asked": [first], "got": [first], "refused": None}
    refused = await run([fake()], load, client_pus=frozenset({100_000}))
    assert isinstance(refused.manifest["client_pus"], dict)
    assert refused.manifest["client_pus"]["refused"]


def test_a_secret_never_reaches_the_report(fake: Fake) -> None:
    target = fake()
    keyed = Target("k", target.url, api_key="sk-hidden")
    bad = Target("bad", "http://me:sk-hidden@127.0.0.1:1/v1")
    report = run_blocking([keyed, bad], Load(output_len=2, duration_s=None, requests=2))
    shown = json.dumps(report_json(report)) + report_text(report, 80) + repr(keyed)
    assert "sk-hidden" not in shown
    assert report.targets[1].url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"duration_s": None},
        {"duration_s": 0},
        {"requests": 0},
        {"warmup_requests": -1},
    ],
)
def test_a_load_that_cannot_be_made_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Load(**wrong)
