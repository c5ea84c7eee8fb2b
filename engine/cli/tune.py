"""Search instances, cores and batches of a layout's instance for the best figure on this machine.

Measures in rounds, drops the slower half after each stage, and tells which of the last few cannot
be told apart. Stops what runs and starts it again at the end.
"""

import argparse
import asyncio
import hashlib
import json
import shlex
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from engine.bench.ab_arms import ServiceArms
from engine.bench.ab_plan import as_layout, plan_each
from engine.bench.runner import loop_factory
from engine.bench.tune import ALL_DONE, GOALS, Tuning, Wanted, figure, tune_json
from engine.bench.tune_log import Kept, TuneLog, read_log
from engine.bench.values import Load
from engine.cli.ab import REQUESTS
from engine.cli.ab_cases import named
from engine.cli.ab_run import INTERRUPTED, finished
from engine.cli.ab_tell import say
from engine.cli.ab_words import client_pus
from engine.cli.bench_options import LIMITS, fresh_seed, limits_of
from engine.cli.layouts import checked, read_layout
from engine.cli.text import number, numbers, print_json, table
from engine.cli.tune_words import evidence, layout_text
from engine.client import connect
from engine.control import ApplyLayout, HeldWish
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, UsageError
from engine.core.tuning.search import FINAL_ROUNDS, Search, winner
from engine.core.tuning.space import Candidate, candidates
from engine.host.paths import Paths

QUESTION: Mapping[str, object] = {
    "goal": GOALS[0],
    "instance": None,
    "concurrency": 8,
    "input_len": 64,
    "output_len": 64,
    "requests": None,
    "duration": None,
    "batch": None,
    "weight_only": None,
    "seed": None,
    **{f"{name}_ms": None for name in LIMITS},
    "final_rounds": FINAL_ROUNDS,
}
"""Options that say what is asked, and what they are if left out: a search goes on with its own."""
HEADER = ("  CANDIDATE", "VALUE", "OF BEST", "ROUNDS")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.set_defaults(**QUESTION)
    parser.add_argument("layout", metavar="LAYOUT", help="whose instance is tuned")
    parser.add_argument("--instance", metavar="NAME", help="which one; the first if left out")
    parser.add_argument("--goal", choices=GOALS, help=f"({GOALS[0]})")
    for name, words in LIMITS.items():
        parser.add_argument(
            f"--{name}-ms", type=float, metavar="N", help=f"counts only where {words} is at most N"
        )
    parser.add_argument("--concurrency", type=int, metavar="N", help="streams (8)")
    parser.add_argument("--input-len", type=int, metavar="N", help="prompt tokens (64)")
    parser.add_argument("--output-len", type=int, metavar="N", help="output tokens (64)")
    parser.add_argument(
        "--requests", type=int, metavar="N", help="of a block (8, or 4 a stream if that is more)"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="seconds of a block instead")
    parser.add_argument("--batch", metavar="N,N", help="also try these max-num-seqs")
    parser.add_argument(
        "--weight-only", metavar="FORM,FORM", help="also try these; the layout's own otherwise"
    )
    parser.add_argument("--max-time", type=float, metavar="S", help="begin no round after that")
    parser.add_argument("--final-rounds", type=int, metavar="N", help="(6)")
    parser.add_argument("--seed", type=int, metavar="N", help="of prompts and order; else fresh")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="for a start (600)"
    )
    parser.add_argument(
        "--resume", metavar="FILE", help="go on with a search that was broken off, as it told"
    )
    parser.add_argument("--yes", action="store_true", help="also stop what runs for a while")
    parser.add_argument("--output", metavar="FILE", help="write the winner as a layout")
    parser.add_argument("--json", metavar="FILE", nargs="?", const="-", help="slotdeck.tune/1")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Search and print; 0 with a plateau, 1 without one."""
    kept = None
    if asked.resume is not None:
        kept = read_log(Path(asked.resume))
        _adopt(asked, kept)
    for name in ("output", "json"):
        path = getattr(asked, name)
        if path not in (None, "-") and not Path(path).absolute().parent.is_dir():
            raise UsageError(
                what=f"{path} cannot be written",
                why="there is no such folder",
                do="Create it, or name another file",
            )
    if asked.final_rounds < 3:
        raise UsageError(
            what=f"--final-rounds {asked.final_rounds} cannot tell anything apart",
            why="a t-test needs 3 rounds",
            do="Give it 3 or more",
        )
    asked.seed = fresh_seed() if asked.seed is None else asked.seed
    requests = asked.requests
    if requests is None and asked.duration is None:
        requests = max(REQUESTS, 4 * asked.concurrency)
    load = Load(
        concurrency=asked.concurrency,
        input_len=asked.input_len,
        output_len=asked.output_len,
        duration_s=asked.duration,
        requests=requests,
        seed=asked.seed,
        limits=limits_of(asked),
    )
    batches = numbers("--batch", asked.batch, int) if asked.batch else []
    layout = read_layout(asked.layout)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_tuned(asked, layout, load, batches, kept, environment))


def _adopt(asked: argparse.Namespace, kept: Kept) -> None:
    """The question is the one that was begun with; another one said beside it is a mistake."""
    for name, default in QUESTION.items():
        told = kept.question.get(name, default)
        if getattr(asked, name) not in (default, told):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                what=f"{flag} {getattr(asked, name)} cannot be asked now",
                why=f"the search in {asked.resume} was begun with {told}",
                do=f"Leave {flag} out, or begin a new search without --resume",
            )
        setattr(asked, name, told)


async def _tuned(
    asked: argparse.Namespace,
    layout: ApplyLayout,
    load: Load,
    batches: list[int],
    kept: Kept | None,
    environment: Mapping[str, str],
) -> int:
    parsed = checked(layout)
    base = parsed.instances[0]
    if asked.instance is not None:
        base = named(parsed.instances, asked.instance, layout.name)
    client = await connect(environment=environment)
    machine = await client.machine()
    forms = asked.weight_only.split(",") if asked.weight_only else []
    space = candidates(base, machine, weight_only=forms, batches=batches)
    layouts = {
        str(one): as_layout([HeldWish(one.wish(base), layout.base)], name=str(one))
        for one in space
    }
    planned, refused = await plan_each(client, layouts)
    space = tuple(one for one in space if str(one) in planned.places)
    if not space:
        raise ControlError(
            what="There is nothing to tune",
            why="; ".join(dict.fromkeys(refused.values())),
            do="Look at `slotdeck plan` of that layout",
        )
    if planned.stops and not asked.yes:
        raise ControlError(
            what="Nothing was tuned",
            why=f"it would stop, for a while, what runs: {', '.join(planned.stops)}",
            do="Say --yes to have that stopped and started again at the end",
        )
    question = {
        **{name: getattr(asked, name) for name in QUESTION},
        "layout": hashlib.sha256(layout.text.encode()).hexdigest(),
        "candidates": [str(one) for one in space],
    }
    log = _log(asked, question, kept, environment)
    free = client_pus(machine, planned.pus())
    search = Search(len(space), seed=load.seed, final_rounds=asked.final_rounds)
    arms = ServiceArms(client, machine, planned, asked.timeout, say)
    wanted = Wanted(asked.goal, load, asked.max_time, free)
    tuning = Tuning(space, wanted, arms, search, on_block=say, log=log)
    if kept is not None:
        tuning.kept = kept.figures
        figures = sum(map(len, kept.figures.values()))
        say(f"going on with {log.path}: {figures} figures are there already")
    rounds, blocks = search.most_rounds()
    say(
        f"{len(space)} candidates ({len(refused)} more have no place): at most {rounds} rounds, "
        f"{blocks} starts"
    )
    where = "on no PU of its own: some candidate has all, so it may be the limit"
    say(f"load generator {where if free is None else f'on PU {CpuSet(free)}'}")
    say(f"each figure is kept as it comes, in {log.path}")
    return await _searched(asked, tuning, arms, refused, (layout, base.name))


def _log(
    asked: argparse.Namespace,
    question: dict[str, object],
    kept: Kept | None,
    environment: Mapping[str, str],
) -> TuneLog:
    """The one that is gone on with, if it is of this question, or a new one of our own."""
    if kept is None:
        folder = Paths.of(environment).state / "tune"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = TuneLog(folder / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%f}.jsonl")
        log.ask(question)
        return log
    for name, what in (("layout", "the layout"), ("candidates", "what has a place here")):
        if kept.question.get(name) != question[name]:
            raise UsageError(
                what=f"The search in {asked.resume} cannot go on",
                why=f"{what} has changed since",
                do="Begin a new one without --resume",
            )
    return TuneLog(Path(asked.resume))


async def _searched(
    asked: argparse.Namespace,
    tuning: Tuning,
    arms: ServiceArms,
    refused: dict[str, str],
    source: tuple[ApplyLayout, str],
) -> int:
    task = asyncio.current_task()
    with suppress(NotImplementedError, RuntimeError):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    interrupted = False
    try:
        try:
            await arms.begin()
            await tuning.run()
        except asyncio.CancelledError:
            interrupted = True
            if task is not None:
                task.uncancel()
            tuning.why_ended = "it was interrupted"
            say("interrupted: what was measured is kept; putting back what ran before")
        best = _print(asked, tuning, refused, source)
        if tuning.log is not None and tuning.why_ended != ALL_DONE:
            words = ["slotdeck", "tune", asked.layout, "--resume", str(tuning.log.path)]
            say(f"to go on where it ended: {shlex.join(words)}")
    finally:
        interrupted |= await finished(arms.end())
    return INTERRUPTED if interrupted else 0 if best is not None else 1


def _print(
    asked: argparse.Namespace,
    tuning: Tuning,
    refused: dict[str, str],
    source: tuple[ApplyLayout, str],
) -> Candidate | None:
    """The winner, if there is one."""
    goal = tuning.wanted.goal
    standings = tuning.search.standings()
    best = winner(standings)
    chosen = None if best is None else tuning.candidates[best.number]
    written = None
    if chosen is not None:
        base = named(checked(source[0]).instances, source[1], source[0].name)
        written = layout_text(chosen, base, source[0], evidence(tuning))
        if asked.output:
            _write(asked.output, written)
    answer = tune_json(tuning, refused, written)
    if asked.json not in (None, "-"):
        _write(asked.json, json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
    if asked.json == "-":
        print_json(answer)
    else:
        rows = [
            (
                ("* " if one.on_plateau else "  ") + str(tuning.candidates[one.number]),
                number(figure(one.value, goal)),
                "–" if one.against_best is None else f"{one.against_best:.1%}",
                str(one.rounds),
            )
            for one in standings
        ]
        print(table(HEADER, rows))
        print("\n" + "\n".join(evidence(tuning)))
        if asked.output and chosen is not None:
            print(f"{asked.output} is written: `slotdeck up {asked.output}` starts it.")
    sys.stdout.flush()
    return chosen


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise UsageError(
            what=f"{path} was not written",
            why=error.strerror or str(error),
            do="Name a file in a folder that can be written",
        ) from None
