"""Reaching the instances that there are, without starting a service when there are none."""

import json
from collections.abc import Mapping

from engine.cli.text import note
from engine.client import ServiceClient, connect
from engine.core.errors import ControlError, ServiceUnreachable
from engine.host.paths import Paths


async def attach(environment: Mapping[str, str]) -> ServiceClient | None:
    """The service, started anew where a dead one left engines behind; None where nothing is."""
    try:
        return await connect(start=False, environment=environment, tell=note)
    except ServiceUnreachable:
        if not left_behind(environment):
            return None
        # Engines outlive the service: a new one adopts them.
        return await connect(environment=environment, tell=note)


def left_behind(environment: Mapping[str, str]) -> bool:
    """Whether the journal names instances; one that cannot be read is the service's to judge."""
    try:
        return bool(json.loads(Paths.of(environment).journal.read_bytes())["instances"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True


def no_instance(name: str) -> ControlError:
    """Asked for by name, and nothing runs at all."""
    return ControlError(
        what=f"There is no instance {name!r}",
        why="no service runs, and none has left an engine behind",
        do="Start some: `slotdeck up LAYOUT`",
    )
