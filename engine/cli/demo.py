"""Start the demonstration layout on the bundled model, put load on it, and open the panel.

Without a terminal it does the same headless: measures, prints one table, and stops the engines.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping

from engine.bench.runner import run as measure
from engine.bench.values import Load, Report, Target
from engine.cli import models
from engine.cli.bench import free_pus
from engine.cli.bench_options import fresh_seed
from engine.cli.layouts import checked, read_layout, shipped
from engine.cli.main import open_panel
from engine.cli.text import number, percent, table
from engine.cli.up import bring_up, wait_ready
from engine.client import ServiceClient, connect
from engine.control import StartLoad, StopInstances
from engine.core.errors import ControlError, UsageError
from engine.core.layout import Layout
from engine.core.status import Snapshot
from engine.host.paths import Paths

_READY_WITHIN_S = 600.0
_HEADER = (
    *("INSTANCE", "PU", "MEMORY", "OUT tokens/s", "TTFT ms", "ITL ms", "CPU cores"),
    *("PAGES local", "REQUESTS"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "--headless", action="store_true", help="no panel, as when there is no terminal"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="to measure without a panel (10)"
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Prepare the model, start, load, show."""
    if not 0 < asked.seconds < 1e6:
        raise UsageError(
            what=f"--seconds {asked.seconds:g} is no time to measure",
            why="it has to be more than 0 and less than a million",
            do="Leave it out for 10 s",
        )
    models.prepare("smollm2-135m", Paths.of(environment).models)
    headless = asked.headless or not (sys.stdin.isatty() and sys.stdout.isatty())
    asyncio.run(_start(environment, headless=headless, seconds=asked.seconds))
    if not headless:
        open_panel([])
    return 0


async def _start(environment: Mapping[str, str], *, headless: bool, seconds: float) -> None:
    change = read_layout(str(shipped("demo.toml")))
    layout = checked(change)
    client = await connect(environment=environment)
    offer = await client.offer(change)
    if others := (*offer.stops, *(one.instance for one in offer.moves)):
        raise ControlError(
            what="The demonstration was not started",
            why=f"it would take the place of: {', '.join(others)}",
            do="Stop them first (`slotdeck down NAME`), or show them with `slotdeck`",
        )
    ready = await bring_up(client, change, timeout_s=_READY_WITHIN_S)
    if headless:
        try:
            await _measure(client, layout, ready, seconds)
        finally:
            await _stop(client, tuple(one.name for one in ready.instances))
        return
    names = tuple(one.name for one in ready.instances)
    load = layout.load
    await client.apply(
        await client.offer(StartLoad(names, load.concurrency, load.input_len, load.output_len))
    )


async def _measure(client: ServiceClient, layout: Layout, ready: Snapshot, seconds: float) -> None:
    load = Load(
        concurrency=layout.load.concurrency,
        input_len=layout.load.input_len,
        output_len=layout.load.output_len,
        duration_s=seconds,
        seed=fresh_seed(),
    )
    targets = [Target(one.name, one.url) for one in ready.instances if one.url]
    print(f"measuring for {seconds:g} s …", file=sys.stderr)
    report = await measure(targets, load, client_pus=free_pus(ready.instances))
    print(describe(report, await client.snapshot()))


def describe(report: Report, snapshot: Snapshot) -> str:
    """One table: what each pinned engine did, and what it used."""
    seen = {one.name: one for one in snapshot.instances}
    rows = [
        (
            target.name,
            seen[target.name].pus,
            f"{seen[target.name].memory.policy} {seen[target.name].memory.nodes}",
            number(target.output_tokens_per_s),
            number(_ms(target.ttft.mean)),
            number(_ms(target.itl.mean)),
            number(seen[target.name].cpu_cores_used, 2),
            percent(seen[target.name].pages_local),
            str(target.requests),
        )
        for target in report.targets
    ]
    limited = "the load generator was a limit: it shares their cores" * report.client.limited
    return "\n".join(
        [
            table(_HEADER, rows, left=3),
            "",
            "TTFT: request sent to first token. ITL: gap between tokens. Both are means in",
            "milliseconds, less is better; OUT is of one stream, more is better. PAGES: share of",
            "sampled memory pages that lie on the NUMA node asked for.",
            *([limited] if limited else []),
        ]
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


async def _stop(client: ServiceClient, names: tuple[str, ...]) -> None:
    await client.apply(await client.offer(StopInstances(names, forget=True)))
    await wait_ready(client, (), gone=names, timeout_s=_READY_WITHIN_S)
    print("stopped the demonstration's engines", file=sys.stderr)
