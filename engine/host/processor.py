"""What the kernel says of the processor: its name and the instruction sets that it has."""

import re
from dataclasses import dataclass

from engine.host.device_root import DeviceRoot

_FIRST_BYTES = 16 << 10
"""The first PU's part of /proc/cpuinfo is 2 to 4 kB; all PUs of a large machine are megabytes,
and reading each part may ask its core for its frequency."""


@dataclass(frozen=True, slots=True)
class Processor:
    """As the first PU tells; None where the kernel does not."""

    model: str | None = None
    flags: frozenset[str] | None = None
    """x86 `flags`, such as avx2, avx512f, amx_tile."""


def read_processor(root: DeviceRoot) -> Processor:
    """From /proc/cpuinfo (arch/x86/kernel/cpu/proc.c)."""
    first = (root.octets("proc/cpuinfo", _FIRST_BYTES) or b"").decode("utf-8", "replace")
    first = first.partition("\n\n")[0]
    model = re.search(r"^model name\s*: (.+)$", first, re.M)
    flags = re.search(r"^flags\s*: (.+)$", first, re.M)
    return Processor(
        model.group(1).strip() if model else None,
        frozenset(flags.group(1).split()) if flags else None,
    )
