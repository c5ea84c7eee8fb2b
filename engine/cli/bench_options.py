"""The options of `slotdeck bench`, which of them go together, and the load that they ask for."""

import argparse
import itertools
import math
import random
from dataclasses import replace

from engine.bench.outside.finding import TOOLS
from engine.bench.values import ARRIVALS, MAX_IN_FLIGHT, Load
from engine.cli.text import numbers
from engine.core.errors import UsageError
from engine.core.goodput import Limits

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
_APART = (("rate", "concurrency"), ("prompts", "input_len"))
_OUTSIDE_ONLY = ("backend_path", "tokenizer")
_ONLINE_ONLY = (
    *("model", "concurrency", "rate", "arrival", "max_in_flight", "prompts", "duration"),
    *("requests", "warmup", "ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "seed", "api_key_env"),
    *("backend", "backend_path", "tokenizer"),
)
_OFFLINE_ONLY = ("batch_size", "num_iter", "num_warmup")


def arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the verb."""
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
    offline = parser.add_argument_group("an engine alone, without HTTP")
    offline.add_argument(
        "--offline",
        action="store_true",
        help="TARGET is LAYOUT or LAYOUT:NAME; measure its engine alone",
    )
    offline.add_argument("--batch-size", metavar="N,N", help="prompts at once, each in turn (1)")
    offline.add_argument("--num-iter", type=int, metavar="N", help="measured iterations (20)")
    offline.add_argument("--num-warmup", type=int, metavar="N", help="iterations before them (3)")
    parser.add_argument(
        "--json", action="store_true", help="print slotdeck.bench/1, or slotdeck.offline/1"
    )


def check(asked: argparse.Namespace) -> None:
    """Options of another way of measuring are a mistake, not a wish to ignore."""
    for name in _ONLINE_ONLY if asked.offline else _OFFLINE_ONLY:
        if getattr(asked, name) is not None:
            flag = _flag(name)
            raise UsageError(
                what=f"{flag} and {'--offline' if asked.offline else 'a running engine'} "
                "do not go together",
                why=f"{flag} is for {'load over HTTP' if asked.offline else '--offline'} only",
                do=f"Leave {flag} out" if asked.offline else f"Leave {flag} out, or add --offline",
            )
    for name in _OUTSIDE_ONLY if asked.backend is None else ():
        if getattr(asked, name) is not None:
            raise UsageError(
                what=f"{_flag(name)} cannot be used",
                why="it is for another load generator",
                do="Add --backend, or leave it out",
            )
    for name, other in _APART:
        if getattr(asked, name) is not None and getattr(asked, other) is not None:
            raise UsageError(
                what=f"{_flag(name)} and {_flag(other)} do not go together",
                why=_WHY_APART[name],
                do="Leave one of them out",
            )
    for name in ("arrival", "max_in_flight"):
        if getattr(asked, name) is not None and asked.rate is None:
            raise UsageError(
                what=f"{_flag(name)} cannot be used",
                why="without --rate each stream sends when its last answer has ended",
                do="Add --rate R, or leave it out",
            )


def loads(asked: argparse.Namespace) -> list[Load]:
    """One a level: each has prompts of its own, which no cache knows from the level before."""
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


def fresh_seed() -> int:
    """Prompts that no engine has seen, or its prefix cache would answer; the manifest keeps it."""
    return random.SystemRandom().randrange(1 << 32)


def _seconds(asked: argparse.Namespace, name: str) -> float | None:
    limit: float | None = getattr(asked, f"{name}_ms")
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(
            what=f"--{name}-ms {limit:g} is no limit",
            why="no answer comes in no time",
            do="Give it some milliseconds",
        )
    return None if limit is None else limit / 1e3


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
