"""Says what an engine's Python can do; run by path in that Python, so it imports nothing of ours.

`PYTHON -I probe.py MODULE…` imports them in that order and writes one JSON object as the last
line of its standard output; whatever the modules themselves print goes to standard error.
"""

import importlib
import json
import os
import platform
import sys
import time
from importlib.metadata import distributions
from typing import Any


def main(modules: list[str]) -> int:
    answer = os.dup(1)
    os.dup2(2, 1)
    found = {
        "python": platform.python_version(),
        "packages": _packages(),
        "imports": [_imported(name) for name in modules],
        "device": _device(),
    }
    with os.fdopen(answer, "w") as out:
        out.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    # Libraries of engines are known to fail while Python ends, after all was said.
    os._exit(0)


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            # The first on the path is the one that is imported.
            found.setdefault(name.lower().replace("_", "-").replace(".", "-"), one.version)
    return found


def _imported(name: str) -> dict[str, Any]:
    began = time.monotonic()
    try:
        module = importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 -- some end the program where they do not fit
        return {"module": name, "error": f"{type(error).__name__}: {error}"[:500]}
    version = getattr(module, "__version__", None)
    seconds = round(time.monotonic() - began, 2)
    return {"module": name, "version": str(version or ""), "seconds": seconds}


def _device() -> dict[str, Any]:
    """What the loaded libraries say of the processor and of GPUs; absent what they do not say."""
    found: dict[str, Any] = {}
    torch = sys.modules.get("torch")
    if torch is None:
        return found
    questions = {
        "capability": lambda: torch.backends.cpu.get_cpu_capability(),
        "amx": lambda: bool(torch.cpu._is_amx_tile_supported()),
        "bfloat16": lambda: bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "cuda_build": lambda: torch.version.cuda or "",
        "xpus": lambda: torch.xpu.device_count() if torch.xpu.is_available() else 0,
        "ipex_isa": _ipex_isa,
        "vllm_platform": _vllm_platform,
    }
    for name, ask in questions.items():
        try:
            value = ask()
        except Exception:  # noqa: BLE001 -- another release has no such name
            continue
        if value is not None:
            found[name] = value
    return found


def _ipex_isa() -> "str | None":
    module = sys.modules.get("intel_extension_for_pytorch._C")
    return None if module is None else str(module._get_current_isa_level())


def _vllm_platform() -> "str | None":
    if "vllm" not in sys.modules:
        return None
    platforms = importlib.import_module("vllm.platforms")
    return str(platforms.current_platform.device_type)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
