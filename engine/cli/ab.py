"""Compare two layouts: same load on both, in random order, pair by pair; one verdict a metric.

Stops what runs and starts it again at the end. With --from it compares two saved runs instead,
files of `slotdeck bench --json` or of `slotdeck ab --output`, which is weaker.
"""

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.bench import ab_saved
from engine.bench.ab import AA_PAIRS, Asked
from engine.bench.ab_plan import as_layout
from engine.bench.ab_report import outcome_text
from engine.bench.runner import loop_factory
from engine.bench.values import Load
from engine.cli.ab_run import Comparison, say
from engine.cli.bench import fresh_seed
from engine.cli.layouts import checked, read_layout
from engine.cli.text import print_json
from engine.client import connect
from engine.control import ApplyLayout, HeldWish
from engine.core.compare import compare_runs
from engine.core.comparing.design import FAMILY, MIN_PAIRS, Design
from engine.core.comparing.single_dual import PAIRS, single_dual
from engine.core.comparing.values import METRICS, Arm
from engine.core.errors import UsageError
from engine.core.layout import Instance, Layout

SET_SCHEMA = "slotdeck.ab-set/1"
"""Of several comparisons."""
REQUESTS = 8
"""Of a block, at least; and four a stream."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("a", metavar="A.toml", help="the layout that the other is compared with")
    parser.add_argument(
        "b", metavar="B.toml", nargs="?", help="the layout that the verdicts are about"
    )
    parser.add_argument(
        "--single-dual",
        metavar="NAME",
        help="in place of B: A's GPU instance NAME on one card, on two, and as two replicas",
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
        "--concurrency", type=int, default=1, metavar="N", help="streams of each whole arm (1)"
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


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Compare and print; 0 whatever the verdict is."""
    seed = fresh_seed() if asked.seed is None else asked.seed
    design = _design(asked, seed)
    _check_arms(asked)
    if asked.saved:
        return _saved(asked)
    layouts = [read_layout(path) for path in (asked.a, asked.b) if path is not None]
    parsed = [(checked(layout), layout.name) for layout in layouts]
    question = Asked(
        a=Arm("A"),
        b=Arm("B"),
        design=design,
        load=_load(asked, seed),
        aa_pairs=asked.aa_pairs,
        max_time_s=asked.max_time,
        metrics=tuple(dict.fromkeys(asked.metric)),
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        if asked.single_dual is not None:
            return runner.run(_single_dual(asked, layouts[0], question, environment))
        a, b = _arms(*parsed)
        comparison = Comparison(asked, layouts[0], layouts[1], replace(question, a=a, b=b))
        return runner.run(comparison.run(environment))


def _check_arms(asked: argparse.Namespace) -> None:
    """Two layouts, or one and the name of an instance in it."""
    if asked.single_dual is None and asked.b is None:
        raise UsageError(
            what="There is nothing to compare with",
            why=f"only {asked.a} was named",
            do="Name a second layout, or --single-dual NAME for one card against two",
        )
    if asked.single_dual is not None and (asked.b is not None or asked.saved):
        raise UsageError(
            what="--single-dual takes one layout",
            why="it makes the arms itself",
            do="Leave the other file out",
        )


async def _single_dual(
    asked: argparse.Namespace,
    layout: ApplyLayout,
    question: Asked,
    environment: Mapping[str, str],
) -> int:
    """Each of the three comparisons by itself: every one puts back what ran before."""
    machine = await (await connect(environment=environment)).machine()
    cases = single_dual(named(checked(layout), asked.single_dual, layout.name), machine)
    say(f"cards {cases.cards[0]} and {cases.cards[1]}: {cases.reason}")
    answers: list[dict[str, object]] = []
    code = 0
    try:
        for number, (first, second) in enumerate(PAIRS, 1):
            a, b = (
                as_layout([HeldWish(one, layout.base) for one in cases.arms[name]], name=name)
                for name in (first, second)
            )
            say(f"comparison {number} of {len(PAIRS)}: {first} (A), {second} (B)")
            asks = replace(question, a=Arm(first), b=Arm(second))
            comparison = Comparison(asked, a, b, asks, number)
            code = await comparison.run(environment)
            if comparison.answer is not None:
                answers.append(comparison.answer)
            if code:
                break
    finally:
        if asked.json and answers:
            print_json({"schema": SET_SCHEMA, "cards": cases.cards, "comparisons": answers})
    return code


def named(layout: Layout, name: str, path: str) -> Instance:
    """That instance of it."""
    for one in layout.instances:
        if one.name == name:
            return one
    raise UsageError(
        what=f"{path} has no instance {name!r}",
        why=f"it has: {', '.join(one.name for one in layout.instances)}",
        do="Name one of them",
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


def _load(asked: argparse.Namespace, seed: int) -> Load:
    requests = asked.requests
    if requests is None and asked.duration is None:
        requests = max(REQUESTS, 4 * asked.concurrency)
    return Load(
        concurrency=asked.concurrency,
        input_len=asked.input_len,
        output_len=asked.output_len,
        duration_s=asked.duration,
        requests=requests,
        seed=seed,
    )


def _arms(*layouts: tuple[Layout, str]) -> tuple[Arm, Arm]:
    """By what the layouts call themselves, where that tells them apart."""
    names = []
    for letter, (layout, path) in zip("AB", layouts, strict=True):
        name = "" if layout.name == path else layout.name.removeprefix(f"{letter}: ").strip()
        names.append(name or Path(path).stem)
    if names[0] == names[1]:
        names = [Path(path).stem for _, path in layouts]
    if names[0] == names[1]:
        names = ["A", "B"]
    return Arm(names[0]), Arm(names[1])


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
