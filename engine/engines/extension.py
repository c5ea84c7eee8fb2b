"""C++ that an engine needs and no package index has compiled: made here, for this processor."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.engines.compiler import Compiler

_GCC_WITH_BF16 = (12, 3)
"""Older ones compile bfloat16's instructions wrongly, says vLLM's own build."""
_AVX512 = ("avx512f", "avx512vl", "avx512bw", "avx512dq")


@dataclass(frozen=True, slots=True)
class Isa:
    """Instructions that it is compiled for."""

    name: str
    needs: frozenset[str]
    """Flags of /proc/cpuinfo."""
    options: tuple[str, ...]

    def options_of(self, compiler: Compiler) -> tuple[str, ...]:
        """Those that this compiler can be given."""
        old = compiler.version < _GCC_WITH_BF16
        return tuple(one for one in self.options if not (old and one == "-mavx512bf16"))


_AVX2 = Isa("avx2", frozenset({"avx2", "f16c"}), ("-mavx2", "-mf16c"))
_OPTIONS = ("-mf16c", *(f"-m{flag}" for flag in _AVX512))
_ISAS = (
    Isa(
        "avx512-bf16",
        frozenset({*_AVX512, "avx512_bf16", "f16c"}),
        (*_OPTIONS, "-mavx512bf16"),
    ),
    Isa("avx512", frozenset({*_AVX512, "f16c"}), _OPTIONS),
    _AVX2,
)
"""The best one first."""


def isa_of(processor: frozenset[str] | None) -> Isa | None:
    """The best that a processor has; None where it has none of them, or does not say."""
    return next((isa for isa in _ISAS if isa.needs <= (processor or frozenset())), None)


@dataclass(frozen=True, slots=True)
class Extension:
    """A source package whose Python is taken as it is, and whose C++ is compiled."""

    package: str
    """The folder of its modules, and the name of the distribution."""
    version: str
    url: str
    sha256: str
    module: str
    """The file in that folder that comes of the compiling."""
    sources: tuple[str, ...]
    plain: frozenset[str] = frozenset()
    """Sources that are compiled for AVX2 whatever the processor has."""
    include: tuple[str, ...] = ()
    """Folders with its own headers."""
    defines: tuple[str, ...] = ()
    library: str = ""
    """What it is linked with beside torch."""
    describe: Mapping[str, str] = field(default_factory=dict)
    """Variables with which its own setup.py can tell about itself."""

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def digest(self) -> str:
        """Changes with everything that the result depends on, but for the processor."""
        words = (
            *(self.sha256, self.module, *self.sources, *sorted(self.plain)),
            *(*self.include, *self.defines, self.library),
        )
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def isa_for(self, source: str, isa: Isa) -> Isa:
        """The instructions for one source."""
        return _AVX2 if source in self.plain else isa
