"""How much memory this process may still take: its control groups and its NUMA nodes."""

import ctypes
import json
import platform
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from engine.worker.errors import CannotServe

_GET_MEMPOLICY = {"x86_64": 239, "aarch64": 236}
_BIND, _PREFERRED = 2, 1
_MOST_NODES = 1024
_NO_LIMIT = 1 << 60


def available_bytes(root: Path = Path("/"), nodes: frozenset[int] | None = None) -> int | None:
    """What the kernel could give us now, caches it can drop included; None where it is unknown.

    `nodes`: those we are bound to; None asks the kernel.
    """
    bound = bound_nodes() if nodes is None else nodes
    bound = bound or _allowed_nodes(root)
    known = [_nodes_bytes(root, bound) if bound else _machine_bytes(root), *_group_bytes(root)]
    found = [one for one in known if one is not None]
    return min(found, default=None)


def bound_nodes() -> frozenset[int] | None:
    """The NUMA nodes that this thread's memory policy binds it to; None when to none."""
    number = _GET_MEMPOLICY.get(platform.machine())
    if number is None:
        return None
    mode = ctypes.c_int()
    mask = (ctypes.c_ulong * (_MOST_NODES // 64))()
    libc = ctypes.CDLL(None, use_errno=True)
    refused = libc.syscall(
        ctypes.c_long(number),
        ctypes.byref(mode),
        mask,
        ctypes.c_ulong(_MOST_NODES),
        ctypes.c_void_p(None),
        ctypes.c_ulong(0),
    )
    if refused or mode.value & 0xFF != _BIND:
        return None
    return frozenset(n for n in range(_MOST_NODES) if mask[n // 64] >> n % 64 & 1)


def weights_bytes(folder: Path, item_bytes: int) -> int | None:
    """Of the files' tensors as this type; None where they do not say how large they are."""
    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with file.open("rb") as opened:
                size = struct.unpack("<Q", opened.read(8))[0]
                if size > 100 << 20:
                    return None
                tensors = json.loads(opened.read(size))
        except (OSError, ValueError, struct.error):
            return None
        for name, tensor in tensors.items():
            if name != "__metadata__":
                count = 1
                for side in tensor["shape"]:
                    count *= side
                total += count * item_bytes
    return total or None


def require(needed: int, available: int | None, *, what: str, do: str) -> None:
    """Refuses in words now what the kernel would end without a word later."""
    if available is not None and needed > available:
        raise CannotServe(
            what=what,
            why=f"that takes {in_words(needed)}, and {in_words(available)} may be used here",
            do=do,
        )


def in_words(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _machine_bytes(root: Path) -> int | None:
    return _field(_text(root / "proc/meminfo"), "MemAvailable")


def _allowed_nodes(root: Path) -> frozenset[int] | None:
    """Those of our cpuset, where it leaves out some that have memory."""
    allowed = re.search(r"^Mems_allowed_list:\s*(\S+)", _text(root / "proc/self/status"), re.M)
    there = _text(root / "sys/devices/system/node/has_memory").strip()
    if allowed is None or not there:
        return None
    nodes = _listed(allowed[1]) & _listed(there)
    return nodes if nodes < _listed(there) else None


def _listed(text: str) -> frozenset[int]:
    """The kernel's lists: `0-1,4`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _nodes_bytes(root: Path, nodes: frozenset[int]) -> int | None:
    """Free pages, and those of files that the kernel would drop for us."""
    total = 0
    for node in nodes:
        text = _text(root / f"sys/devices/system/node/node{node}/meminfo")
        free = _field(text, "MemFree")
        if free is None:
            return None
        total += free
        for name in ("Inactive(file)", "Active(file)", "SReclaimable"):
            total += _field(text, name) or 0
    return total


def _group_bytes(root: Path) -> Iterator[int]:
    """What each control group above us leaves."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        while True:
            most, taken = _number(group / limit), _number(group / used)
            if most is not None and taken is not None and most < _NO_LIMIT:
                dropped = re.search(
                    r"^(?:total_)?inactive_file (\d+)", _text(group / "memory.stat"), re.M
                )
                yield max(0, most - taken + (int(dropped[1]) if dropped else 0))
            if group in (top, group.parent):
                break
            group = group.parent


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _field(text: str, name: str) -> int | None:
    found = re.search(rf"{re.escape(name)}:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
