"""Measure instances or URLs under a fixed number of streams, or at a fixed rate of requests.

A target is an instance's name or a base URL such as http://127.0.0.1:8000. With --offline it is
a layout file, or LAYOUT:NAME, whose engine is measured alone: first token and next tokens.
"""

import argparse
import asyncio
import itertools
import math
import random
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from engine.bench.levels import joined
from engine.bench.outside.finding import TOOLS, find
from engine.bench.outside.running import Backend, run_outside
from engine.bench.prompt_file import read_prompts
from engine.bench.report import report_json
from engine.bench.report_text import report_text
from engine.bench.runner import run_blocking
from engine.bench.values import ARRIVALS, MAX_IN_FLIGHT, Load, Progress, Target
from engine.cli import bench_offline
from engine.cli.text import number, numbers, print_json
from engine.client import connect
from engine.core.cpuset import CpuSet
from engine.core.errors import ServiceUnreachable, UsageError
from engine.core.goodput import Limits
from engine.core.status import InstanceStatus, State
from engine.host.machine import read_machine
from engine.host.root import HostRoot

LIMITS = {
    "ttft": "the first token",
    "itl": "the longest gap of a request",
    "tpot": "the mean gap of a request",
    "e2e": "the whole answer",
}
_WHY_APART = {
    "rate": "with a rate as many streams are open as the engine lets pile up",
    "prompts": "the prompts of a file have lengths of their own",
}
_OURS_ONLY = {
    "prompts": "another load generator is given our made-up prompts only",
    "api_key_env": "other load generators take a key on their command line, where all can read it",
}
_APART = (("rate", "concurrency"), ("prompts", "input_len"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "targets", metavar="TARGET", nargs="+", help="an instance, a URL or a layout"
    )
    parser.add_argument("--model", help="the model's name at the targets; asked for if left out")
    parser.add_argument(
        "--concurrency", metavar="N,N", help="streams; several numbers in turn (1)"
    )
    parser.add_argument(
        "--rate",
        metavar="R,R",
        help="requests/s a target instead, sent on schedule whatever the engine does",
    )
    parser.add_argument(
        "--arrival", choices=ARRIVALS, help="with --rate: at random, or evenly spaced (poisson)"
    )
    parser.add_argument(
        "--max-in-flight",
        type=int,
        metavar="N",
        help=f"with --rate: requests under way at most ({MAX_IN_FLIGHT})",
    )
    parser.add_argument(
        "--prompts", metavar="FILE", help="prompts: JSON lines or ShareGPT (docs/bench.md)"
    )
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
        "--warmup", type=int, metavar="N", help="requests a target before them (1 a stream)"
    )
    for name, words in LIMITS.items():
        parser.add_argument(
            f"--{name}-ms", type=float, metavar="N", help=f"goodput: {words} is at most N ms"
        )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the prompts; a fresh one if left out"
    )
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="the variable that holds the targets' API key"
    )
    outside = parser.add_argument_group("with another load generator")
    outside.add_argument(
        "--backend", choices=tuple(TOOLS), help="have that one measure, and read its result"
    )
    outside.add_argument(
        "--backend-path", metavar="PATH", help="its program or its environment; else from PATH"
    )
    outside.add_argument(
        "--tokenizer", metavar="DIR", help="the model's folder; as the engine says if left out"
    )
    bench_offline.arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print slotdeck.bench/1, or slotdeck.offline/1"
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Measure and print; 1 when a target had nothing but errors."""
    bench_offline.check(asked)
    _check_backend(asked)
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
    loads = _loads(asked)
    prompts = None
    if asked.prompts is not None:
        prompts = read_prompts(Path(asked.prompts), loads[0].seed)
    instances = asyncio.run(_instances(environment))
    targets = _targets(asked.targets, instances, asked.model, api_key)
    # Ended like a person would: sockets close, so the engines drop what nobody waits for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watched = not asked.json and sys.stderr.isatty()
    pus = free_pus(instances)
    if asked.backend is not None:
        backend = _backend(asked, environment)
        say = _say if watched else _silent
        reports = [run_outside(backend, targets, one, client_pus=pus, say=say) for one in loads]
    else:
        show = _show if watched else None
        reports = [
            run_blocking(targets, one, on_progress=show, client_pus=pus, prompts=prompts)
            for one in loads
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


def _check_backend(asked: argparse.Namespace) -> None:
    needs = ("backend_path", "tokenizer")
    for name in needs if asked.backend is None else _OURS_ONLY:
        if getattr(asked, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                what=f"{flag} cannot be used",
                why="it is for another load generator"
                if asked.backend is None
                else _OURS_ONLY[name],
                do="Add --backend, or leave it out" if asked.backend is None else "Leave it out",
            )


def _loads(asked: argparse.Namespace) -> list[Load]:
    """One a level: each has prompts of its own, which no cache knows from the level before."""
    for name, other in _APART:
        if getattr(asked, name) is not None and getattr(asked, other) is not None:
            raise _refused(name, other, do="Leave one of them out")
    for name in ("arrival", "max_in_flight"):
        if getattr(asked, name) is not None and asked.rate is None:
            raise UsageError(
                what=f"--{name.replace('_', '-')} cannot be used",
                why="without --rate each stream sends when its last answer has ended",
                do="Add --rate R, or leave it out",
            )
    load = Load(
        input_len=64 if asked.input_len is None else asked.input_len,
        output_len=100 if asked.output_len is None else asked.output_len,
        duration_s=asked.duration if asked.duration or asked.requests else 10.0,
        requests=asked.requests,
        warmup_requests=asked.warmup,
        arrival=asked.arrival or ARRIVALS[0],
        max_in_flight=MAX_IN_FLIGHT if asked.max_in_flight is None else asked.max_in_flight,
        seed=fresh_seed() if asked.seed is None else asked.seed,
        limits=limits_of(asked),
    )
    seeds = itertools.count(load.seed)
    if asked.rate is not None:
        rates = numbers("--rate", asked.rate, float)
        return [replace(load, rate=rate, seed=next(seeds)) for rate in rates]
    streams = numbers("--concurrency", asked.concurrency or "1", int)
    return [replace(load, concurrency=one, seed=next(seeds)) for one in streams]


def limits_of(asked: argparse.Namespace) -> Limits:
    """What --ttft-ms and its like ask."""
    return Limits(**{f"{name}_s": _seconds(asked, name) for name in LIMITS})


def _seconds(asked: argparse.Namespace, name: str) -> float | None:
    limit: float | None = getattr(asked, f"{name}_ms")
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(
            what=f"--{name}-ms {limit:g} is no limit",
            why="no answer comes in no time",
            do="Give it some milliseconds",
        )
    return None if limit is None else limit / 1e3


def _refused(name: str, other: str, *, do: str) -> UsageError:
    flags = [f"--{one.replace('_', '-')}" for one in (name, other)]
    return UsageError(
        what=f"{flags[0]} and {flags[1]} do not go together", why=_WHY_APART[name], do=do
    )


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
