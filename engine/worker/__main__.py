"""The server of the torch and ipex engines: `PYTHON -u engine/worker/__main__.py --model DIR`."""

import os
import sys
import types
from pathlib import Path

if not __package__:
    # Run by path in the engine's own Python: find our own siblings, and nothing beside them.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
    _engine = types.ModuleType("engine")
    _engine.__path__ = [str(_here.parent)]
    sys.modules["engine"] = _engine

from engine.worker.program import main


def _environment() -> str | None:
    """The key is taken out, so that nothing that reads the environment later shows it."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"  # noqa: TID251 -- --model is a directory; nothing may be fetched
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # noqa: TID251
    return os.environ.pop("SLOTDECK_API_KEY", None)  # noqa: TID251


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], api_key=_environment()))
