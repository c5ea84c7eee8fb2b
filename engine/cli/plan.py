"""Say what a layout would do on a machine: placements, reasons, refusals, exact commands."""

import argparse
import asyncio
import shutil
from collections.abc import Mapping

from engine.cli import sources
from engine.cli.layouts import checked, read_layout
from engine.cli.text import folded, print_json, shell_lines, size
from engine.client import connect
from engine.core.command import shell_words
from engine.core.cpuset import CpuSet
from engine.core.errors import ServiceUnreachable
from engine.core.held import Held
from engine.core.layout import Layout
from engine.core.placement import Placement
from engine.host.paths import Paths
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from engine.service.planning import LayoutPlan, Planned, Surroundings, plan_json, plan_layout


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("layout", metavar="LAYOUT", help="a layout file")
    sources.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print slotdeck.plan/1")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the plan; 3 when a placement is refused."""
    change = read_layout(asked.layout)
    layout = checked(change)
    machine = sources.machine(asked)
    around = Surroundings(environment, Paths.of(environment).models)
    held = asyncio.run(_held(layout, environment)) if machine.live else None
    plan = plan_layout(machine, layout, around, base=change.base, held=held)
    if asked.json:
        print_json(plan_json(plan, layout=layout.name))
    else:
        print(describe(plan, shutil.get_terminal_size().columns))
    return 3 if plan.refusals else 0


async def _held(layout: Layout, environment: Mapping[str, str]) -> Held:
    """Ports of other programs, and those that our running instances would keep."""
    try:
        client = await connect(start=False, environment=environment)
        running = [one for one in (await client.snapshot()).instances if one.pid and one.port]
    except ServiceUnreachable:
        running = []
    ours = {one.name: one.port for one in running if one.port}
    named = {wish.port for wish in layout.instances}
    # A port that the layout names may be held by the very instance that it describes.
    taken = listening_ports(HostRoot()) - set(ours.values()) - named
    return Held({}, dict.fromkeys(taken, "a running program"), ours)


def describe(plan: LayoutPlan, width: int = 80) -> str:
    """The plan in lines; the command may be copied into a shell as it stands."""
    lines: list[str] = []
    for one in plan.planned:
        at = one.placement
        lines += [*_gap(lines), *folded(_headline(at), width, indent="  ")]
        for reason in at.reasons:
            lines += folded(f"  because {reason}", width, indent="    ")
        for warning in at.warnings:
            lines += folded(f"  warning: {warning}", width, indent="    ")
        lines += folded(f"  needs {_needs(one)}", width, indent="    ")
        lines += shell_lines(shell_words(one.command, at.pus, at.memory), width, indent="  ")
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


def _needs(one: Planned) -> str:
    needs = one.needs
    if needs.weights_bytes is None and needs.kv_bytes is None:
        return "– (sizes unknown: the model's files are not here, or not of a known form)"
    sequences = one.wish.args.get("max-num-seqs", 1)
    what = "one sequence" if sequences == 1 else f"{sequences} sequences"
    return (
        f"{size(needs.weights_bytes)} weights, {size(needs.kv_bytes)} KV cache for {what} of "
        "full length"
    )
