"""Whether each card has the PCIe lanes and speed that every port on its way could give.

Documentation/ABI/testing/sysfs-bus-pci: current_link_speed, max_link_speed and their widths. An
Arc's own function tells 2.5 GT/s x1 whatever its slot, so the ports above it count.
"""

from collections.abc import Iterator

from engine.core.checks import Check
from engine.core.topology import Gpu
from engine.doctor.cards import Finding, folder, together
from engine.doctor.host import ABSENT, Host

ID = "gpu-link"


def check(host: Host) -> Check | None:
    """The narrowest link on the way to each card."""
    cards = (gpu for gpu in host.cards if not gpu.virtual_function)
    return together(ID, (finding for gpu in cards for finding in _findings(host, gpu)))


def _findings(host: Host, gpu: Gpu) -> Iterator[Finding]:
    speed, width = gpu.link_gt_s, gpu.link_width
    best, most = gpu.link_best_gt_s, gpu.link_best_width
    port = f"sys/bus/pci/devices/{gpu.link_at}" if gpu.link_at else folder(gpu)
    names = ["current_link_speed", "current_link_width", "max_link_speed", "max_link_width"]
    evidence = host.seen(*(f"{port}/{name}" for name in names))
    if speed is None or width is None or best is None or most is None:
        wanted = f"gpus[{gpu.index}].link_"
        why = next(
            (one.why for one in host.machine.missing if one.what.startswith(wanted)), ABSENT
        )
        yield Finding(gpu, "unknown", "does not tell its PCIe link", evidence, why)
        return
    now = f"{speed:g} GT/s x{width}"
    if width < most:
        yield Finding(
            gpu,
            "advice",
            f"linked by {width} of {most} lanes ({now})",
            evidence,
            "models load more slowly, and tensor parallel over several cards is bound by the "
            "narrowest of them",
            "put the card into a slot with all lanes, seat it and its riser anew, look for "
            "bifurcation in the firmware",
            "",
            ("hardware",),
        )
    elif speed < best:
        yield Finding(
            gpu,
            "advice",
            f"linked at {now}, could be at {best:g} GT/s",
            evidence,
            "an idle card may slow its link down to save power; under load this would bind "
            "loading and tensor parallel",
            "run `slotdeck doctor` again while an engine loads; if it stays, see the slot's speed "
            "in the firmware and the riser",
            "",
            ("firmware",),
        )
    else:
        yield Finding(gpu, "ok", f"linked at {now}, the most on its way", evidence)
