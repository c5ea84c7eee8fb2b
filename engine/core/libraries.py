"""Libraries that can be loaded before an engine's own: allocators and Intel's OpenMP runtime."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Libraries:
    """Paths, None where there is none."""

    tcmalloc: str | None = None
    jemalloc: str | None = None
    intel_openmp: str | None = None
    looked: tuple[str, ...] = ()
    """The folders, in their order."""
