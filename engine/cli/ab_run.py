"""One comparison of `slotdeck ab`: from what it would do to what it found, and back again."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.bench import ab_saved
from engine.bench.ab import Asked, Session, even_load
from engine.bench.ab_arms import ServiceArms
from engine.bench.ab_plan import Plan, plan
from engine.bench.ab_report import outcome_text, running
from engine.bench.values import Progress
from engine.cli.text import print_json
from engine.client import connect
from engine.control import ApplyLayout
from engine.core.comparing.design import FAMILY
from engine.core.comparing.void import sift
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.layout import parse_layout
from engine.core.status import GpuStatus
from engine.core.topology import Machine

INTERRUPTED = 130
TOLD = ("name", "engine", "model", "slot", "dtype", "weight_only", "weights")
"""Of each instance's wish, in the manifest: nothing that may hold a secret."""


@dataclass
class Comparison:
    """From the offer to what is printed."""

    asked: argparse.Namespace
    a: ApplyLayout
    b: ApplyLayout
    question: Asked
    number: int | None = None
    """Of several."""
    answer: dict[str, object] | None = None
    """As JSON, once there is one."""

    async def run(self, environment: Mapping[str, str]) -> int:
        client = await connect(environment=environment)
        machine = await client.machine()
        planned = await plan(client, self.a, self.b)
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
            say(line)
        arms = ServiceArms(client, machine, planned, self.asked.timeout, say)

        async def read_gpus() -> tuple[GpuStatus, ...]:
            return (await client.snapshot()).gpus

        session = Session(
            self.question,
            arms,
            on_pair=lambda session, label: self._on_pair(session, label, arms),
            on_block=show,
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
                say(f"done: {session.why_ended}")
            except asyncio.CancelledError:
                interrupted = True
                if task is not None:
                    task.uncancel()
                session.why_ended = "it was interrupted"
                say("interrupted: what was measured is kept; putting back what ran before")
            except ControlError as error:
                trouble = error
                session.why_ended = f"it failed: {error.what}"
            if session.pairs or session.aa or not (interrupted or trouble):
                self._print(session, arms)
        finally:
            interrupted |= await put_back(arms)
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
        self.answer = ab_saved.comparison_json(outcome, session.texts)
        if not self.asked.json:
            print(outcome_text(outcome, session.texts), flush=True)
        elif self.number is None:
            print_json(self.answer)
            sys.stdout.flush()
        if self.asked.output:
            path = Path(self.asked.output)
            if self.number is not None:
                path = path.with_stem(f"{path.stem}-{self.number}")
            full = ab_saved.with_blocks(self.answer, session.aa, session.pairs)
            ab_saved.write(str(path), full)

    def _on_pair(self, session: Session, label: str, arms: ServiceArms) -> None:
        if label == "A/A 1" or (not session.asked.aa_pairs and label == "pair 1"):
            for line in cost_lines(session.asked, arms):
                say(line)
        if label.startswith("A/A"):
            say(f"{label} of {session.asked.aa_pairs}: {running(session.aa, self._shown)}")
            return
        valid = len(sift(session.pairs)[0])
        far = f"{session.pairs[-1].order}, {valid} of {session.asked.design.pairs} valid"
        say(f"{label} ({far}): {running(session.pairs, self._shown)}")

    @property
    def _shown(self) -> tuple[str, ...]:
        return self.question.metrics or FAMILY


async def put_back(arms: ServiceArms) -> bool:
    """To the end, even when interrupted meanwhile; True if it was."""
    work = asyncio.create_task(arms.end())
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if work.done():
            raise
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        say("still putting back what ran before (once more leaves all as it is now)")
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


def say(line: str) -> None:
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}{line}", file=sys.stderr, flush=True)


def show(label: str, progress: Progress) -> None:
    """One line that is written over, where somebody watches."""
    if sys.stderr.isatty():
        told = f"\r\x1b[K{label}: {progress.phase} {progress.elapsed_s:.0f} s"
        print(told, end="", file=sys.stderr, flush=True)
