"""All comparisons of one `slotdeck ab`: from what they would do to what they found, and back."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from engine.bench import ab_saved
from engine.bench.ab import Asked, Session, even_load
from engine.bench.ab_arms import ServiceArms
from engine.bench.ab_plan import Plan, plan, standalone
from engine.bench.ab_report import outcome_text, running, so_far
from engine.bench.values import Progress
from engine.cli.ab_cases import Cases
from engine.cli.ab_rescue import Rescue
from engine.cli.ab_tell import DECIDE_WITHIN_S, Watcher, say
from engine.cli.ab_words import client_pus, cost_lines, facts, offer_lines, planned
from engine.cli.text import print_json
from engine.client import ServiceClient
from engine.core.codec import convert
from engine.core.comparing.choosing import Won, winner, winner_of_all
from engine.core.comparing.design import FAMILY
from engine.core.comparing.telling import (
    Deciding,
    Ended,
    Judged,
    Measuring,
    Paired,
    PuttingBack,
    Row,
)
from engine.core.comparing.values import METRICS, Arm, Outcome
from engine.core.comparing.void import sift
from engine.core.errors import ControlError, ServiceUnreachable
from engine.core.layout import parse_layout
from engine.core.status import GpuStatus
from engine.core.topology import Machine
from engine.host.paths import Paths

INTERRUPTED = 130
SET_SCHEMA = "slotdeck.ab-set/1"
"""Of several comparisons."""


@dataclass
class Comparisons:
    """One after the other; only at the end comes back what ran, or stays what was chosen."""

    asked: argparse.Namespace
    cases: Cases
    questions: Sequence[Asked]
    """Of each of the pairs, as the command line puts it."""
    watcher: Watcher
    client: ServiceClient
    paths: Paths
    revive: Callable[[], Awaitable[object]]
    """Start the service again, should it have died meanwhile."""
    _arms: list[ServiceArms] = field(default_factory=list)
    _answers: list[dict[str, object]] = field(default_factory=list)
    _won: list[Won] = field(default_factory=list)

    async def run(self) -> int:
        """Returns the exit code. Raises ControlError, with what ran before back in its place."""
        machine = await self.client.machine()
        plans = [
            await plan(self.client, self.cases.arms[a], self.cases.arms[b])
            for a, b in self.cases.pairs
        ]
        self._arms = [
            ServiceArms(self.client, machine, one, self.asked.timeout, self.watcher.said)
            for one in plans
        ]
        questions = [
            self._question_of(machine, question, pair, one)
            for question, pair, one in zip(self.questions, self.cases.pairs, plans, strict=True)
        ]
        self._require_yes(plans)
        rescue = Rescue(self.paths)
        wanted = [one.load.concurrency for one in self.questions]
        told = planned(self.cases, plans, questions, wanted, self.asked, rescue.path)
        if not await self.watcher.begins(told):
            return 0
        with rescue.held(standalone(plans[0].before, plans[0].ports)):
            if rescue.was_cut_off:
                self.watcher.said(
                    f"an earlier comparison never came to its end: what ran before it is in "
                    f"{rescue.cut_off}"
                )
            return await self._guarded(questions, rescue)

    def _require_yes(self, plans: list[Plan]) -> None:
        strangers = dict.fromkeys(name for one in plans for name in one.strangers)
        if strangers and not (self.asked.yes or self.asked.progress):
            raise ControlError(
                what="Nothing was compared",
                why=f"it would stop, for a while, what belongs to neither arm: "
                f"{', '.join(strangers)}",
                do="Say --yes to have that stopped and started again at the end",
            )

    def _question_of(
        self, machine: Machine, wished: Asked, pair: tuple[str, str], made: Plan
    ) -> Asked:
        counts = [len(made.places[arm]) for arm in ("a", "b")]
        return replace(
            wished,
            a=Arm(pair[0]),
            b=Arm(pair[1]),
            load=even_load(wished.load, counts),
            restart=self.asked.restart_per_pair or made.both is None,
            client_pus=client_pus(machine, made.pus()),
        )

    async def _guarded(self, questions: list[Asked], rescue: Rescue) -> int:
        task = asyncio.current_task()
        assert task is not None
        with suppress(NotImplementedError, RuntimeError):
            for ending in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(ending, task.cancel)
        interrupted = False
        kept: str | None = None
        try:
            self.watcher.stoppable(task.cancel)
            for number, question in enumerate(questions, 1):
                await self._compare(number, question)
            self.watcher.stoppable(None)
            kept = await self._decided()
        except asyncio.CancelledError:
            interrupted = True
            task.uncancel()
            self.watcher.said(
                "interrupted: what was measured is kept; putting back what ran before"
            )
        finally:
            self.watcher.stoppable(None)
            settling = _Settling(self, rescue, kept)
            interrupted |= await finished(settling.run(interrupted=interrupted))
            if self.asked.json and len(questions) > 1 and self._answers:
                print_json(
                    {
                        "schema": SET_SCHEMA,
                        "cards": self.cases.cards,
                        "comparisons": self._answers,
                    }
                )
        return INTERRUPTED if interrupted else 0

    async def _decided(self) -> str | None:
        arm, why = winner_of_all(self._won)
        kept = await self.watcher.keeps(Deciding(arm, why, DECIDE_WITHIN_S))
        return kept if kept in self.cases.keep else None

    async def _compare(self, number: int, question: Asked) -> None:
        arms = self._arms[number - 1]
        wanted = self.questions[number - 1].load.concurrency
        if len(self._arms) > 1:
            streams = "1 stream" if wanted == 1 else f"{wanted} streams"
            self.watcher.said(
                f"comparison {number} of {len(self._arms)}: {question.a.name} (A), "
                f"{question.b.name} (B), {streams}"
            )
        for line in offer_lines(arms.plan, question, wanted):
            self.watcher.said(line)
        one = _One(self, number, question, arms)
        if number == 1:
            await arms.begin()
        try:
            await one.session.run()
            self.watcher.said(f"done: {one.session.why_ended}")
        except asyncio.CancelledError:
            one.end("it was interrupted")
            raise
        except ControlError as error:
            one.end(f"it failed: {error.what}")
            raise
        one.judge()
        if number < len(self._arms):
            await arms.clear()

    async def read_gpus(self) -> tuple[GpuStatus, ...]:
        return (await self.client.snapshot()).gpus

    def keep_answer(self, answer: dict[str, object], outcome: Outcome) -> None:
        self._answers.append(answer)
        won = winner(outcome, self.questions[0].design.family)
        self._won.append(((outcome.a.name, outcome.b.name), won))


class _One:
    """One comparison while it is measured."""

    def __init__(
        self, owner: Comparisons, number: int, question: Asked, arms: ServiceArms
    ) -> None:
        self.owner, self.number, self.question, self.arms = owner, number, question, arms
        self.began_s = time.monotonic()
        arms.on_start = self._on_start
        self.session = Session(
            question,
            arms,
            on_pair=self._on_pair,
            on_block=self._on_block,
            read_gpus=owner.read_gpus,
            facts=facts(arms.plan),
        )

    def _on_start(self, arm: str) -> None:
        told = Measuring(self.number, f"arm {arm.upper()}", arm, "starting its engines", 0.0)
        self.owner.watcher.told(told)

    def _on_block(self, label: str, progress: Progress) -> None:
        arm = "b" if label.endswith(", B") else "a"
        told = Measuring(self.number, label, arm, progress.phase, progress.elapsed_s)
        self.owner.watcher.told(told)

    def _on_pair(self, session: Session, label: str) -> None:
        aa, design = session.asked.aa_pairs, session.asked.design
        if label == "A/A 1" or (not aa and label == "pair 1"):
            for line in cost_lines(session.asked, self.arms):
                self.owner.watcher.said(line)
        is_aa = label.startswith("A/A")
        done = session.aa if is_aa else session.pairs
        valid, void = sift(session.pairs)
        shown = self.question.metrics or FAMILY
        if is_aa:
            self.owner.watcher.said(f"{label} of {aa}: {running(done, shown)}")
            void = sift(done, ("first", "second"))[1]
        else:
            far = f"{done[-1].order}, {len(valid)} of {design.pairs} valid"
            self.owner.watcher.said(f"{label} ({far}): {running(done, shown)}")
        self.owner.watcher.told(
            Paired(
                self.number,
                is_aa,
                len(done),
                aa if is_aa else design.pairs,
                done[-1].order,
                len(valid),
                void[-1].why if void and void[-1].pair == len(done) else None,
                so_far(done, self.question.metrics or tuple(METRICS), session.aa),
                time.monotonic() - self.began_s,
                session.left_s(),
            )
        )

    def end(self, why: str) -> None:
        """Broken off: what was measured is told all the same."""
        self.session.why_ended = why
        if self.session.pairs or self.session.aa:
            self.judge()

    def judge(self) -> None:
        session, asked = self.session, self.owner.asked
        took = self.arms.start_s.items()
        session.facts = {
            **facts(self.arms.plan),
            "start_s": {arm: [round(one, 2) for one in s] for arm, s in took},
        }
        outcome = session.outcome(final=True)
        if session.why_ended is not None:
            outcome = replace(outcome, stop=session.why_ended)
        answer = ab_saved.comparison_json(outcome, session.texts)
        self.owner.keep_answer(answer, outcome)
        if not (asked.json or asked.progress):
            print(outcome_text(outcome, session.texts), flush=True)
        elif asked.json and len(self.owner.cases.pairs) == 1:
            print_json(answer)
            sys.stdout.flush()
        saved = self._save(answer)
        self.owner.watcher.told(
            Judged(
                self.number,
                outcome.sentence,
                convert(answer["metrics"], tuple[Row, ...]),
                outcome.pairs,
                len(outcome.void),
                outcome.noise_floor,
                outcome.stop,
                saved,
            )
        )

    def _save(self, answer: dict[str, object]) -> str:
        asked = self.owner.asked
        if not (asked.output or asked.progress):
            return ""
        path = Path(asked.output) if asked.output else _own_file(self.owner.paths)
        if len(self.owner.cases.pairs) > 1:
            path = path.with_stem(f"{path.stem}-{self.number}")
        full = ab_saved.with_blocks(answer, self.session.aa, self.session.pairs)
        ab_saved.write(str(path), full)
        return str(path)


@dataclass
class _Settling:
    """What ran before comes back, or what was chosen stays."""

    owner: Comparisons
    rescue: Rescue
    kept: str | None

    async def run(self, *, interrupted: bool) -> None:
        arms, watcher = self.owner._arms, self.owner.watcher
        trouble: ControlError | None = None
        if self.kept is not None:
            try:
                await self._keep(self.kept)
            except ControlError as error:
                trouble = error
                watcher.said(f"{self.kept} cannot be kept: {error.what}: {error.why}")
                self.kept = None
        if self.kept is None:
            await self._put_back()
        self.rescue.done()
        different = await arms[0].different() if self.kept is None else ()
        for line in different:
            watcher.said(f"not exactly as before: {line}")
        watcher.told(Ended(self.kept, interrupted, different))
        if trouble is not None:
            raise trouble

    async def _keep(self, kept: str) -> None:
        layout = self.owner.cases.keep[kept]
        names = tuple(one.name for one in parse_layout(layout.text, name=layout.name).instances)
        self._tell(kept, names)
        last = self.owner._arms[-1]
        # Where the arm is what is kept, its engines need not start again.
        same = layout in last.plan.layouts.values() and await last.on_old_ports(names)
        stays = names if same else ()
        await last.clear(but=stays)
        await last.run(layout, names)

    async def _put_back(self) -> None:
        first = self.owner._arms[0]
        self._tell(None, tuple(one.wish.name for one in first.plan.before.wishes))
        try:
            try:
                await self._restore(first)
            except ServiceUnreachable:
                await self.owner.revive()
                await self._restore(first)
        except ControlError as error:
            if not self.rescue.holds:
                raise
            raise ControlError(
                what="What ran before is not all back",
                why=f"{error.what}: {error.why}",
                do=f"`slotdeck up {self.rescue.path}` starts it; first look at `slotdeck status`",
            ) from None

    async def _restore(self, first: ServiceArms) -> None:
        for arms in self.owner._arms:
            await arms.clear()
        await first.restore()

    def _tell(self, kept: str | None, names: tuple[str, ...]) -> None:
        file = str(self.rescue.path) if self.rescue.holds else ""
        self.owner.watcher.told(PuttingBack(kept, names, file))


async def finished(work: Coroutine[object, object, None]) -> bool:
    """To the end, even when interrupted meanwhile; True if it was."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.done():
            raise
        if (current := asyncio.current_task()) is not None:
            current.uncancel()
        say("still putting back what ran before (once more leaves all as it is now)")
        await task
        return True
    return False


def _own_file(paths: Paths) -> Path:
    folder = paths.state / "ab"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}.json"
