"""The drivers by the name that a layout uses."""

from difflib import get_close_matches

from engine.core.errors import LayoutError
from engine.drivers.command import CommandDriver
from engine.drivers.driver import Driver
from engine.drivers.ipex import IpexDriver
from engine.drivers.ipex_llm import IpexLlmDriver
from engine.drivers.torch import TorchDriver
from engine.drivers.vllm_cpu import VllmCpuDriver
from engine.drivers.vllm_xpu import VllmXpuDriver

DRIVERS: dict[str, Driver] = {
    driver.name: driver
    for driver in (
        TorchDriver(),
        IpexDriver(),
        VllmCpuDriver(),
        VllmXpuDriver(),
        IpexLlmDriver(),
        CommandDriver(),
    )
}


def driver_of(engine: str) -> Driver:
    """The driver of an engine; raises LayoutError with the nearest name."""
    if engine in DRIVERS:
        return DRIVERS[engine]
    near = get_close_matches(engine, DRIVERS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise LayoutError(
        what=f"There is no engine {engine!r}",
        why=f"this version drives: {', '.join(DRIVERS)}",
        do=f'{hint}Any OpenAI-compatible server runs with engine = "command"',
    )
