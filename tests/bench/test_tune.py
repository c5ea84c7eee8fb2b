"""The running part of a search, on fake engines of known speed."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.bench import Load, Target
from engine.bench.ab_block import Up
from engine.bench.tune import Tuning, Wanted, told, tune_json
from engine.bench.tune_log import TuneLog, read_log
from engine.core.cpuset import CpuSet
from engine.core.errors import LaunchError, UsageError
from engine.core.goodput import Limits
from engine.core.tuning.search import Search, winner
from engine.core.tuning.space import Candidate
from tests.bench.fakes import Fake

LOAD = Load(concurrency=2, input_len=2, output_len=4, duration_s=None, requests=4, seed=1)
CANDIDATES = [Candidate(1, cores, 0, None, "none") for cores in (3, 2, 1)]


class Ready:
    """Engines that are up already."""

    def __init__(self, targets: dict[str, Target]) -> None:
        self.targets = targets

    async def ready(self, arm: str, *, fresh: bool) -> Up:
        assert fresh, "the luck of a start belongs to what is measured"
        if arm not in self.targets:
            raise LaunchError(what="m did not start", why="out of memory", do="Give it more")
        return Up((self.targets[arm],), CpuSet())


class EndsAfter(Ready):
    """Ended from outside when the engines after these many are to start."""

    def __init__(self, starts: int, targets: dict[str, Target]) -> None:
        super().__init__(targets)
        self.starts, self.started = starts, 0

    async def ready(self, arm: str, *, fresh: bool) -> Up:
        if self.started == self.starts:
            raise asyncio.CancelledError
        self.started += 1
        return await super().ready(arm, fresh=fresh)


def tuning(targets: dict[str, Target], wanted: Wanted, clock: Callable[[], float]) -> Tuning:
    search = Search(len(CANDIDATES), final_rounds=3)
    return Tuning(CANDIDATES, wanted, Ready(targets), search, clock=clock)


async def test_the_faster_engine_wins_and_one_that_does_not_start_is_out(fake: Fake) -> None:
    quick, slow = fake("--itl-ms", "2"), fake("--itl-ms", "30")
    targets = {str(CANDIDATES[0]): slow, str(CANDIDATES[1]): quick}
    for goal in ("throughput", "latency"):
        ran = tuning(targets, Wanted(goal, LOAD), lambda: 0.0)
        await ran.run()
        best = winner(ran.search.standings())
        assert best is not None
        assert best.number == 1
        answer = tune_json(ran, {}, None)
        rows = answer["candidates"]
        assert isinstance(rows, list)
        found = {row["cores"]: row for row in rows}
        assert found[1]["why"] == "m did not start: out of memory"
        assert found[3]["plateau"] is False
        assert found[3]["against_best"] < 0.8
        better = found[2]["value"] > found[3]["value"]
        assert better == (answer["better"] == "higher")
        assert answer["ended"] == "all rounds are done"


async def test_limits_that_nobody_keeps_to_leave_no_winner(fake: Fake) -> None:
    targets = dict.fromkeys(map(str, CANDIDATES), fake("--ttft-ms", "40"))
    wanted = Wanted("throughput", replace(LOAD, limits=Limits(ttft_s=0.001)))
    ran = tuning(targets, wanted, lambda: 0.0)
    await ran.run()
    standings = ran.search.standings()
    assert winner(standings) is None
    assert {one.why for one in standings} == {"0 of 4 requests kept to the limits"}


async def test_no_round_begins_that_would_not_end_in_time(fake: Fake) -> None:
    targets = dict.fromkeys(map(str, CANDIDATES), fake())
    seconds = iter(range(10_000))
    ran = tuning(targets, Wanted("throughput", LOAD, max_time_s=9.0), lambda: float(next(seconds)))
    await ran.run()
    assert 1 <= ran.search.rounds <= 2
    assert ran.why_ended is not None
    assert "within the 9 s" in ran.why_ended
    assert winner(ran.search.standings()) is None


async def test_a_search_that_was_broken_off_goes_on(fake: Fake, tmp_path: Path) -> None:
    """Four of six in the first round, then somebody ends it; later the same search goes on."""
    many = [Candidate(1, cores, 0, None, "none") for cores in range(6, 0, -1)]
    targets = dict.fromkeys(map(str, many), fake())
    wanted, path = Wanted("throughput", LOAD), tmp_path / "log"
    log = TuneLog(path)
    log.ask({"seed": 1})
    ended = Tuning(many, wanted, EndsAfter(4, targets), Search(6, final_rounds=3), log=log)
    with pytest.raises(asyncio.CancelledError):
        await ended.run()
    assert ended.search.rounds == 0
    assert len(ended.unfinished) == 4
    answer = tune_json(ended, {}, None)
    assert answer["unfinished_round"] == {
        str(many[number]): round(value, 3)
        for number, value in ended.unfinished.items()
        if not isinstance(value, str)
    }
    with path.open("a") as file:
        file.write('{"round": 1, "candid')  # As a kill leaves it.

    kept, again = read_log(path), EndsAfter(999, targets)
    assert kept.question == {"seed": 1}
    search = Search(6, final_rounds=3)
    most = search.most_rounds()[1]
    goes_on = Tuning(many, wanted, again, search, log=TuneLog(path), kept=kept.figures)
    await goes_on.run()
    assert again.started == most - 4
    assert goes_on.why_ended == "all rounds are done"

    # All of it is known now; of a round of the last stage that is not whole, nothing is.
    whole = read_log(path).figures
    for figures, starts in ((whole, 0), ({**whole, 5: dict(list(whole[5].items())[1:])}, 4)):
        again = EndsAfter(999, targets)
        search = Search(6, final_rounds=3)
        await Tuning(many, wanted, again, search, kept=figures).run()
        assert again.started == starts
        told = [(one.number, one.rounds) for one in search.standings()]
        assert sorted(told) == sorted(
            (one.number, one.rounds) for one in goes_on.search.standings()
        )


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": "x"}', '{"schema": "slotdeck.tune-log/1"}']
)
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(UsageError, match="cannot be gone on with"):
        read_log(path)


def test_a_value_is_told_in_the_goals_unit() -> None:
    assert told(12.34, "throughput") == "12.3 tokens/s"
    assert told(1 / 0.25, "latency") == "250.0 ms a whole answer"


@pytest.mark.parametrize("requests", [2, 5])
async def test_a_load_is_shared_out_evenly(fake: Fake, requests: int) -> None:
    ran = tuning({}, Wanted("throughput", replace(LOAD, requests=requests)), lambda: 0.0)
    target = fake()
    load = ran._load(Up((target, target, target), CpuSet()))
    assert (load.concurrency, load.requests) == (1, math.ceil(requests / 3))
