"""Compare two layouts: same load on both, in random order, pair by pair; one verdict a metric.

Stops what runs and starts it again at the end. The arms can also be made from one instance: on
one card, two, and as two replicas; on two places; or as one and as two halves. With --from it
compares two saved runs instead, files of `slotdeck bench --json` or of `slotdeck ab --output`,
which is weaker.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.bench import ab_saved
from engine.bench.ab import AA_PAIRS, Asked
from engine.bench.ab_report import outcome_text
from engine.bench.runner import loop_factory
from engine.bench.values import Load
from engine.cli.ab_cases import cases
from engine.cli.ab_run import Comparisons
from engine.cli.ab_tell import Person, Program, Watcher
from engine.cli.bench_options import fresh_seed
from engine.cli.text import numbers, print_json
from engine.client import connect
from engine.core.compare import compare_runs
from engine.core.comparing.design import FAMILY, MIN_PAIRS, Design
from engine.core.comparing.telling import Failed
from engine.core.comparing.values import METRICS, Arm
from engine.core.errors import ControlError, UsageError
from engine.host.paths import Paths

REQUESTS = 8
"""Of a block, at least; and four a stream."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "a", metavar="A.toml", nargs="?", help="the layout that the other is compared with"
    )
    parser.add_argument(
        "b", metavar="B.toml", nargs="?", help="the layout that the verdicts are about"
    )
    parser.add_argument(
        "--single-dual",
        metavar="NAME",
        help="in place of B: A's GPU instance NAME on one card, on two, and as two replicas; "
        "without A, of what runs now",
    )
    parser.add_argument(
        "--move",
        nargs=2,
        metavar=("NAME", "SLOT"),
        help="of what runs now: NAME where it is, and on SLOT",
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="of what runs now: NAME on all its cores, and as two instances on half of them each",
    )
    parser.add_argument(
        "--from", dest="saved", action="store_true", help="A and B are files of saved runs"
    )
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="only this one; repeatable"
    )
    parser.add_argument("--pairs", type=int, default=10, metavar="N", help="at most (10)")
    parser.add_argument(
        "--aa-pairs", type=int, default=AA_PAIRS, metavar="N", help=f"A against A ({AA_PAIRS})"
    )
    parser.add_argument("--max-time", type=float, metavar="S", help="end after S seconds")
    parser.add_argument(
        "--concurrency",
        default="1",
        metavar="N,N",
        help="streams of each whole arm; several numbers in turn (1)",
    )
    parser.add_argument(
        "--input-len", type=int, default=64, metavar="N", help="prompt tokens (64)"
    )
    parser.add_argument(
        "--output-len", type=int, default=100, metavar="N", help="output tokens (100)"
    )
    parser.add_argument(
        "--requests", type=int, metavar="N", help="of a block (8, or 4 a stream if that is more)"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="seconds of a block instead")
    parser.add_argument("--seed", type=int, metavar="N", help="of prompts and order; else fresh")
    parser.add_argument(
        "--restart-per-pair", action="store_true", help="start both arms anew for every pair"
    )
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="for a start (600)"
    )
    parser.add_argument(
        "--yes", action="store_true", help="also stop instances that belong to neither arm"
    )
    parser.add_argument("--output", metavar="FILE", help="write the result with all its blocks")
    parser.add_argument("--json", action="store_true", help="print slotdeck.ab/1")
    parser.add_argument(
        "--progress",
        action="store_true",
        help="for programs: tell all as JSON lines, be told on standard input (docs/ab.md)",
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Compare and print; 0 whatever the verdict is."""
    seed = fresh_seed() if asked.seed is None else asked.seed
    design = _design(asked, seed)
    _check_arms(asked)
    if asked.saved:
        return _saved(asked)
    questions = [
        Asked(
            a=Arm("A"),
            b=Arm("B"),
            design=design,
            load=_load(asked, seed, streams),
            aa_pairs=asked.aa_pairs,
            max_time_s=asked.max_time,
            metrics=tuple(dict.fromkeys(asked.metric)),
        )
        for streams in dict.fromkeys(numbers("--concurrency", asked.concurrency, int))
    ]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_compared(asked, questions, environment))


async def _compared(
    asked: argparse.Namespace, questions: Sequence[Asked], environment: Mapping[str, str]
) -> int:
    watcher: Watcher = Program() if asked.progress else Person()
    try:
        client = await connect(environment=environment)
        made = await cases(asked, client)
        if made.reason:
            watcher.said(made.reason)
        revive = partial(connect, environment=environment)
        paths = Paths.of(environment)
        # Each level of load asks about each pair of arms.
        each = replace(made, pairs=made.pairs * len(questions))
        wished = [question for question in questions for _ in made.pairs]
        return await Comparisons(asked, each, wished, watcher, client, paths, revive).run()
    except ControlError as error:
        if not asked.progress:
            raise
        watcher.told(Failed(error.what, error.why, error.do))
        return error.exit_code


def _check_arms(asked: argparse.Namespace) -> None:
    """Two layouts, or one instance from which the arms are made."""
    made = {
        f"--{name}": getattr(asked, name.replace("-", "_"))
        for name in ("single-dual", "move", "split")
    }
    given = [flag for flag, value in made.items() if value is not None]
    if len(given) > 1:
        raise UsageError(
            what=f"{given[0]} and {given[1]} do not go together",
            why="each makes the arms itself",
            do="Leave one of them out",
        )
    if not given and asked.b is None:
        raise UsageError(
            what="There is nothing to compare with",
            why=f"only {asked.a} was named" if asked.a else "no layout was named",
            do="Name two layouts, or --single-dual NAME for one card against two",
        )
    if given and (asked.b is not None or asked.saved):
        raise UsageError(
            what=f"{given[0]} takes one layout",
            why="it makes the arms itself",
            do="Leave the other file out",
        )
    if given and asked.a is not None and asked.single_dual is None:
        raise UsageError(
            what=f"{given[0]} takes no layout",
            why="it is about what runs now",
            do=f"Leave {asked.a} out",
        )
    if asked.progress and (asked.json or asked.saved):
        raise UsageError(
            what=f"--progress and {'--json' if asked.json else '--from'} do not go together",
            why="its lines are all that is printed",
            do="Leave one of them out",
        )


def _design(asked: argparse.Namespace, seed: int) -> Design:
    def refuse(why: str, do: str) -> UsageError:
        return UsageError(what="This comparison cannot be made", why=why, do=do)

    if asked.pairs < MIN_PAIRS:
        why = f"{asked.pairs} pairs can never exclude luck at 95 %"
        raise refuse(why, f"Plan {MIN_PAIRS} or more; it stops early where that is enough")
    if asked.aa_pairs < 0 or asked.aa_pairs == 1:
        raise refuse("a noise floor needs 2 A/A pairs or more", "Give --aa-pairs 2, or 0 for none")
    for name in asked.metric:
        if name not in METRICS:
            raise refuse(f"there is no metric {name!r}", f"Choose of: {', '.join(METRICS)}")
    if asked.output and not Path(asked.output).absolute().parent.is_dir():
        raise refuse(f"there is no folder for {asked.output}", "Create it, or name another file")
    for name in ("max_time", "timeout"):
        value = getattr(asked, name)
        if value is not None and not value > 0:
            raise refuse(f"--{name.replace('_', '-')} is not above 0", "Give it some seconds")
    design = Design.of(asked.pairs, seed=seed)
    return replace(design, family=tuple(dict.fromkeys(asked.metric)) or FAMILY)


def _load(asked: argparse.Namespace, seed: int, streams: int) -> Load:
    requests = asked.requests
    if requests is None and asked.duration is None:
        requests = max(REQUESTS, 4 * streams)
    return Load(
        concurrency=streams,
        input_len=asked.input_len,
        output_len=asked.output_len,
        duration_s=asked.duration,
        requests=requests,
        seed=seed,
    )


def _saved(asked: argparse.Namespace) -> int:
    runs = [ab_saved.read_run(asked.a, "a"), ab_saved.read_run(asked.b, "b")]
    names = [one.name for one in runs]
    if names[0] == names[1]:
        names = ["A", "B"]
    outcome = compare_runs(
        runs[0].blocks,
        runs[1].blocks,
        a=Arm(names[0]),
        b=Arm(names[1]),
        family=tuple(asked.metric) or FAMILY,
        manifest={"a": runs[0].manifests, "b": runs[1].manifests},
    )
    answer = ab_saved.comparison_json(outcome, None)
    if asked.output:
        ab_saved.write(asked.output, answer)
    if asked.json:
        print_json(answer)
    else:
        print(outcome_text(outcome))
    return 0
