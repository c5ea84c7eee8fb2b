"""What a comparison would do and cost, in words and as a value, before any of it is done."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.bench.ab import Asked
from engine.bench.ab_arms import ServiceArms
from engine.bench.ab_plan import Plan
from engine.cli.ab_cases import Cases
from engine.core.comparing.telling import ArmPlanned, Planned
from engine.core.cpuset import CpuSet
from engine.core.layout import parse_layout
from engine.core.topology import Machine

TOLD = ("name", "engine", "model", "slot", "dtype", "weight_only", "weights")
"""Of each instance's wish, in the manifest: nothing that may hold a secret."""


def client_pus(machine: Machine, engines: CpuSet) -> frozenset[int] | None:
    """PUs that no engine of either arm uses, on cores of their own where there are such."""
    free = machine.pus.usable - engines
    alone = CpuSet(pu for core in machine.cores if not core.pus & engines for pu in core.pus)
    chosen = (free & alone) or free
    return frozenset(chosen) or None


def planned(
    cases: Cases,
    plans: Sequence[Plan],
    questions: Sequence[Asked],
    wanted: Sequence[int],
    asked: argparse.Namespace,
    file: Path,
) -> Planned:
    """The same for a program."""
    first = plans[0]
    arms = {}
    for pair, plan in zip(cases.pairs, plans, strict=True):
        for name, letter in zip(pair, "ab", strict=True):
            kept = cases.keep[name]
            names = {one.name for one in parse_layout(kept.text, name=kept.name).instances}
            arms[name] = ArmPlanned(
                name,
                tuple(f"{each} {place}" for each, place in plan.places[letter].items()),
                tuple(each for each in first.stops if each not in names),
            )
    blocks = [2 * (one.aa_pairs + one.design.pairs) for one in questions]
    notes = [cases.reason] if cases.reason else []
    for plan, question, streams in zip(plans, questions, wanted, strict=True):
        notes += [turn_lines(plan, question)[0], *load_lines(question, streams)]
    notes += [f"{name} does not run: it leaves the list" for name in first.dropped]
    most = asked.max_time
    return Planned(
        arms=tuple(arms[name] for name in cases.arms),
        comparisons=cases.pairs,
        stops=first.stops,
        losses=first.losses,
        notes=tuple(dict.fromkeys(notes)),
        starts=sum(
            count if question.restart else 2
            for count, question in zip(blocks, questions, strict=True)
        ),
        pairs=questions[0].design.pairs,
        aa_pairs=questions[0].aa_pairs,
        streams=questions[0].load.concurrency,
        most_s=None if most is None else most * len(plans),
        start_most_s=asked.timeout,
        file=str(file) if first.stops else "",
    )


def offer_lines(planned: Plan, asked: Asked, wanted: int) -> list[str]:
    """What will be done, before any of it is."""
    lines = []
    for letter, arm in (("A", asked.a), ("B", asked.b)):
        lines += [
            f"{letter} ({arm.name}): {name} {place}"
            for name, place in planned.places[letter.lower()].items()
        ]
    lines += turn_lines(planned, asked)
    lines += [f"{name} is stopped, and started again at the end" for name in planned.stops]
    lines += planned.losses
    lines += [f"{name} does not run: it leaves the list" for name in planned.dropped]
    return [*lines, *load_lines(asked, wanted)]


def turn_lines(planned: Plan, asked: Asked) -> list[str]:
    """How the arms share the machine."""
    lines = []
    if planned.both is not None:
        turns = "" if asked.restart else ": both stay loaded and take turns"
        lines.append(f"they fit side by side{turns}")
    else:
        lines.append(f"they do not fit side by side ({planned.why_apart}): one replaces the other")
    if asked.restart:
        starts = 2 * (asked.aa_pairs + asked.design.pairs)
        lines.append(f"every block gets engines of its own: at most {starts} starts")
    return lines


def load_lines(asked: Asked, wanted: int) -> list[str]:
    """What load there is, and where it comes from."""
    lines = []
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
