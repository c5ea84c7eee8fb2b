"""Say what a layout would do on a machine: placements, reasons, refusals, exact commands."""

import argparse
from collections.abc import Mapping

from engine.cli import sources
from engine.cli.layouts import read_layout
from engine.cli.text import print_json, size
from engine.core.command import shell_line
from engine.core.layout import parse_layout
from engine.core.placement import Held
from engine.host.paths import Paths
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from engine.service.planning import LayoutPlan, Surroundings, plan_json, plan_layout


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("layout", metavar="LAYOUT", help="a layout file")
    sources.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print slotdeck.plan/1")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the plan; 3 when a placement is refused."""
    change = read_layout(asked.layout)
    machine = sources.machine(asked)
    layout = parse_layout(change.text, name=change.name)
    around = Surroundings(environment, Paths.of(environment).models)
    held = None
    if machine.live:
        taken = dict.fromkeys(listening_ports(HostRoot()), "a running program")
        named = {wish.port for wish in layout.instances}
        # A port that the layout names may be held by the very instance that it describes.
        held = Held({}, {port: who for port, who in taken.items() if port not in named})
    plan = plan_layout(machine, layout, around, base=change.base, held=held)
    if asked.json:
        print_json(plan_json(plan, layout=layout.name))
    else:
        print(describe(plan))
    return 3 if plan.refusals else 0


def describe(plan: LayoutPlan) -> str:
    """The plan in lines."""
    lines: list[str] = []
    for one in plan.planned:
        at, needs = one.placement, one.needs
        memory = f"{at.memory.policy} {at.memory.nodes}".strip()
        lines.append(f"{at.instance}: PU {at.pus}, memory {memory}, port {at.port}")
        lines += [f"  because {reason}" for reason in at.reasons]
        lines += [f"  warning: {warning}" for warning in at.warnings]
        lines.append(
            f"  needs {size(needs.weights_bytes)} weights, {size(needs.kv_bytes)} KV cache "
            "(one sequence of full length, unless max-num-seqs says more)"
        )
        lines.append(f"  {shell_line(one.command, at.pus, at.memory)}")
    for refusal in plan.refusals:
        lines.append(f"{refusal.instance}: REFUSED: {refusal.why}")
        lines.append(f"  do: {refusal.do}")
    return "\n".join(lines)
