"""What an instance may take at most: memory and CPU time, beside the place that it has."""

import re
from dataclasses import dataclass

_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit of its own."""

    memory_bytes: int | None = None
    """Of main memory, of all its processes together, with the files that they have read."""
    cpu_cores: float | None = None
    """CPU time: so many cores' worth of each tenth of a second."""

    def __bool__(self) -> bool:
        return self.memory_bytes is not None or self.cpu_cores is not None

    def properties(self) -> list[str]:
        """The same for systemd (systemd.resource-control(5)); nothing is swapped."""
        told = []
        if self.memory_bytes is not None:
            told += [f"MemoryMax={self.memory_bytes}", "MemorySwapMax=0"]
        if self.cpu_cores is not None:
            told.append(f"CPUQuota={round(self.cpu_cores * 100, 2):.8g}%")
        return told

    def words(self) -> list[str]:
        """Each limit with its figure."""
        told = []
        if self.memory_bytes is not None:
            told.append(f"{shown_size(self.memory_bytes)} of memory")
        if self.cpu_cores is not None:
            told.append(f"the time of {shown_cores(self.cpu_cores)}")
        return told


def limits_of(memory_limit: str | None, cpu_limit: float | None) -> Limits:
    """By the words of a layout."""
    return Limits(size_bytes(memory_limit or ""), cpu_limit)


def size_bytes(text: str) -> int | None:
    """ "24GiB", "1.5 TiB", "512MiB"; None for anything else."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([MGT]iB)", text)
    return round(float(match[1]) * _UNITS[match[2]]) if match else None


def shown_size(size: int) -> str:
    """As few digits as tell it: "24 GiB", "1.5 GiB", "512 MiB"."""
    unit = next((unit for unit in ("TiB", "GiB") if size >= _UNITS[unit]), "MiB")
    return f"{size / _UNITS[unit]:.4g} {unit}"


def shown_cores(cores: float) -> str:
    """ "1 core", "2.5 cores"."""
    return f"{cores:.4g} core{'' if cores == 1 else 's'}"
