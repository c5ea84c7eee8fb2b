"""What the plan says a model takes, against what a started worker takes."""

import re
from pathlib import Path
from typing import Unpack

from engine.core.sizing import FRAMEWORK_BYTES, Asking, Needs, size
from engine.host.models import find_model
from tests.worker.worker_process import Worker

TOLERANCE = 1 / 7
"""The framework's part is an estimate, and no two builds of torch are alike."""


def needs_of(model: Path, **asking: Unpack[Asking]) -> Needs:
    """In float32, as the planner reads the model's own files."""
    found = find_model(str(model), base=model, bundled=model)
    plain: Asking = {"dtype": "float32"}
    return size(found.config, found.stored, **(plain | asking))


def agreed(worker: Worker, needs: Needs) -> tuple[float, int]:
    """Weights and the cache's room as the worker tells them; fails where it takes anything else
    than planned. Nothing was asked of it yet: its cache holds no pages."""
    found = worker.metrics()
    weights, resident = found["slotdeck:weights_bytes"], found["process_resident_memory_bytes"]
    assert needs.weights_bytes is not None
    assert abs(weights - needs.weights_bytes) < 0.005 * needs.weights_bytes
    planned = needs.weights_bytes + FRAMEWORK_BYTES["cpu"]
    assert abs(resident - planned) < TOLERANCE * planned, f"{resident:,.0f} for {planned:,}"
    told = re.search(r'kv_cache_memory_bytes="(\d+)"', worker.get("/metrics")[1])
    assert told is not None
    return weights, int(told[1])
