"""The worker's command line, and what can be checked about it before anything heavy is loaded."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

from engine.worker.errors import CannotServe

ENGINES = ("torch", "ipex")
DTYPES = ("auto", "float32", "bfloat16", "float16")
WEIGHT_ONLY = ("none", "int8", "int4")
LOAD_FORMATS = ("auto", "dummy")


@dataclass(frozen=True)
class Options:
    model: Path
    name: str
    host: str
    port: int
    engine: str
    dtype: str
    weight_only: str
    max_model_len: int | None
    """None: as long as the model allows."""
    max_num_seqs: int
    max_waiting: int
    load_format: str
    kv_cache_bytes: int | None
    """None: as much as all sequences may need, or as there is."""
    prefix_caching: bool
    threads: int
    grace_s: float
    trust_remote_code: bool
    api_key: str | None = None
    offline: "Offline | None" = None
    """Measure and end, instead of serving."""


@dataclass(frozen=True)
class Offline:
    """What to measure: a batch of prompts of one length, each with the same number of tokens."""

    out: Path
    batch_sizes: tuple[int, ...]
    input_len: int
    output_len: int
    iterations: int
    warmups: int


def parse(argv: list[str], *, api_key: str | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python engine/worker", description="Serves one model over HTTP with OpenAI's API."
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--served-model-name", metavar="NAME", help="default: DIR's own name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one")
    parser.add_argument("--engine", choices=ENGINES, default="torch")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--weight-only", choices=WEIGHT_ONLY, default="none")
    parser.add_argument("--max-model-len", type=_count, metavar="N")
    parser.add_argument("--max-num-seqs", type=_count, default=16, metavar="N")
    parser.add_argument(
        "--max-waiting",
        type=_number,
        default=1024,
        metavar="N",
        help="prompts that may wait for a place; the next one gets HTTP 503 (1024)",
    )
    parser.add_argument(
        "--load-format",
        choices=LOAD_FORMATS,
        default="auto",
        help="dummy: random weights, made from config.json alone",
    )
    parser.add_argument(
        "--kv-cache-memory-bytes",
        type=_count,
        metavar="BYTES",
        help="default: what --max-num-seqs contexts take, or as much as is free",
    )
    parser.add_argument(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="reuse what a prompt has in common with an earlier one",
    )
    parser.add_argument("--threads", type=_count, metavar="N", help="default: the usable PUs")
    parser.add_argument("--grace-s", type=_seconds, default=10.0, metavar="S")
    parser.add_argument("--trust-remote-code", action="store_true")
    measure = parser.add_argument_group("measuring without HTTP")
    measure.add_argument("--offline", type=Path, metavar="OUT.json", help="measure, write, end")
    measure.add_argument("--batch-size", type=_counts, default=(1,), metavar="N,N")
    measure.add_argument("--input-len", type=_count, default=32, metavar="N")
    measure.add_argument("--output-len", type=_count, default=32, metavar="N")
    measure.add_argument("--num-iter", type=_count, default=20, metavar="N")
    measure.add_argument("--num-warmup", type=_number, default=3, metavar="N")
    asked = parser.parse_args(argv)
    if asked.weight_only == "int4" and asked.engine != "ipex":
        parser.error("--weight-only int4 is of --engine ipex only")
    offline = None
    if asked.offline is not None:
        offline = Offline(
            out=asked.offline,
            batch_sizes=asked.batch_size,
            input_len=asked.input_len,
            output_len=asked.output_len,
            iterations=asked.num_iter,
            warmups=asked.num_warmup,
        )
    return Options(
        model=asked.model,
        name=asked.served_model_name or asked.model.resolve().name,
        host=asked.host,
        port=asked.port,
        engine=asked.engine,
        dtype=asked.dtype,
        weight_only=asked.weight_only,
        max_model_len=asked.max_model_len,
        max_num_seqs=asked.max_num_seqs,
        max_waiting=asked.max_waiting,
        load_format=asked.load_format,
        kv_cache_bytes=asked.kv_cache_memory_bytes,
        prefix_caching=asked.enable_prefix_caching,
        threads=asked.threads or len(os.sched_getaffinity(0)),
        grace_s=asked.grace_s,
        trust_remote_code=asked.trust_remote_code,
        api_key=api_key or None,
        offline=offline,
    )


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(word) for word in text.split(","))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)


def check_model_files(folder: Path, *, dummy: bool = False) -> None:
    """Says what is missing now rather than after torch took seconds to import."""
    if not folder.is_dir():
        raise CannotServe(
            what=f"Cannot load the model {folder}",
            why="it is not a directory on this machine",
            do="Give --model a directory with a Hugging Face model in it",
        )
    missing = _missing_files(folder, dummy=dummy)
    if missing:
        raise CannotServe(
            what=f"Cannot load the model {folder}",
            why=f"the directory has no {missing}",
            do="Copy or convert the whole model again",
        )


def _missing_files(folder: Path, *, dummy: bool) -> str | None:
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "config.json"
    except (OSError, ValueError) as error:
        return f"readable config.json ({error})"
    if dummy:
        return None
    if not has_tokenizer(folder):
        return f"tokenizer ({', '.join(_TOKENIZERS)})"
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            return f"readable {index.name} ({error})"
        for shard in sorted(shards):
            if not (folder / shard).is_file():
                return f"{shard}, which {index.name} names"
    if not any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin")):
        return "weights (*.safetensors)"
    return None


_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tokenizer_config.json",
)
