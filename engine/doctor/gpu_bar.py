"""Whether the processor reaches all of a card's memory at once (Resizable BAR).

Intel's Arc guide asks for it: through a window of 256 MiB weights are copied piece by piece. The
size is that of the largest line in `resource` (Documentation/ABI/testing/sysfs-bus-pci); cards of
12 GiB have a BAR of 16, as sizes are powers of two. xe's xe_vram.c: it needs Above-4G decoding.
"""

from collections.abc import Iterator

from engine.core.checks import Check, Evidence
from engine.core.topology import Gpu
from engine.doctor.cards import Finding, folder, together
from engine.doctor.host import Host

ID = "gpu-bar"
_MIB, _GIB = 1 << 20, 1 << 30
_OFF = 256 * _MIB
_FIRMWARE = (
    "switch Above 4G Decoding and Resizable BAR on in the firmware, CSM off; slots beside may "
    "have to be told too"
)
_WHY = (
    "weights and prompts go through a small window piece by piece: loading and tensor parallel "
    "suffer most"
)


def check(host: Host) -> Check | None:
    """The largest BAR of each card against its memory, or against the largest it could have."""
    cards = (gpu for gpu in host.cards if not gpu.virtual_function)
    return together(ID, (finding for gpu in cards for finding in _findings(gpu)))


def _findings(gpu: Gpu) -> Iterator[Finding]:
    bar, memory, sizes = gpu.bar_bytes, gpu.memory_bytes, gpu.bar_sizes_bytes
    place = folder(gpu)
    evidence = (
        Evidence(f"/{place}/resource", None if bar is None else f"{bar // _MIB} MiB"),
        *((Evidence(f"/{place} memory", f"{memory / _GIB:g} GiB"),) if memory else ()),
    )
    if sizes:
        told = " ".join(str(size // _MIB) for size in sizes)
        evidence = (*evidence, Evidence(f"/{place} sizes that the BAR can have", f"{told} MiB"))
    if bar is None:
        why = "no readable BAR in resource or config"
        yield Finding(gpu, "unknown", "does not tell its BAR", evidence, why)
        return
    enough = memory or (sizes[-1] if sizes else None)
    if enough is None and bar > _OFF:
        why = "neither the card's memory nor the sizes that its BAR can have are told"
        words = f"shows {bar // _MIB} MiB of a memory that is not told"
        yield Finding(gpu, "unknown", words, evidence, why)
        return
    of = f" of {enough / _GIB:g} GiB" if enough else ""
    if enough is not None and bar >= enough:
        words = "shows all of its memory to the processor"
        yield Finding(gpu, "ok", words, evidence)
        return
    low = gpu.bar_address is not None and gpu.bar_address < 1 << 32
    if low:
        evidence = (*evidence, Evidence(f"/{place}/resource start", f"{gpu.bar_address:#x}"))
    yield Finding(
        gpu,
        "problem" if bar <= _OFF else "advice",
        f"shows {bar // _MIB} MiB{of} to the processor"
        + (", below 4 GiB (Above 4G Decoding is off)" if low else ""),
        evidence,
        _WHY,
        _FIRMWARE,
        "",
        ("firmware", "reboot"),
    )
