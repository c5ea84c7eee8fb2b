"""Instances of the service that hold PUs, or run in an engine's environment."""

from collections.abc import Mapping

from engine.client import connect
from engine.core.cpuset import CpuSet
from engine.core.errors import ServiceUnreachable
from engine.core.status import InstanceStatus, State
from engine.host.process import family, read_all
from engine.host.root import HostRoot

_LIVING = (State.STARTING, State.READY, State.STOPPING, State.BACKOFF)


async def held_pus(environment: Mapping[str, str]) -> dict[int, str]:
    """Who holds each PU that an instance of the service has."""
    taken: dict[int, str] = {}
    for one in await _living(environment):
        if one.pus:
            taken |= dict.fromkeys(CpuSet.parse(one.pus), one.name)
    return taken


async def wishing(
    name: str, using: Mapping[int, str], environment: Mapping[str, str]
) -> list[str]:
    """Instances that run in the environment, or will as soon as they are started again."""
    found = []
    processes = read_all(HostRoot())
    for one in await _living(environment):
        if one.engine != name:
            continue
        if one.pid is None or set(family(processes, [one.pid])) & set(using):
            found.append(one.name)
    return found


async def _living(environment: Mapping[str, str]) -> list[InstanceStatus]:
    """The service's instances; none where it does not run."""
    try:
        client = await connect(start=False, environment=environment)
        found = (await client.snapshot()).instances
    except ServiceUnreachable:
        return []
    return [one for one in found if one.state in _LIVING]
