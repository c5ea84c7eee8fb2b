"""Measure instances or URLs under a fixed number of streams, or at a fixed rate of requests.

A target is an instance's name or a base URL such as http://127.0.0.1:8000. With --offline it is
a layout file, or LAYOUT:NAME, whose engine is measured alone: first token and next tokens.
"""

import argparse
import asyncio
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.bench.levels import joined
from engine.bench.outside.finding import TOOLS, find
from engine.bench.outside.running import Backend, run_outside
from engine.bench.prompt_file import read_prompts
from engine.bench.report import report_json
from engine.bench.report_text import report_text
from engine.bench.runner import run_blocking
from engine.bench.values import Progress, Target
from engine.cli.bench_options import arguments, check, loads
from engine.cli.text import number, print_json
from engine.client import connect
from engine.core.cpuset import CpuSet
from engine.core.errors import ServiceUnreachable, UsageError
from engine.core.status import InstanceStatus, State
from engine.host.machine import read_machine
from engine.host.root import HostRoot

__all__ = ["arguments", "free_pus", "run"]


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Measure and print; 1 when a target had nothing but errors."""
    check(asked)
    if asked.offline:
        from engine.cli import bench_offline  # as long to load as all the rest

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
    levels = loads(asked)
    prompts = None
    if asked.prompts is not None:
        prompts = read_prompts(Path(asked.prompts), levels[0].seed)
    instances = asyncio.run(_instances(environment))
    targets = _targets(asked.targets, instances, asked.model, api_key)
    # Ended like a person would: sockets close, so the engines drop what nobody waits for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watched = not asked.json and sys.stderr.isatty()
    pus = free_pus(instances)
    if asked.backend is not None:
        backend = _backend(asked, environment)
        say = _say if watched else _silent
        reports = [
            run_outside(backend, targets, one, client_pus=pus, prompts=prompts, say=say)
            for one in levels
        ]
    else:
        show = _show if watched else None
        reports = [
            run_blocking(targets, one, on_progress=show, client_pus=pus, prompts=prompts)
            for one in levels
        ]
    report = joined(reports)
    if asked.json:
        print_json(report_json(report))
    else:
        print(report_text(report, shutil.get_terminal_size().columns))
    return 1 if any(not one.requests and one.errors for one in report.targets) else 0


def _backend(asked: argparse.Namespace, environment: Mapping[str, str]) -> Backend:
    tool = TOOLS[asked.backend]
    return Backend(tool, find(tool, asked.backend_path, environment), environment, asked.tokenizer)


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    """Nobody watches."""


def _show(progress: Progress) -> None:
    rates = "  ".join(
        f"{one.name} {number(one.tokens_per_s)} tok/s, {one.finished} requests"
        + (f", {one.errors} errors" if one.errors else "")
        for one in progress.targets
    )
    print(f"\r\x1b[K{progress.phase} {progress.elapsed_s:.0f} s  {rates}", end="", file=sys.stderr)
