"""Whether each card has a driver that engines can use.

Level Zero works through the kernel's i915 or xe. Kernel 6.12's xe lists B580, B570 and Pro B50
(include/drm/intel/xe_pciids.h); Arc Pro B60 and B70 were seen to work with 6.17.
"""

from collections.abc import Iterator

from engine.core.checks import Check, Evidence
from engine.doctor.cards import Finding, folder, together
from engine.doctor.host import ABSENT, Host

ID = "gpu-driver"
_GOOD = ("i915", "xe")
_LISTED = dict.fromkeys(("e20b", "e20c", "e20d", "e212"), ": this one is known from 6.12 on")
_NEWER = dict.fromkeys(("e211", "e222", "e223"), ": 6.12 has not this one, 6.17 was seen to work")
_KERNELS = _LISTED | _NEWER
"""By PCI id."""


def check(host: Host) -> Check | None:
    """The `driver` link of each card."""
    return together(ID, _findings(host))


def _findings(host: Host) -> Iterator[Finding]:
    release = host.text("proc/sys/kernel/osrelease")
    for gpu in host.cards:
        evidence = (Evidence(f"/{folder(gpu)}/driver", gpu.driver),)
        name = gpu.name or f"8086:{gpu.device}"
        if gpu.driver in _GOOD:
            yield Finding(gpu, "ok", f"driven by {gpu.driver}", evidence)
        elif gpu.driver is not None:
            yield Finding(
                gpu,
                "problem",
                f"held by {gpu.driver} ({name})",
                evidence,
                "Level Zero sees only cards of i915 and xe; with vfio-pci a card is meant for a "
                "guest",
                _rebind(gpu.pci, gpu.driver),
                "",
                ("root",),
            )
        elif host.text(f"{folder(gpu)}/uevent") is None:  # where the kernel names it besides
            yield Finding(gpu, "unknown", f"its driver is not told ({name})", evidence, ABSENT)
        else:
            kernel = (Evidence("/proc/sys/kernel/osrelease", release),)
            yield Finding(
                gpu,
                "problem",
                f"no driver ({name})",
                (*evidence, *kernel),
                "Level Zero sees only cards of i915 and xe"
                + (f"; the kernel is {release}" if release else ""),
                f"see what `sudo dmesg | grep -e xe -e i915 -e {gpu.pci}` says; a kernel that is "
                f"older than the card does not know it{_KERNELS.get(gpu.device or '', '')}",
                "",
                ("root", "reboot"),
            )


def _rebind(pci: str, driver: str) -> str:
    release = f"echo {pci} | sudo tee /sys/bus/pci/drivers/{driver}/unbind >/dev/null"
    anew = f"echo {pci} | sudo tee /sys/bus/pci/drivers_probe >/dev/null"
    open_ = f"echo | sudo tee /sys/bus/pci/devices/{pci}/driver_override >/dev/null"
    return f"if no guest has it: `{release}; {open_}; sudo modprobe xe; {anew}`"
