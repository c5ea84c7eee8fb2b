"""Puts load on several targets at once, over one common window, and reports."""

import asyncio
import importlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from engine.bench.closed_loop import ClosedLoop
from engine.bench.health import HealthWatch, Pinned, why_late
from engine.bench.manifest import manifest
from engine.bench.open_loop import LATE_S, OpenLoop
from engine.bench.prepare import Prepared, prepare, shown_url
from engine.bench.prompts import Prompts, PromptSource
from engine.bench.sending import Sending
from engine.bench.values import (
    ClientHealth,
    Load,
    Progress,
    Report,
    Target,
    TargetProgress,
    TargetReport,
)
from engine.core.errors import EngineUnreachable, UsageError
from engine.core.quantiles import summarize

PROGRESS_S = 0.5
RATE_OVER = 4
"""Progress intervals that a running rate looks back."""
LAST_ANSWERS_S = 60.0
"""How long an open loop's answers are waited for once nothing more is sent."""

OnProgress = Callable[[Progress], None]


async def run(
    targets: Sequence[Target],
    load: Load,
    *,
    on_progress: OnProgress | None = None,
    client_pus: frozenset[int] | None = None,
    prompts: PromptSource | None = None,
) -> Report:
    """Raises EngineUnreachable when no target answers; one that dies later is in the report.

    The calling thread is kept on `client_pus` meanwhile. Cancelling closes all sockets. Without
    `prompts` they are made up, of the load's length.
    """
    if not targets:
        raise UsageError(
            what="There is nothing to benchmark", why="no target was named", do="Name one."
        )
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with Pinned(client_pus) as pinned:
        made_up = Prompts(load.seed)
        source: PromptSource = prompts or made_up
        with _ticking(_Ticker("preparing", targets, {}), on_progress):
            answers = await _prepare_all(targets, load, made_up, scale=prompts is None)
        watch = HealthWatch()
        kind = ClosedLoop if load.rate is None else OpenLoop
        loops: dict[int, Sending] = {
            index: kind(answer, load, source, time.perf_counter)
            for index, answer in enumerate(answers)
            if isinstance(answer, Prepared)
        }
        try:
            health = await _drive(targets, loops, load, watch, on_progress)
        finally:
            watch.stop()
        reports = tuple(
            _target_report(target, load, answers[index], loops.get(index))
            for index, target in enumerate(targets)
        )
        late = why_late((one.schedule.late_share for one in reports if one.schedule), LATE_S)
        health = replace(health, limits=(*health.limits, *late))
        facts = manifest(
            started_at=started_at,
            load=load,
            targets=reports,
            health=health,
            pinned=pinned,
            client_pus=client_pus,
            prompts=source.facts,
        )
    return Report(reports, health, facts)


def run_blocking(
    targets: Sequence[Target],
    load: Load,
    *,
    on_progress: OnProgress | None = None,
    client_pus: frozenset[int] | None = None,
    prompts: PromptSource | None = None,
) -> Report:
    """`run` on a loop of its own: uvloop's where it is installed, which halves the CPU a token."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(
            run(targets, load, on_progress=on_progress, client_pus=client_pus, prompts=prompts)
        )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """None is asyncio's own."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return None
    return factory


async def _prepare_all(
    targets: Sequence[Target], load: Load, prompts: Prompts, *, scale: bool
) -> list[Prepared | EngineUnreachable]:
    async def one(target: Target) -> Prepared | EngineUnreachable:
        try:
            return await prepare(target, load, prompts, scale=scale)
        except EngineUnreachable as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(target)) for target in targets]
    answers = [task.result() for task in tasks]
    errors = [answer for answer in answers if isinstance(answer, EngineUnreachable)]
    if len(errors) == len(answers):
        if len(errors) == 1:
            raise errors[0]
        raise EngineUnreachable(
            what=f"None of the {len(errors)} targets can be measured",
            why="; ".join(f"{error.what}: {error.why}" for error in errors),
            do=errors[0].do,
        )
    return answers


async def _drive(
    targets: Sequence[Target],
    loops: dict[int, Sending],
    load: Load,
    watch: HealthWatch,
    on_progress: OnProgress | None,
) -> ClientHealth:
    tasks = [asyncio.create_task(loop.run()) for loop in loops.values()]
    try:
        with _ticking(_Ticker("warming up", targets, loops), on_progress):
            for loop in loops.values():
                await loop.warm.wait()
        opened_at = time.perf_counter()
        for loop in loops.values():
            loop.open_window(opened_at)
        watch.start()
        # No loop takes an infinite time limit as such.
        limit_s = None if load.duration_s == math.inf else load.duration_s
        with _ticking(_Ticker("measuring", targets, loops), on_progress):
            await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_EXCEPTION)
        closed_at = time.perf_counter()
        for loop in loops.values():
            loop.close_window(closed_at)
        health = watch.finish()
        if load.rate is not None:
            with _ticking(_Ticker("waiting for the last answers", targets, loops), on_progress):
                await asyncio.wait(tasks, timeout=LAST_ANSWERS_S)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
    return health


def _target_report(
    target: Target,
    load: Load,
    answer: Prepared | EngineUnreachable,
    loop: Sending | None,
) -> TargetReport:
    concurrency = load.concurrency if load.rate is None else None
    if isinstance(answer, EngineUnreachable) or loop is None:
        nothing = summarize(())
        return TargetReport(
            name=target.name,
            url=shown_url(target.url),
            concurrency=concurrency,
            rate=load.rate,
            requests=0,
            errors=1,
            ttft=nothing,
            itl=nothing,
            tpot=nothing,
            e2e=nothing,
            output_tokens_per_s=None,
            total_tokens_per_s=None,
            first_error=str(answer),
            model=target.model,
        )
    tally = loop.tally
    gave_up_s = None
    if loop.gave_up_at is not None and tally.opened_at is not None:
        gave_up_s = max(0.0, loop.gave_up_at - tally.opened_at)
    prompt_tokens = tally.prompt_tokens or answer.prompt_tokens
    schedule = loop.schedule() if isinstance(loop, OpenLoop) else None
    return TargetReport(
        name=target.name,
        url=shown_url(target.url),
        concurrency=concurrency,
        rate=load.rate,
        requests=tally.finished,
        errors=tally.errors,
        ttft=tally.ttft(),
        itl=tally.itl(),
        tpot=tally.tpot(),
        e2e=tally.e2e(),
        output_tokens_per_s=tally.output_tokens_per_s(),
        total_tokens_per_s=tally.total_tokens_per_s(prompt_tokens),
        first_error=tally.first_error,
        model=answer.model,
        window_s=tally.window_s,
        cut_off=tally.cut_off,
        dropped=tally.dropped,
        gave_up_s=gave_up_s,
        counted_by=tally.counted_by,
        tokens_per_piece=tally.tokens_per_piece,
        prompt_tokens=prompt_tokens,
        prompt_words=answer.words,
        cached_share=tally.cached_share,
        output_tokens=tally.output_tokens,
        stagger_s=answer.stagger_s,
        models_answer=answer.models_answer,
        schedule=schedule,
        goodput=tally.goodput(0 if schedule is None else schedule.unfinished),
    )


class _Ticker:
    """The live figures of one phase."""

    def __init__(self, phase: str, targets: Sequence[Target], loops: dict[int, Sending]) -> None:
        self._phase = phase
        self._targets = targets
        self._loops = loops
        self._began_at = time.perf_counter()
        self._seen: deque[tuple[float, dict[int, int]]] = deque(maxlen=RATE_OVER + 1)

    def progress(self) -> Progress:
        now = time.perf_counter()
        counts = {index: loop.tally.pieces_seen for index, loop in self._loops.items()}
        self._seen.append((now, counts))
        before, counts_before = self._seen[0]
        rows = []
        for index, target in enumerate(self._targets):
            loop = self._loops.get(index)
            rate = None
            if loop is not None and now > before:
                rate = (counts[index] - counts_before[index]) / (now - before)
            rows.append(
                TargetProgress(
                    name=target.name,
                    tokens_per_s=rate,
                    finished=loop.tally.finished if loop else 0,
                    errors=loop.tally.errors if loop else 0,
                )
            )
        return Progress(self._phase, now - self._began_at, tuple(rows))


@contextmanager
def _ticking(ticker: _Ticker, on_progress: OnProgress | None) -> Iterator[None]:
    """Twice a second, and once at the beginning and the end of the phase."""
    if on_progress is None:
        yield
        return
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def tick() -> None:
        nonlocal timer
        on_progress(ticker.progress())
        timer = loop.call_later(PROGRESS_S, tick)

    tick()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
    on_progress(ticker.progress())
