"""Whether each card has a driver that engines can use.

Level Zero works through the kernel's i915 or xe. Kernel 6.12's xe lists B580 and B570 only
(include/drm/intel/xe_pciids.h); Arc Pro B50, B60 and B70 were seen to work from 6.17 on.
"""

from collections.abc import Iterator

from engine.core.checks import Check, Evidence
from engine.doctor.cards import Finding, folder, together
from engine.doctor.host import Host

ID = "gpu-driver"
_GOOD = ("i915", "xe")


def check(host: Host) -> Check | None:
    """The `driver` link of each card."""
    return together(ID, _findings(host))


def _findings(host: Host) -> Iterator[Finding]:
    release = host.text("proc/sys/kernel/osrelease")
    for gpu in host.cards:
        evidence = (Evidence(f"/{folder(gpu)}/driver", gpu.driver),)
        name = gpu.name or f"8086:{gpu.device}"
        if gpu.driver in _GOOD:
            yield Finding(gpu, "ok", f"is driven by {gpu.driver}", evidence)
        elif gpu.driver is not None:
            yield Finding(
                gpu,
                "problem",
                f"({name}) is held by {gpu.driver}",
                evidence,
                "Level Zero sees only cards of i915 and xe; with vfio-pci a card is meant for a "
                "guest",
                _rebind(gpu.pci, gpu.driver),
                "",
                ("root",),
            )
        else:
            kernel = (Evidence("/proc/sys/kernel/osrelease", release),)
            yield Finding(
                gpu,
                "problem",
                f"({name}) has no driver",
                (*evidence, *kernel),
                "Level Zero sees only cards of i915 and xe"
                + (f"; the kernel is {release}" if release else ""),
                f"see what `sudo dmesg | grep -e xe -e i915 -e {gpu.pci}` says; a kernel that is "
                "older than the card does not know it: Arc B580 needs 6.12, Arc Pro B50, B60 and "
                "B70 need 6.17 or Intel's own packages",
                "",
                ("root", "reboot"),
            )


def _rebind(pci: str, driver: str) -> str:
    release = f"echo {pci} | sudo tee /sys/bus/pci/drivers/{driver}/unbind >/dev/null"
    anew = f"echo {pci} | sudo tee /sys/bus/pci/drivers_probe >/dev/null"
    open_ = f"echo | sudo tee /sys/bus/pci/devices/{pci}/driver_override >/dev/null"
    return f"if no guest has it: `{release}; {open_}; sudo modprobe xe; {anew}`"
