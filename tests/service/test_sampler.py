"""Live figures of real processes: rates, pages, CPU, and why something is not known."""

import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.cpuset import NodeSet
from engine.core.trail import FIGURES
from engine.drivers.driver import VLLM_METRICS
from engine.host.root import HostRoot
from engine.service.sampler import ENGINE_FIGURES, Figures, Sampler, Subject
from tests.processes import FAKE_ENGINE, Home, eventually, free_ports


def expose(file: Path, prompt: int, output: int, count: int) -> None:
    file.write_text(METRICS.format(prompt=prompt, output=output, count=count))


METRICS = """
vllm:prompt_tokens_total{{engine="0"}} {prompt}
vllm:generation_tokens_total{{engine="0"}} {output}
vllm:num_requests_running 3
vllm:num_requests_waiting 1
vllm:kv_cache_usage_perc 0.5
vllm:time_to_first_token_seconds_bucket{{le="0.1"}} {count}
vllm:time_to_first_token_seconds_bucket{{le="+Inf"}} {count}
"""


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    file = tmp_path / "metrics"
    expose(file, 100, 1000, 10)
    return file


@contextlib.contextmanager
def engine(*flags: str) -> Iterator[Subject]:
    """A fake engine without any service."""
    port = free_ports(1)[0]
    words = [sys.executable, "-S", str(FAKE_ENGINE), "--port", str(port), *flags]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            eventually(lambda: b"serving" in process.stdout.readline())  # type: ignore[union-attr]
            url = f"http://127.0.0.1:{port}"
            yield Subject("a", "1", process.pid, url, VLLM_METRICS, NodeSet([0]), ready=True)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


class Taking:
    """A sampler on a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sampler = Sampler(HostRoot(), clock=lambda: self.now)

    async def figures(self, subject: Subject) -> Figures:
        sample = await self.sampler.sample(self.now, [subject], [0])
        return sample.figures[subject.name]


@pytest.fixture
def taking() -> Taking:
    return Taking()


async def test_rates_need_two_samples_and_are_per_second(taking: Taking, metrics: Path) -> None:
    with engine("--metrics", str(metrics)) as subject:
        first = await taking.figures(subject)
        assert first.tokens_per_s.output is None
        assert first.unknown["tokens_per_s"] == "needs a second sample"
        assert (first.requests.running, first.requests.waiting) == (3, 1)
        assert first.kv_cache_used == 0.5
        taking.now += 2
        expose(metrics, 130, 1300, 30)
        second = await taking.figures(subject)
        assert second.tokens_per_s.output == pytest.approx(300 / 2)
        assert second.tokens_per_s.prompt == pytest.approx(30 / 2)
        assert second.ttft_ms.p50 == pytest.approx(50)
        assert second.unknown["itl_ms"].startswith("no request in the last")
        expose(metrics, 1, 1, 1)
        third = await taking.figures(subject)
        assert third.tokens_per_s.output is None
        assert "tokens_per_s" in third.unknown


async def test_an_engine_without_these_metrics_says_so(taking: Taking, tmp_path: Path) -> None:
    empty = tmp_path / "metrics"
    empty.write_text("other 1\n")
    with engine("--metrics", str(empty)) as subject:
        await taking.figures(subject)
        figures = await taking.figures(subject)
        assert set(ENGINE_FIGURES) <= set(figures.unknown)
        assert figures.silent_s == 0


async def test_a_new_start_forgets_the_old_one(taking: Taking, metrics: Path) -> None:
    with engine("--metrics", str(metrics)) as subject:
        await taking.figures(subject)
        again = Subject(
            "a", "2", subject.pid, subject.url, subject.names, subject.nodes, ready=True
        )
        figures = await taking.figures(again)
        assert figures.mark == "2"
        assert figures.tokens_per_s.output is None
        assert figures.cpu_cores_used is None


async def test_pages_and_cpu_of_a_busy_engine(home: Home) -> None:
    client = await home.connect()
    flags = ["--busy", "--touch-mib", "64", "--fork-child"]
    await home.up(client, {"name": "a", "slot": "core:1", "flags": flags})
    watching = client.snapshots()
    async for snapshot in watching:
        status = snapshot.instances[0]
        if status.cpu_cores_used is not None and status.pages_local is not None:
            break
    await watching.aclose()  # type: ignore[attr-defined]
    past = await client.past()
    cores = [values[list(FIGURES).index("cpu")] for _, _, values in past.of("a", time.monotonic())]
    assert any(cores)  # whoever opens a panel now sees what it did before
    assert 0 < past.bytes_each < 40_000
    assert status.pages_local == 1.0
    assert status.rss_bytes is not None
    assert status.rss_bytes > 64 << 20
    # Its one core is shared with whatever else this machine does.
    assert status.cpu_cores_used is not None
    assert 0.02 < status.cpu_cores_used <= 1.1
    assert "cpu_cores_used" not in status.unknown


async def test_a_frozen_engine_is_told_and_holds_up_nobody(home: Home) -> None:
    client = await home.connect()
    snapshot = await home.up(
        client, {"name": "a", "slot": "core:0"}, {"name": "b", "slot": "core:1"}
    )
    frozen = snapshot.instances[0].pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    times: list[float] = []
    rated = 0
    async for now in client.snapshots():
        times.append(time.monotonic())
        a, b = now.instances
        rated += b.tokens_per_s.output is not None
        if a.why.startswith("not answering for "):
            break
        assert len(times) < 100
    assert rated >= 2
    assert a.state == "ready"
    assert a.tokens_per_s.output is None
    assert a.unknown["tokens_per_s"] == "it does not answer"
    assert a.cpu_cores_used is not None
    # One late snapshot is the machine's doing; all of them late would be the frozen engine's.
    assert statistics.median(b - a for a, b in itertools.pairwise(times)) < 2.5
    os.kill(frozen, signal.SIGCONT)
    await home.until(client, lambda now: not now["a"].why.startswith("not answering"))


async def test_what_does_not_run_has_reasons_instead_of_figures(home: Home) -> None:
    client = await home.connect()
    await home.apply(client, home.layout({"name": "a", "flags": ["--die-on-start", "no"]}))
    status = (await home.until(client, lambda now: now["a"].state == "failed")).instances[0]
    assert status.rss_bytes is None
    assert set(status.unknown.values()) == {"it has no process"}
    assert {"tokens_per_s", "rss_bytes", "pages_local"} <= set(status.unknown)
