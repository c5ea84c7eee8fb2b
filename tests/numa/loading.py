"""Loads a model with the worker's own code and tells where its memory lies then, as JSON.

python -m tests.numa.loading MODEL FILE
"""

import json
import sys
from pathlib import Path

from engine.worker.model import load
from engine.worker.options import parse
from tests.numa.story import numa_maps

if __name__ == "__main__":
    folder, out = sys.argv[1:]
    model = load(parse(["--model", folder, "--threads", "1"], api_key=None))
    own, policies = numa_maps("self")
    maps = Path("/proc/self/numa_maps").read_text().splitlines()
    Path(out).write_text(
        json.dumps(
            {
                "own": own,
                "policies": policies,
                "mapped": [line for line in maps if f"file={folder}/" in line],
                "weights_bytes": model.weights_bytes,
                "path": model.path,
            }
        )
    )
