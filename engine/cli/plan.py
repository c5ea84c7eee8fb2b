"""Say what a layout would do on a machine: placements, reasons, refusals, exact commands.

With --advise MODEL instead of a layout: propose layouts for this machine, in order, with reasons.
"""

import argparse
import asyncio
import shutil
from collections.abc import Mapping

from engine.cli import advise, sources
from engine.cli.held import held_here
from engine.cli.layouts import checked, read_layout
from engine.cli.text import folded, print_json, shell_lines, size
from engine.core.command import explain, shell_words
from engine.core.cpuset import CpuSet
from engine.core.placement import Placement
from engine.host.paths import Paths
from engine.service.orders import Planned, Surroundings
from engine.service.planning import LayoutPlan, plan_json, plan_layout


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("layout", metavar="LAYOUT", nargs="?", help="a layout file")
    sources.arguments(parser)
    parser.add_argument(
        "--explain", action="store_true", help="tell who asked for each flag and variable"
    )
    parser.add_argument(
        "--json", action="store_true", help="print slotdeck.plan/1, or slotdeck.advice/1"
    )
    advise.arguments(parser)


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the plan; 3 when a placement is refused. With --advise, propose layouts."""
    if advise.wanted(asked):
        return advise.run(asked, environment)
    change = read_layout(asked.layout)
    layout = checked(change)
    machine = sources.machine(asked)
    around = Surroundings(environment, Paths.of(environment).models)
    held = asyncio.run(held_here(layout, machine, environment))
    plan = plan_layout(machine, layout, around, base=change.base, held=held)
    if asked.json:
        print_json(plan_json(plan, layout=layout.name, explained=asked.explain))
    else:
        columns = shutil.get_terminal_size().columns
        print(describe(plan, columns, explained=asked.explain))
    return 3 if plan.refusals else 0


def describe(plan: LayoutPlan, width: int = 80, *, explained: bool = False) -> str:
    """The plan in lines; the command may be copied into a shell as it stands."""
    lines: list[str] = []
    for one in plan.planned:
        at = one.placement
        lines += [*_gap(lines), *folded(_headline(at), width, indent="  ")]
        for reason in at.reasons:
            lines += folded(f"  because {reason}", width, indent="    ")
        for warning in at.warnings:
            lines += folded(f"  warning: {warning}", width, indent="    ")
        for line in _needs(one, explained=explained):
            lines += folded(f"  {line}", width, indent="    ")
        words = shell_words(one.command, at.pus, at.memory, at.limits)
        lines += shell_lines(words, width, indent="  ")
        if explained:
            lines += _explained(one, width)
    for refusal in plan.refusals:
        lines += _gap(lines)
        lines += folded(f"{refusal.instance}: REFUSED: {refusal.why}", width, indent="  ")
        lines += folded(f"  do: {refusal.do}", width, indent="    ")
    return "\n".join(lines)


def _gap(lines: list[str]) -> list[str]:
    return [""] if lines else []


def _headline(at: Placement) -> str:
    memory = f"{at.memory.policy} {at.memory.nodes}".strip()
    gpus = f", GPU {CpuSet(at.gpus)}" if at.gpus else ""
    return f"{at.instance}: PU {at.pus}{gpus}, memory {memory}, port {at.port}"


def _needs(one: Planned, *, explained: bool) -> list[str]:
    needs = one.needs
    if needs.weights_bytes is None and needs.kv_bytes is None:
        nothing = "needs – (sizes unknown: the model's files are not here, or not of a known form)"
        return [nothing, *(needs.notes if explained else ())]
    many = "one sequence" if needs.sequences == 1 else f"{needs.sequences} sequences"
    length = f" of {needs.context:,} tokens" if needs.context else ""
    whole = (
        f"needs {size(needs.total_bytes)}: {size(needs.weights_bytes)} weights, "
        f"{size(needs.kv_bytes)} KV cache for {many}{length}, "
        f"{size(needs.runtime_bytes)} runtime (an estimate)"
    )
    if needs.tensor_parallel > 1:
        whole += f"; {size(needs.per_device_bytes)} on each of {needs.tensor_parallel}"
    why = needs.notes if explained or needs.total_bytes is None else ()
    return [whole, *([needs.rule] if needs.rule else []), *why]


def _explained(one: Planned, width: int) -> list[str]:
    lines = ["  where each part comes from:"]
    for row in explain(one.command):
        named = f"{row.name}={row.value}" if row.kind == "variable" else f"{row.name} {row.value}"
        lines += folded(f"    {named.strip()}  ← {row.source}", width, indent="        ")
    return lines
