from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundled_model import bundled_model
from tests.worker.worker_process import Worker, start_worker, stop_worker


@pytest.fixture(scope="session")
def model() -> Path:
    return bundled_model()


@pytest.fixture
def start(model: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers that do not outlive the test, however it ends."""
    started: list[Worker] = []

    def begin(*arguments: str, api_key: str | None = None) -> Worker:
        started.append(start_worker(model, *arguments, api_key=api_key))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        if one.process.stderr is not None:
            one.process.stderr.close()
        one.process.wait(timeout=60)


@pytest.fixture(scope="session")
def worker(model: Path) -> Iterator[Worker]:
    """Four places, 1024 tokens each, in float32: small enough to reach every limit."""
    started = start_worker(
        model, "--dtype", "float32", "--max-num-seqs", "4", "--max-model-len", "1024"
    )
    yield started
    stop_worker(started)
