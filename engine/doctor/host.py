"""What the checks look at: a machine's files, its map, and what only a running kernel answers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from engine.core.checks import Check, Evidence
from engine.core.cpuset import CpuSet
from engine.core.topology import Gpu, Machine
from engine.host.root import HostRoot

CPU = "sys/devices/system/cpu"
_LONGEST = 120
ABSENT = "the file is absent or not for us to read"


@dataclass(frozen=True, slots=True)
class Answers:
    """Of system calls that change nothing; for each an error number, 0 where it is allowed."""

    memory_policy: int
    """get_mempolicy(2), which containers refuse together with set_mempolicy(2)."""
    amx: int
    """arch_prctl(2): whether ARCH_GET_XCOMP_SUPP has the tile data."""
    user: str
    """Who would start engines."""
    limits_refused: tuple[tuple[str, str], ...] = ()
    """Why a layout's limits cannot be kept, and what to do."""


@dataclass(frozen=True, slots=True)
class Host:
    """One machine; without answers where it was recorded."""

    root: HostRoot
    machine: Machine
    answers: Answers | None = None

    def text(self, name: str) -> str | None:
        """A file's text, None where there is none."""
        return self.root.text(name)

    def number(self, name: str) -> int | None:
        """A file's whole number, None where it tells none."""
        text = self.root.text(name) or ""
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None

    def seen(self, *names: str) -> tuple[Evidence, ...]:
        """What stands in these files."""
        found = []
        for name in names:
            number = self.number(name)
            text = self.text(name)
            found.append(Evidence(f"/{name}", _shortened(text) if number is None else number))
        return tuple(found)

    def distinct(self, names: Iterable[str]) -> dict[str, list[str]]:
        """The files by what they say: of 256 that say the same one is evidence enough."""
        found: dict[str, list[str]] = {}
        for name in names:
            if (text := self.text(name)) is not None:
                found.setdefault(text, []).append(name)
        return found

    @property
    def cards(self) -> tuple[Gpu, ...]:
        """The GPUs that engines are put on."""
        return tuple(gpu for gpu in self.machine.gpus if gpu.computes)


def _shortened(text: str | None) -> str | None:
    """On one line."""
    if text is None:
        return None
    line = "; ".join(text.splitlines())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def unknown(name: str, found: str, why: str, evidence: tuple[Evidence, ...] = ()) -> Check:
    """What could not be learned, and why."""
    return Check(name, "unknown", found, evidence, why)


def write(value: object, name: str) -> str:
    """The command that writes into a kernel's file; it holds until the next boot."""
    return f"`echo {value} | sudo tee /{name} >/dev/null`"


def braced(numbers: CpuSet) -> str:
    """For a shell: `{0..3,8}`, or the number alone."""
    text = str(numbers).replace("-", "..")
    return (
        text
        if text.isdecimal()
        else "{" + text + ("" if "," in text or ".." in text else ",") + "}"
    )
