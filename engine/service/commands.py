"""How an instance is started, in words: its command line, each part with who asked for it."""

from engine.control import CommandLine
from engine.core.command import explain, shell_line
from engine.core.topology import Machine
from engine.service.managed import Managed
from engine.service.orders import Surroundings, order_of


def command_line(one: Managed, machine: Machine, around: Surroundings) -> CommandLine:
    """As it was started, and would be again; made anew, since what runs keeps no sources."""
    at = one.at
    planned = order_of(at.wish, at.placement, machine, around, base=one.base)
    command, placement = planned.command, planned.placement
    line = shell_line(command, placement.pus, placement.memory, placement.limits)
    return CommandLine(line, tuple(explain(command)))
