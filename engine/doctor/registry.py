"""All checks, in the order in which they are told: processors, memory, what we may, cards."""

from collections.abc import Callable

from engine.core.checks import Check
from engine.doctor import (
    allowed,
    clock_source,
    cpu_clock,
    cpu_limit,
    cpu_throttle,
    delegation,
    gpu_access,
    gpu_bar,
    gpu_clock,
    gpu_driver,
    gpu_link,
    gpu_node,
    gpu_throttle,
    group_limits,
    huge_pages,
    instructions,
    isolated_cores,
    logout,
    memory_modules,
    memory_policy,
    numa_balancing,
    numa_nodes,
    overcommit,
    power_cap,
    shared_memory,
    swap,
    turbo,
)
from engine.doctor.host import Host

CHECKS: tuple[Callable[[Host], Check | None], ...] = (
    instructions.check,
    cpu_clock.check,
    cpu_limit.check,
    turbo.check,
    cpu_throttle.check,
    power_cap.check,
    clock_source.check,
    isolated_cores.check,
    numa_nodes.check,
    numa_balancing.check,
    memory_modules.check,
    huge_pages.check,
    swap.check,
    overcommit.check,
    allowed.check,
    group_limits.check,
    memory_policy.check,
    delegation.check,
    logout.check,
    shared_memory.check,
    gpu_driver.check,
    gpu_access.check,
    gpu_bar.check,
    gpu_link.check,
    gpu_node.check,
    gpu_clock.check,
    gpu_throttle.check,
)


def examine(host: Host) -> tuple[Check, ...]:
    """What every check finds; one that is about something this machine has not says nothing."""
    return tuple(found for check in CHECKS if (found := check(host)) is not None)
