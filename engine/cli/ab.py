"""Compare two layouts: same load on both, in random order, pair by pair; one verdict a metric.

Stops what runs and starts it again at the end. With --from it compares two saved runs instead,
files of `slotdeck bench --json` or of `slotdeck ab --output`, which is weaker.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.bench import ab_saved
from engine.bench.ab import AA_PAIRS, Asked, Session, even_load
from engine.bench.ab_arms import Plan, ServiceArms, plan
from engine.bench.ab_report import outcome_text, running
from engine.bench.runner import loop_factory
from engine.bench.values import Load, Progress
from engine.cli.bench import fresh_seed
from engine.cli.layouts import checked, read_layout
from engine.cli.text import print_json
from engine.client import connect
from engine.control import ApplyLayout
from engine.core.compare import compare_runs
from engine.core.comparing.design import FAMILY, MIN_PAIRS, Design
from engine.core.comparing.values import METRICS, Arm
from engine.core.comparing.void import sift
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, UsageError
from engine.core.layout import Layout, parse_layout
from engine.core.status import GpuStatus
from engine.core.topology import Machine

INTERRUPTED = 130
REQUESTS = 8
"""Of a block, at least; and four a stream."""
TOLD = ("name", "engine", "model", "slot", "dtype", "weight_only", "weights")
"""Of each instance's wish, in the manifest: nothing that may hold a secret."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("a", metavar="A.toml", help="the layout that the other is compared with")
    parser.add_argument("b", metavar="B.toml", help="the layout that the verdicts are about")
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
    if asked.saved:
        return _saved(asked)
    a, b = read_layout(asked.a), read_layout(asked.b)
    load = _load(asked, seed)
    arms = _arms((checked(a), asked.a), (checked(b), asked.b))
    question = Asked(
        a=arms[0],
        b=arms[1],
        design=design,
        load=load,
        aa_pairs=asked.aa_pairs,
        max_time_s=asked.max_time,
        metrics=tuple(dict.fromkeys(asked.metric)),
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_Comparison(asked, a, b, question).run(environment))


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


@dataclass
class _Comparison:
    """From the offer to what is printed."""

    asked: argparse.Namespace
    a: ApplyLayout
    b: ApplyLayout
    question: Asked

    async def run(self, environment: Mapping[str, str]) -> int:
        client = await connect(environment=environment)
        machine = await client.machine()
        planned = await plan(client, self.a, self.b, machine)
        if planned.strangers and not self.asked.yes:
            raise ControlError(
                what="Nothing was compared",
                why=f"it would stop, for a while, what belongs to neither arm: "
                f"{', '.join(planned.strangers)}",
                do="Say --yes to have that stopped and started again at the end",
            )
        counts = [len(planned.places[arm]) for arm in ("a", "b")]
        free = client_pus(machine, planned.pus())
        self.question = replace(
            self.question,
            load=even_load(self.question.load, counts),
            restart=self.asked.restart_per_pair or planned.both is None,
            client_pus=free,
        )
        for line in offer_lines(planned, self.question, self.asked.concurrency):
            _say(line)
        arms = ServiceArms(client, machine, planned, self.asked.timeout, _say)

        async def read_gpus() -> tuple[GpuStatus, ...]:
            return (await client.snapshot()).gpus

        session = Session(
            self.question,
            arms,
            on_pair=lambda session, label: self._on_pair(session, label, arms),
            on_block=_show,
            read_gpus=read_gpus,
            facts=facts(planned),
        )
        return await self._measured(session, arms)

    async def _measured(self, session: Session, arms: ServiceArms) -> int:
        task = asyncio.current_task()
        with suppress(NotImplementedError, RuntimeError):
            if task is not None:
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        interrupted = False
        trouble: ControlError | None = None
        try:
            try:
                await arms.begin()
                await session.run()
                _say(f"done: {session.why_ended}")
            except asyncio.CancelledError:
                interrupted = True
                if task is not None:
                    task.uncancel()
                session.why_ended = "it was interrupted"
                _say("interrupted: what was measured is kept; putting back what ran before")
            except ControlError as error:
                trouble = error
                session.why_ended = f"it failed: {error.what}"
            if session.pairs or session.aa or not (interrupted or trouble):
                self._print(session, arms)
        finally:
            interrupted |= await _put_back(arms)
        if trouble is not None:
            raise trouble
        return INTERRUPTED if interrupted else 0

    def _print(self, session: Session, arms: ServiceArms) -> None:
        session.facts = {
            **facts(arms.plan),
            "start_s": {arm: [round(one, 2) for one in s] for arm, s in arms.start_s.items()},
        }
        outcome = session.outcome(final=True)
        if session.why_ended is not None:
            outcome = replace(outcome, stop=session.why_ended)
        answer = ab_saved.comparison_json(outcome, session.texts)
        if self.asked.json:
            print_json(answer)
        else:
            print(outcome_text(outcome, session.texts))
        sys.stdout.flush()
        if self.asked.output:
            full = ab_saved.with_blocks(answer, session.aa, session.pairs)
            ab_saved.write(self.asked.output, full)

    def _on_pair(self, session: Session, label: str, arms: ServiceArms) -> None:
        if label == "A/A 1" or (not session.asked.aa_pairs and label == "pair 1"):
            for line in cost_lines(session.asked, arms):
                _say(line)
        if label.startswith("A/A"):
            _say(f"{label} of {session.asked.aa_pairs}: {running(session.aa, self._shown)}")
            return
        valid = len(sift(session.pairs)[0])
        far = f"{session.pairs[-1].order}, {valid} of {session.asked.design.pairs} valid"
        _say(f"{label} ({far}): {running(session.pairs, self._shown)}")

    @property
    def _shown(self) -> tuple[str, ...]:
        return self.question.metrics or FAMILY


async def _put_back(arms: ServiceArms) -> bool:
    """To the end, even when interrupted meanwhile; True if it was."""
    work = asyncio.create_task(arms.end())
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if work.done():
            raise
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        _say("still putting back what ran before (once more leaves all as it is now)")
        await work
        return True
    return False


def client_pus(machine: Machine, engines: CpuSet) -> frozenset[int] | None:
    """PUs that no engine of either arm uses, on cores of their own where there are such."""
    free = machine.pus.usable - engines
    alone = CpuSet(pu for core in machine.cores if not core.pus & engines for pu in core.pus)
    chosen = (free & alone) or free
    return frozenset(chosen) or None


def offer_lines(planned: Plan, asked: Asked, wanted: int) -> list[str]:
    """What will be done, before any of it is."""
    lines = []
    for letter, arm in (("A", asked.a), ("B", asked.b)):
        lines += [
            f"{letter} ({arm.name}): {name} {place}"
            for name, place in planned.places[letter.lower()].items()
        ]
    if planned.both is not None:
        turns = "" if asked.restart else ": both stay loaded and take turns"
        lines.append(f"they fit side by side{turns}")
    else:
        lines.append(f"they do not fit side by side ({planned.why_apart}): one replaces the other")
    if asked.restart:
        starts = 2 * (asked.aa_pairs + asked.design.pairs)
        lines.append(f"every block gets engines of its own: at most {starts} starts")
    lines += [f"{name} is stopped, and started again at the end" for name in planned.stops]
    lines += planned.losses
    lines += [f"{name} does not run: it leaves the list" for name in planned.dropped]
    load = asked.load
    if load.concurrency != wanted:
        lines.append(f"{load.concurrency} streams, so that every instance of an arm gets as many")
    free = asked.client_pus
    where = "on no PU of its own: the engines have all, so it may be the limit"
    lines.append(f"load generator {where if free is None else f'on PU {CpuSet(free)}'}")
    return lines


def cost_lines(asked: Asked, arms: ServiceArms) -> list[str]:
    """What a start took, as measured by now, and what that comes to."""
    took = [s for starts in arms.start_s.values() for s in starts]
    if not took or not asked.restart:
        return []
    mean = sum(took) / len(took)
    left = 2 * (asked.aa_pairs + asked.design.pairs) - len(took)
    return [f"a start takes {mean:.1f} s: at most {left} more of them, {left * mean:.0f} s in all"]


def facts(planned: Plan) -> dict[str, object]:
    """Layouts and placements, for the manifest; secrets of the files stay out."""
    asked = {
        arm: parse_layout(layout.text, name=layout.name).instances
        for arm, layout in planned.layouts.items()
    }
    return {
        f"arm_{arm}": {
            "layout": Path(planned.layouts[arm].name).name,
            "wishes": [{key: getattr(one, key) for key in TOLD} for one in asked[arm]],
            "instances": [f"{name} {place}" for name, place in places.items()],
        }
        for arm, places in planned.places.items()
    } | {"side_by_side": planned.both is not None, "why_apart": planned.why_apart or None}


def _say(line: str) -> None:
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}{line}", file=sys.stderr, flush=True)


def _show(label: str, progress: Progress) -> None:
    """One line that is written over, where somebody watches."""
    if sys.stderr.isatty():
        told = f"\r\x1b[K{label}: {progress.phase} {progress.elapsed_s:.0f} s"
        print(told, end="", file=sys.stderr, flush=True)
