"""Measure instances or URLs under a fixed number of concurrent streams.

A target is an instance's name or a base URL such as http://127.0.0.1:8000. With --offline it is
a layout file, or LAYOUT:NAME, whose engine is measured alone: first token and next tokens.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence

from engine.bench.report import report_json, report_text
from engine.bench.runner import run_blocking
from engine.bench.values import Load, Progress, Target
from engine.cli import bench_offline
from engine.cli.text import number, print_json
from engine.client import connect
from engine.core.cpuset import CpuSet
from engine.core.errors import ServiceUnreachable, UsageError
from engine.core.status import InstanceStatus, State
from engine.host.machine import read_machine
from engine.host.root import HostRoot


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "targets", metavar="TARGET", nargs="+", help="an instance, a URL or a layout"
    )
    parser.add_argument("--model", help="the model's name at the targets; asked for if left out")
    parser.add_argument("--concurrency", type=int, metavar="N", help="streams (1)")
    parser.add_argument(
        "--input-len", type=int, metavar="N", help="prompt tokens (about 64; 32 with --offline)"
    )
    parser.add_argument(
        "--output-len", type=int, metavar="N", help="output tokens (100; 32 with --offline)"
    )
    parser.add_argument(
        "--duration", type=float, metavar="S", help="seconds of the measured window (10)"
    )
    parser.add_argument("--requests", type=int, metavar="N", help="measured requests a target")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the prompts; a fresh one if left out"
    )
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="the variable that holds the targets' API key"
    )
    bench_offline.arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print slotdeck.bench/1, or slotdeck.offline/1"
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Measure and print; 1 when a target had nothing but errors."""
    bench_offline.check(asked)
    if asked.offline:
        return bench_offline.run(asked, environment)
    api_key = None
    if asked.api_key_env:
        api_key = environment.get(asked.api_key_env)
        if not api_key:
            raise UsageError(
                what="There is no API key",
                why=f"the variable {asked.api_key_env} is not set",
                do="Set it, or leave --api-key-env out",
            )
    duration = asked.duration if asked.duration or asked.requests else 10.0
    load = Load(
        concurrency=1 if asked.concurrency is None else asked.concurrency,
        input_len=64 if asked.input_len is None else asked.input_len,
        output_len=100 if asked.output_len is None else asked.output_len,
        duration_s=duration,
        requests=asked.requests,
        seed=fresh_seed() if asked.seed is None else asked.seed,
    )
    instances = asyncio.run(_instances(environment))
    targets = _targets(asked.targets, instances, asked.model, api_key)
    # Ended like a person would: sockets close, so the engines drop what nobody waits for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = run_blocking(
        targets,
        load,
        on_progress=None if asked.json or not sys.stderr.isatty() else _show,
        client_pus=free_pus(instances),
    )
    if asked.json:
        print_json(report_json(report))
    else:
        print(report_text(report, shutil.get_terminal_size().columns))
    return 1 if any(not one.requests and one.errors for one in report.targets) else 0


def fresh_seed() -> int:
    """Prompts that no engine has seen, or its prefix cache would answer; the manifest keeps it."""
    return random.SystemRandom().randrange(1 << 32)


async def _instances(environment: Mapping[str, str]) -> tuple[InstanceStatus, ...]:
    try:
        client = await connect(start=False, environment=environment)
    except ServiceUnreachable:
        return ()
    return (await client.snapshot()).instances


def _targets(
    words: Sequence[str],
    instances: tuple[InstanceStatus, ...],
    model: str | None,
    api_key: str | None,
) -> list[Target]:
    known = {one.name: one for one in instances}
    targets = []
    for word in words:
        if word.startswith(("http://", "https://")):
            targets.append(Target(word, word.rstrip("/"), model, api_key))
            continue
        one = known.get(word)
        if one is None or one.url is None:
            raise UsageError(
                what=f"There is no instance {word!r}",
                why=f"the service knows: {', '.join(known) or 'none'}",
                do="Name an instance of `slotdeck status`, or a URL like http://127.0.0.1:8000",
            )
        if one.state is not State.READY:
            raise UsageError(
                what=f"{word} cannot be measured",
                why=f"it is {one.state}: {one.why}",
                do="Wait until it is ready",
            )
        targets.append(Target(word, one.url, model, api_key))
    return targets


def free_pus(instances: tuple[InstanceStatus, ...]) -> frozenset[int] | None:
    """PUs that no engine holds; None when there are none, and the report says who was limited."""
    usable = read_machine(HostRoot()).pus.usable
    for one in instances:
        if one.pid is not None:
            usable = usable - CpuSet.parse(one.pus)
    return usable.pus or None


def _show(progress: Progress) -> None:
    rates = "  ".join(
        f"{one.name} {number(one.tokens_per_s)} tok/s, {one.finished} requests"
        + (f", {one.errors} errors" if one.errors else "")
        for one in progress.targets
    )
    print(f"\r\x1b[K{progress.phase} {progress.elapsed_s:.0f} s  {rates}", end="", file=sys.stderr)
