"""The allocator and the OpenMP runtime that are loaded before an engine's own, and their settings.

The settings are those of ipexrun (IPEX 2.8, launcher_base.py). Differences: it looks for
`libtcmalloc.so` by exactly that name, which Debian does not have, and goes on without a word;
and it leaves the binding of threads to what it finds in the shell, while ours follows the slot.
"""

from collections.abc import Mapping

from engine.core.command import LAYOUT, Setting
from engine.core.errors import LayoutError
from engine.core.layout import Instance
from engine.core.libraries import Libraries

_IPEXRUN = "ipexrun's setting (IPEX 2.8, launcher_base.py)"
_JEMALLOC_CONF = "oversize_threshold:1,background_thread:true,metadata_thp:auto"
_PACKAGES = {
    "tcmalloc": "apt install libtcmalloc-minimal4, or conda install gperftools",
    "jemalloc": "apt install libjemalloc2, or conda install jemalloc",
    "intel": "pip install intel-openmp into the engine's environment",
}


def preload_settings(
    wish: Instance,
    libraries: Libraries,
    shell: Mapping[str, str],
    *,
    binds_threads: bool,
) -> dict[str, Setting]:
    """LD_PRELOAD and what goes with it. Raises LayoutError where a library that the layout names
    is not here; `auto` takes what there is.

    An engine that binds its threads itself sets the OpenMP runtime's variables too: of those it
    gets none from us.
    """
    env: dict[str, Setting] = {}
    loaded: list[str] = []
    allocator = _allocator(wish, libraries)
    if allocator is not None:
        name, path = allocator
        loaded.append(path)
        if name == "jemalloc":
            env["MALLOC_CONF"] = Setting(_JEMALLOC_CONF, f"driver: jemalloc: {_IPEXRUN}")
    openmp = libraries.intel_openmp
    if wish.openmp == "intel" and openmp is None:
        raise _missing(wish, "openmp", "intel", libraries)
    if openmp is not None and wish.openmp in ("intel", "auto"):
        loaded.append(openmp)
        if not binds_threads:
            source = f"driver: Intel OpenMP: {_IPEXRUN}"
            env["KMP_AFFINITY"] = Setting("granularity=fine,compact,1,0", source)
            env["KMP_BLOCKTIME"] = Setting("1", source)
    if loaded:
        # What the user preloads comes after ours: both are wished for.
        theirs = [shell["LD_PRELOAD"]] if shell.get("LD_PRELOAD") else []
        keys = " and ".join(key for key in ("allocator", "openmp") if getattr(wish, key))
        env["LD_PRELOAD"] = Setting(":".join([*loaded, *theirs]), f"{LAYOUT}: {keys}")
    return env


def _allocator(wish: Instance, libraries: Libraries) -> tuple[str, str] | None:
    found = {"tcmalloc": libraries.tcmalloc, "jemalloc": libraries.jemalloc}
    wanted = wish.allocator
    if wanted in found:
        path = found[wanted]
        if path is None:
            raise _missing(wish, "allocator", wanted, libraries)
        return wanted, path
    if wanted == "auto":
        return next(((name, path) for name, path in found.items() if path), None)
    return None


def _missing(wish: Instance, key: str, value: str, libraries: Libraries) -> LayoutError:
    return LayoutError(
        what=f'Instance {wish.name} cannot have {key} = "{value}"',
        why=f"no such library in {', '.join(libraries.looked)}",
        do=f'Install it ({_PACKAGES[value]}), or write {key} = "auto" to take what there is',
    )
