"""Where an engine's allocator and OpenMP runtime lie: libraries to be loaded before its own."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from engine.core.libraries import Libraries

_NAMES = {
    # Debian has libtcmalloc_minimal.so.4 without a plain .so: by its real name, whatever it is.
    "tcmalloc": re.compile(r"libtcmalloc(_minimal)?\.so(\.\d+)*"),
    "jemalloc": re.compile(r"libjemalloc\.so(\.\d+)*"),
    "intel_openmp": re.compile(r"libiomp5\.so"),
}
_SYSTEM = (
    *("/usr/local/lib", "/usr/local/lib64", "/usr/lib", "/usr/lib64"),
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"),
)


def find_libraries(python: str, environment: Mapping[str, str]) -> Libraries:
    """From the engine's own environment first, then the user's, then the system's."""
    folders = tuple(dict.fromkeys(_folders(python, environment)))
    found: dict[str, str] = {}
    for folder in folders:
        try:
            names = sorted(path.name for path in Path(folder).iterdir())
        except OSError:
            continue
        for what, pattern in _NAMES.items():
            fitting = [name for name in names if pattern.fullmatch(name)]
            # Among libtcmalloc.so.4 and libtcmalloc.so.4.5.9 the short name is the maintained one.
            if what not in found and fitting:
                found[what] = f"{folder}/{min(fitting, key=len)}"
    return Libraries(**found, looked=folders)


def _folders(python: str, environment: Mapping[str, str]) -> Iterator[str]:
    if "/" in python:
        yield str(Path(python).absolute().parent.parent / "lib")
        # A virtual environment's Python is a link to one that may have libraries too.
        with suppress(OSError, RuntimeError):
            yield str(Path(python).resolve().parent.parent / "lib")
    for name in ("CONDA_PREFIX", "VIRTUAL_ENV"):
        if prefix := environment.get(name):
            yield f"{prefix}/lib"
    if home := environment.get("HOME"):
        yield f"{home}/.local/lib"
    yield from _SYSTEM
