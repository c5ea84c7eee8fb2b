from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundled_model import bundled_model
from tests.worker.worker_process import Worker, start_worker, stop_worker


@pytest.fixture(scope="session")
def model() -> Path:
    return bundled_model()


@pytest.fixture(scope="session")
def worker(model: Path) -> Iterator[Worker]:
    """Four places, 1024 tokens each, in float32: small enough to reach every limit."""
    started = start_worker(
        model, "--dtype", "float32", "--max-num-seqs", "4", "--max-model-len", "1024"
    )
    yield started
    stop_worker(started)
