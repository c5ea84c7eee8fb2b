"""What is on this machine already, for verbs that plan without the service."""

from collections.abc import Mapping

from engine.client import connect
from engine.core.errors import ServiceUnreachable
from engine.core.layout import Layout
from engine.core.placing.held import Held
from engine.core.topology import Machine
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from engine.service.neighbours import free_memory, strangers_on


async def held_here(
    layout: Layout, machine: Machine, environment: Mapping[str, str]
) -> Held | None:
    """Ports of other programs, those that our running instances would keep, strangers, and free
    memory; None for a machine that is not this one."""
    if not machine.live:
        return None
    try:
        client = await connect(start=False, environment=environment)
        running = [one for one in (await client.snapshot()).instances if one.pid and one.port]
    except ServiceUnreachable:
        running = []
    ours = {one.name: one.port for one in running if one.port}
    named = {wish.port for wish in layout.instances}
    root = HostRoot()
    # A port that the layout names may be held by the very instance that it describes.
    taken = listening_ports(root) - set(ours.values()) - named
    return Held(
        pus={},
        ports=dict.fromkeys(taken, "a running program"),
        preferred_ports=ours,
        strangers=strangers_on(root, machine),
        # What our own instances hold would be free again: only without them is it known.
        free_bytes={} if running else free_memory(root),
    )
