"""Measures the engine alone: a batch of prompts, then token after token, without HTTP."""

import json
import platform
import resource
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.worker import memory
from engine.worker.engine import kv_tokens, loaded_model
from engine.worker.errors import CannotServe
from engine.worker.kv_cache import Rows
from engine.worker.model import Model
from engine.worker.options import Offline, Options


def measure(options: Options, asked: Offline, *, say: Callable[[str], None]) -> None:
    """Writes what it found to the file that was asked for, as a whole or not at all."""
    began = time.monotonic()
    model = loaded_model(options)
    length = asked.input_len + asked.output_len
    if length > model.max_length:
        raise CannotServe(
            what=f"Cannot measure {asked.input_len} tokens in and {asked.output_len} out",
            why=f"the context is {model.max_length} tokens",
            do="Give a smaller --input-len or --output-len",
        )
    available = memory.available_bytes()
    kv_tokens(options, model, available)  # refuses what serving would refuse
    most = max(asked.batch_sizes)
    memory.require(
        most * length * model.kv_bytes_per_token,
        available,
        what=f"Cannot measure a batch of {most}",
        do="Give a smaller --batch-size",
    )
    seconds = time.monotonic() - began
    say(f"loaded in {seconds:.1f} s")
    batches = []
    for size in asked.batch_sizes:
        batches.append(_batch(model, asked, size))
        say(f"measured a batch of {size}")
    found = {"load_s": seconds, "engine": _engine(options, model), "batches": batches}
    fresh = asked.out.with_name(asked.out.name + ".new")
    fresh.write_text(json.dumps(found), encoding="utf-8")
    fresh.replace(asked.out)


def _batch(model: Model, asked: Offline, size: int) -> dict[str, Any]:
    cache = model.new_cache(max_rows=size, max_length=model.max_length)
    generator = torch.Generator().manual_seed(0)
    first: list[float] = []
    following: list[float] = []
    cpu = 0.0
    with torch.inference_mode():
        for number in range(asked.warmups + asked.iterations):
            prompts = torch.randint(model.vocabulary, (size, asked.input_len), generator=generator)
            cpu_before = time.process_time()
            times = _answer(model, cache, prompts, asked.output_len)
            if number >= asked.warmups:
                cpu += time.process_time() - cpu_before
                first.append(times[0])
                following += times[1:]
    return {
        "batch_size": size,
        "first_token_s": first,
        "next_token_s": following,
        "cpu_s": cpu,
        "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _answer(model: Model, cache: Rows, prompts: torch.Tensor, count: int) -> list[float]:
    """Seconds of each greedy step: all prompts at once, then one token of each a step."""
    size, length = prompts.shape
    cache.lengths.clear()
    for _ in range(size):
        cache.add_row()
    times = []
    tokens, places = prompts, torch.arange(length).expand(size, length)
    for number in range(count):
        begun = time.perf_counter()
        cache.aim(0, size, tokens.shape[1])
        logits = model.logits(tokens, places, None, cache)
        cache.advance()
        tokens = logits.max(dim=-1, keepdim=True).indices
        tokens.tolist()  # what a server would wait for
        times.append(time.perf_counter() - begun)
        places = torch.full((size, 1), length + number)
    return times


def _engine(options: Options, model: Model) -> dict[str, Any]:
    return {
        "engine": options.engine,
        "model": options.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "weight_only": options.weight_only,
        "products": model.products or None,
        "path": model.path,
        "path_reason": model.path_reason or None,
        "load_format": options.load_format,
        "threads": options.threads,
        "isa": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "ipex": _release("intel_extension_for_pytorch") if options.engine == "ipex" else None,
        "affinity": _status("Cpus_allowed_list"),
        "weights_bytes": model.weights_bytes,
        "token_read_bytes": model.token_read_bytes,
    }


def _release(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _status(name: str) -> str | None:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None
