"""Show the instances: state, tokens per second, latencies, CPU, and where their pages are."""

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any

from engine.cli.text import DASH, number, percent, print_json, size, table
from engine.client import connect
from engine.core.codec import to_builtins
from engine.core.errors import ServiceUnreachable
from engine.core.status import InstanceStatus, Snapshot

_HEADER = (
    *("NAME", "STATE", "PU", "OUT tok/s", "IN tok/s", "TTFT p50 ms", "ITL p50 ms"),
    *("CPU cores", "PAGES local", "RSS", "URL"),
)
_BEYOND_CONTRACT = ("since_s",)
"""Of our own snapshots; a script has `started_at`."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("--json", action="store_true", help="print slotdeck.status/1")
    parser.add_argument("--watch", action="store_true", help="print again whenever it changes")


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the newest snapshot; with no service there are no instances."""
    try:
        client = await connect(start=False, environment=environment)
    except ServiceUnreachable:
        empty = Snapshot(sampled_at="", revision="", instances=(), numa_nodes=())
        if asked.json:
            print_json({**status_json(empty), "sampled_at": None})
        else:
            print("No service runs, so there are no instances. `slotdeck up LAYOUT` starts some.")
        return 0
    if not asked.watch:
        _show(await client.snapshot(), as_json=asked.json)
        return 0
    async for snapshot in client.snapshots():
        _show(snapshot, as_json=asked.json)
        if not asked.json:
            print(flush=True)
        await asyncio.sleep(0)
    raise ServiceUnreachable(
        what="The service has ended", why="it closed the connection", do="Engines go on"
    )


def _show(snapshot: Snapshot, *, as_json: bool) -> None:
    if as_json:
        print_json(status_json(snapshot))
    else:
        print(status_text(snapshot))


def status_json(snapshot: Snapshot) -> dict[str, Any]:
    """`slotdeck.status/1`."""
    values = to_builtins(snapshot)
    return {
        "schema": "slotdeck.status/1",
        "instances": [
            {key: value for key, value in instance.items() if key not in _BEYOND_CONTRACT}
            for instance in values["instances"]
        ],
        "numa_nodes": values["numa_nodes"],
        "gpus": values["gpus"],
        "sampled_at": values["sampled_at"],
    }


def status_text(snapshot: Snapshot) -> str:
    """A table with a unit in each heading, and below it the reasons of what is not well."""
    if not snapshot.instances:
        return "There are no instances. `slotdeck up LAYOUT` starts some."
    lines = [table(_HEADER, [_row(one) for one in snapshot.instances], left=3)]
    lines += [
        f"{one.name}: {one.why}"
        for one in snapshot.instances
        if one.state != "ready" or one.verified is False
    ]
    return "\n".join(lines)


def _row(one: InstanceStatus) -> tuple[str, ...]:
    return (
        one.name,
        one.state.value,
        one.pus,
        number(one.tokens_per_s.output),
        number(one.tokens_per_s.prompt),
        number(one.ttft_ms.p50),
        number(one.itl_ms.p50),
        number(one.cpu_cores_used, 2),
        percent(one.pages_local),
        size(one.rss_bytes),
        one.url or DASH,
    )
