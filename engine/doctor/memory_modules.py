"""Whether the memory modules run as fast as they can, and are alike.

SMBIOS 3.x, 7.18 Memory Device (type 17), from /sys/firmware/dmi/tables/DMI, which only root may
read. Which channel a slot belongs to is told in each vendor's own words: it is not guessed here.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from engine.core.checks import Check, Evidence
from engine.doctor.host import Host, unknown

ID = "memory-modules"
_FILE = "sys/firmware/dmi/tables/DMI"
_NOT_TOLD = (0, 0xFFFF)


@dataclass(frozen=True, slots=True)
class Module:
    """One slot; 0 MiB where it is empty, speeds None where they are not told."""

    size_mib: int
    rated: int | None
    """MT/s."""
    configured: int | None


def check(host: Host) -> Check:
    """Every slot that firmware tells."""
    table = host.root.raw(_FILE)
    slots = list(modules(table or b""))
    filled = [slot for slot in slots if slot.size_mib]
    if not filled:
        found, evidence = "the memory modules are not told", (Evidence(f"/{_FILE}"),)
        if table is None and "DMI" in host.root.names("sys/firmware/dmi/tables"):
            why, do = "only root may read the firmware's list", "`sudo slotdeck doctor`"
            return Check(ID, "unknown", found, evidence, why, do, needs=("root",))
        why = "firmware lists no memory module" if table else "there is no list of firmware's here"
        return unknown(ID, found, why, evidence)
    sizes = Counter(slot.size_mib for slot in filled)
    words = " and ".join(f"{count} of {size / 1024:g} GiB" for size, count in sizes.items())
    found = f"modules in {len(filled)} of {len(slots)} slots: {words}"
    speeds = sorted({slot.configured for slot in filled if slot.configured})
    if speeds:
        found += f", at {' and '.join(map(str, speeds))} MT/s"
    evidence = (Evidence(f"/{_FILE} type 17", found),)
    slow = [one for one in filled if one.rated and one.configured and one.configured < one.rated]
    packages = max(1, len(host.machine.packages))
    if slow:
        best = max(one.rated or 0 for one in slow)
        return Check(
            ID,
            "advice",
            f"{found}; {len(slow)} of them could do {best} MT/s",
            evidence,
            "decoding is bound by memory bandwidth, which falls with the modules' speed",
            "set the memory's speed to its maximum in the firmware; two modules on a channel, or "
            "the processor's own limit, may forbid it",
            needs=("firmware", "reboot"),
        )
    if len(sizes) > 1 or len(filled) % packages:
        return Check(
            ID,
            "advice",
            f"{found}, in {packages} packages" if packages > 1 else found,
            evidence,
            "unlike or unevenly spread modules leave channels that are not interleaved with the "
            "rest",
            "fill every channel of every package with like modules (`sudo dmidecode -t memory` "
            "names the slots)",
            needs=("hardware",),
        )
    return Check(ID, "ok", found, evidence)


def modules(table: bytes) -> Iterator[Module]:
    """The memory devices of an SMBIOS table; a damaged rest is left out."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        end = table.find(b"\0\0", at + length)
        if length < 4 or end < 0:
            return
        data = table[at : at + length]
        if kind == 17 and length >= 0x17:
            yield _module(data)
        if kind == 127:  # end of table
            return
        at = end + 2


def _module(data: bytes) -> Module:
    (size,) = struct.unpack_from("<H", data, 0x0C)
    mib = size & 0x7FFF
    if size == 0xFFFF:
        mib = 0
    elif size == 0x7FFF and len(data) >= 0x20:  # the extended size, in MiB
        mib = struct.unpack_from("<I", data, 0x1C)[0] & 0x7FFFFFFF
    elif size & 0x8000:  # counted in KiB
        mib //= 1024
    rated = struct.unpack_from("<H", data, 0x15)[0]
    configured = struct.unpack_from("<H", data, 0x20)[0] if len(data) >= 0x22 else 0
    return Module(
        mib,
        None if rated in _NOT_TOLD else rated,
        None if configured in _NOT_TOLD else configured,
    )
