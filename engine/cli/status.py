"""Show the instances: state, tokens per second, latencies, CPU, and where their pages are."""

import argparse
import asyncio
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from engine.cli.attach import left_behind
from engine.cli.text import DASH, folded, note, number, percent, print_json, size, table
from engine.client import connect
from engine.core.codec import to_builtins
from engine.core.errors import ServiceUnreachable
from engine.core.status import GpuStatus, InstanceStatus, Snapshot

_COLUMNS: tuple[tuple[str, str, Callable[[InstanceStatus], str]], ...] = (
    ("NAME", "", lambda one: one.name),
    ("STATE", "", lambda one: one.state.value),
    ("PU", "", lambda one: one.pus),
    ("OUT", "tok/s", lambda one: number(one.tokens_per_s.output)),
    ("IN", "tok/s", lambda one: number(one.tokens_per_s.prompt)),
    ("TTFT", "p50 ms", lambda one: number(one.ttft_ms.p50)),
    ("ITL", "p50 ms", lambda one: number(one.itl_ms.p50)),
    ("CPU", "cores", lambda one: number(one.cpu_cores_used, 2)),
    ("PAGES", "local", lambda one: percent(one.pages_local)),
    ("RSS", "", lambda one: size(one.rss_bytes)),
    ("PORT", "", lambda one: DASH if one.port is None else str(one.port)),
    ("URL", "", lambda one: one.url or DASH),
)
_LEAVE_OUT = ("URL", "PORT", "RSS", "IN", "CPU", "PAGES")
"""In this order, while the table is wider than the terminal; `--json` has everything."""
_BEYOND_CONTRACT = ("since_s",)
"""Of our own snapshots; a script has `started_at`."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("--json", action="store_true", help="print slotdeck.status/1")
    parser.add_argument("--watch", action="store_true", help="print again whenever it changes")


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the newest snapshot; with no service there are no instances."""
    try:
        tell = note if asked.watch else None
        client = await connect(start=False, environment=environment, tell=tell)
    except ServiceUnreachable:
        empty = Snapshot(sampled_at="", revision="", instances=(), numa_nodes=())
        if asked.json:
            print_json({**status_json(empty), "sampled_at": None})
        elif left_behind(environment):
            print("No service runs. An earlier one left instances: `slotdeck logs NAME`, `down`")
            print("and `up` start a service that adopts them; `slotdeck down --all` stops them.")
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


def status_text(snapshot: Snapshot, width: int | None = None) -> str:
    """A table with a unit in each heading, and below it the reasons of what is not well."""
    if not snapshot.instances:
        return "There are no instances. `slotdeck up LAYOUT` starts some."
    columns = width or shutil.get_terminal_size().columns
    left_out: set[str] = {"PORT"}
    text = _table(snapshot, left_out)
    for name in _LEAVE_OUT:
        if max(map(len, text.splitlines())) <= columns:
            break
        # Without the address there is room for its port, which is what one needs of it.
        left_out = (left_out | {name}) - ({"PORT"} if name == "URL" else set())
        text = _table(snapshot, left_out)
    lines = [text]
    for one in snapshot.instances:
        if one.state != "ready" or one.verified is False:
            lines += folded(f"{one.name}: {one.why}", columns, indent="  ")
    for gpu in snapshot.gpus:
        lines += folded(_gpu_text(gpu), columns, indent="  ")
        for what, why in (gpu.unknown | gpu.notes).items():
            lines += folded(f"  {what}: {why}", columns, indent="    ")
    return "\n".join(lines)


def _gpu_text(gpu: GpuStatus) -> str:
    """`GPU 0: 34 % busy, 4.1 GiB of 12.0 GiB, 41 W, 56 °C, 2400 MHz`."""
    parts = [
        f"{percent(gpu.busy)} busy",
        f"{size(gpu.memory_used_bytes)} of {size(gpu.memory_total_bytes)}",
        f"{number(gpu.power_w, 0)} W",
        f"{number(gpu.temperature_c, 0)} °C",
        f"{number(gpu.frequency_mhz, 0)} MHz",
    ]
    if gpu.throttle:
        parts.append(f"held down by {' and '.join(gpu.throttle)}")
    return f"GPU {gpu.index}: {', '.join(parts)}"


def _table(snapshot: Snapshot, left_out: set[str]) -> str:
    shown = [column for column in _COLUMNS if column[0] not in left_out]
    rows = [
        [unit for _, unit, _ in shown],
        *([value(one) for _, _, value in shown] for one in snapshot.instances),
    ]
    return table([heading for heading, _, _ in shown], rows, left=3)
