"""Has an outside load generator measure our targets, with our prompts, and reads its result."""

import asyncio
import contextlib
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from engine.bench.health import Pinned
from engine.bench.manifest import manifest
from engine.bench.outside.finding import version
from engine.bench.outside.job import Answer, Job, Tool, not_understood
from engine.bench.prepare import FIRST_PROMPT, Prepared, prepare, shown_url
from engine.bench.prompts import Prompt, Prompts, PromptSource
from engine.bench.values import ClientHealth, Load, Report, Target, TargetReport
from engine.core.errors import ControlError, UsageError
from engine.core.goodput import GoodputCount
from engine.core.quantiles import summarize
from engine.drivers.openai_api import redacted
from engine.drivers.openai_events import printable

PROMPTS_OF_A_DURATION = 2_000
"""Written where nobody knows how many will be sent; the tools begin anew after them."""
_END_WITHIN_S = 5.0
_SAID_BYTES = 64 << 10
_REASON = re.compile(r"\bERROR\b|^[\w.]*(Error|Exception)\b: ")
_UNWANTED = ("HF_HUB_OFFLINE",)
"""With it these tools refuse a folder as a tokenizer."""
_RULES = {
    "backend": "an outside load generator sent the requests and took the times; its definitions "
    "stand in notes; figures are made from its samples by our rules for percentiles",
    "percentiles": "linear between order statistics; p90 from 50 samples, p99 from 500",
}


@dataclass(frozen=True, slots=True)
class Backend:
    """A tool that was found."""

    tool: Tool
    program: Path
    environment: Mapping[str, str]
    tokenizer: str | None = None
    """None: the folder that the engine says its model is in."""


def run_outside(
    backend: Backend,
    targets: Sequence[Target],
    load: Load,
    *,
    client_pus: frozenset[int] | None = None,
    prompts: PromptSource | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Report:
    """One target after the other. Raises UsageError, EngineUnreachable and ControlError."""
    source = prompts or Prompts(load.seed)
    asked = _prompts(source, load, load.input_len)
    chats = sum(bool(one.messages) for one in asked)
    why = backend.tool.why_not(load, asked)
    if 0 < chats < len(asked):
        why = "it asks all prompts on one path, and the file has both texts and chats"
    if why:
        raise UsageError(
            what=f"{backend.tool.program} cannot make this load",
            why=why,
            do="Change the load or its prompts, or measure without --backend",
        )
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    began, cpu_before = time.perf_counter(), _cpu_of_children()
    rows = []
    with Pinned(client_pus) as pinned:
        for target in targets:
            say(f"{backend.tool.program} measures {target.name}")
            rows.append(_measured(backend, target, load, source, scale=prompts is None))
        health = ClientHealth(
            cpu_share=(_cpu_of_children() - cpu_before) / (time.perf_counter() - began),
            runqueue_wait_share=None,
            judged=False,
        )
        with asyncio.Runner() as runner:
            facts = runner.run(
                _facts(backend, started_at, load, rows, health, pinned, client_pus, source.facts)
            )
    return Report(tuple(rows), health, facts)


async def _facts(
    backend: Backend,
    started_at: str,
    load: Load,
    rows: Sequence[TargetReport],
    health: ClientHealth,
    pinned: Pinned,
    client_pus: frozenset[int] | None,
    prompts: Mapping[str, object],
) -> dict[str, object]:
    facts = manifest(
        started_at=started_at,
        load=load,
        targets=rows,
        health=health,
        pinned=pinned,
        client_pus=client_pus,
        prompts=prompts,
    )
    told = {
        "name": backend.tool.name,
        "version": version(backend.tool, backend.program),
        "differs": list(backend.tool.differs),
    }
    return {**facts, "rules": _RULES, "event_loop": None, "backend": told}


def _prompts(source: PromptSource, load: Load, words: int) -> list[Prompt]:
    count = load.requests or PROMPTS_OF_A_DURATION
    return [source.prompt(FIRST_PROMPT + one, words) for one in range(count + load.warmups)]


def _measured(
    backend: Backend, target: Target, load: Load, source: PromptSource, *, scale: bool
) -> TargetReport:
    ready = asyncio.run(prepare(target, load, Prompts(load.seed), scale=scale))
    with tempfile.TemporaryDirectory(prefix="slotdeck-bench-") as folder:
        job = Job(
            base=ready.base,
            model=ready.model,
            tokenizer=backend.tokenizer or _tokenizer_of(ready),
            prompts=_prompts(source, load, ready.words),
            load=load,
            folder=Path(folder),
            api_key=target.api_key,
        )
        answer = measured_by(backend, job)
    return row_of(backend.tool, target, ready, load, answer)


def measured_by(backend: Backend, job: Job) -> Answer:
    """The tool's own run, and what it has written about it."""
    tool = backend.tool
    said = job.folder / "said.txt"
    # Somebody's key for elsewhere is none of this engine's business.
    unwanted = (*_UNWANTED, tool.key_variable)
    environment = {
        name: value for name, value in backend.environment.items() if name not in unwanted
    }
    if job.api_key is not None:
        environment[tool.key_variable] = job.api_key
    with said.open("wb") as log:
        process = subprocess.Popen(
            [str(backend.program), *tool.words(job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job.folder,
            env=environment,
            start_new_session=True,
        )
        try:
            _has_ended(process.pid, options=0)  # Waits for it.
        finally:
            _end(process)
    if code := process.returncode:
        raise ControlError(
            what=f"{tool.program} failed with exit code {code}",
            why=redacted(_last_line(said), job.api_key) or "it said nothing",
            do="Run it by hand to see all it says: "
            f"{backend.program} {' '.join(tool.words(job)[:2])} …, or measure without --backend",
        )
    try:
        answer = tool.read(job.folder)
    except OSError as error:
        raise not_understood(tool.program, ValueError(error.strerror)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise not_understood(tool.program, error) from None
    said_first = answer.first_error and redacted(answer.first_error, job.api_key)
    return replace(answer, first_error=said_first)


def row_of(
    tool: Tool, target: Target, ready: Prepared, load: Load, answer: Answer
) -> TargetReport:
    """Its samples in our form."""
    requests = answer.requests
    good = GoodputCount(load.limits)
    for one in requests:
        good.add(one.ttft_s, one.gaps_s or (), one.tpot_s or 0.0, one.e2e_s)
    gaps = [gap for one in requests if one.gaps_s is not None for gap in one.gaps_s]
    output = sum(one.output_tokens for one in requests)
    known = [one.prompt_tokens for one in requests if one.prompt_tokens is not None]
    prompts = sum(known) if len(known) == len(requests) else None
    took = answer.duration_s if answer.duration_s > 0 and requests else None
    return TargetReport(
        name=target.name,
        url=shown_url(target.url),
        concurrency=load.concurrency if load.rate is None else None,
        rate=load.rate,
        requests=len(requests),
        errors=answer.errors,
        first_error=answer.first_error and printable(answer.first_error.strip().splitlines()[-1]),
        ttft=summarize(one.ttft_s for one in requests),
        itl=summarize(gaps),
        tpot=summarize(one.tpot_s for one in requests if one.tpot_s is not None),
        e2e=summarize(one.e2e_s for one in requests),
        output_tokens_per_s=None if took is None else output / took,
        total_tokens_per_s=None if took is None or prompts is None else (output + prompts) / took,
        model=ready.model,
        models_answer=ready.models_answer,
        window_s=answer.duration_s,
        prompt_tokens=None if prompts is None or not requests else prompts / len(requests),
        prompt_words=ready.words,
        output_tokens=output / len(requests) if requests else None,
        goodput=good.result(failed=answer.errors, window_s=answer.duration_s),
        notes=(
            f"measured by {tool.program}, not by slotdeck",
            *tool.differs,
        ),
    )


def _tokenizer_of(ready: Prepared) -> str:
    answer = ready.models_answer
    rows = answer.get("data") if isinstance(answer, dict) else None
    root = rows[0].get("root") if rows and isinstance(rows[0], dict) else None
    if isinstance(root, str) and Path(root).is_dir():
        return root
    raise UsageError(
        what="The tool needs the model's tokenizer",
        why=f"{ready.base} does not say in which folder its model is",
        do="Name the folder with --tokenizer",
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """All of its processes; some of these tools leave workers behind when they are interrupted.

    The first one is reaped last: until then its group's number belongs to nobody else.
    """
    if not _has_ended(process.pid):
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_WITHIN_S
        while not _has_ended(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_ended(pid: int, options: int = os.WNOHANG) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | options) is not None


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_line(path: Path) -> str:
    """The last that looks like a reason; these tools like to end with something else."""
    text = path.read_bytes()[-_SAID_BYTES:].decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if _REASON.search(line)]
    return printable((reasons or lines or [""])[-1])
