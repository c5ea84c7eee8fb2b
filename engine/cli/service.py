"""Look after the background service: is it there, end it (engines go on), what did it say."""

import argparse
from collections.abc import Mapping

from engine.client import connect
from engine.core.errors import ServiceUnreachable
from engine.host.paths import Paths
from engine.starting import end_service


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("what", choices=("status", "stop", "log"))


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Tell, end, or print."""
    paths = Paths.of(environment)
    if asked.what == "log":
        if paths.service_log.exists():
            print(paths.service_log.read_text(errors="replace"), end="")
        return 0
    try:
        client = await connect(start=False, environment=environment)
    except ServiceUnreachable:
        print("No service runs.")
        return 0
    try:
        snapshot = await client.snapshot()
    except ServiceUnreachable as error:
        if asked.what != "stop":
            raise
        # One that cannot be understood is the very one that has to be ended.
        end_service(paths)
        print(f"stopped the service; its engines go on ({error.what}: {error.why})")
        return 0
    running = [one.name for one in snapshot.instances if one.pid]
    if asked.what == "stop":
        await client.stop_service()
        print(f"stopped the service; it leaves running: {', '.join(running) or 'nothing'}")
        return 0
    print(
        f"slotdeck {snapshot.service_version}, pid {snapshot.service_pid}, socket {paths.socket}, "
        f"running: {', '.join(running) or 'nothing'}"
    )
    for happening in snapshot.happenings:
        print(f"{happening.at} {happening.severity}: {happening.text}")
    return 0
