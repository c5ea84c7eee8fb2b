"""Whether we may open the cards' render nodes.

Level Zero opens /dev/dri/renderD*; distributions give it to the group `render` (Intel's client GPU
guide: `sudo gpasswd -a $USER render`). Without it a card does not exist for an engine.
"""

from collections.abc import Iterator

from engine.core.checks import Check, Evidence
from engine.doctor.cards import Finding, together
from engine.doctor.host import Host

ID = "gpu-access"


def check(host: Host) -> Check | None:
    """Each card's `/dev/dri/renderDN`."""
    return together(ID, _findings(host))


def _findings(host: Host) -> Iterator[Finding]:
    nodes = host.root.names("dev/dri")
    for gpu in host.cards:
        if gpu.drm_render is None:
            place = Evidence(f"/sys/bus/pci/devices/{gpu.pci}/drm")
            why = "its driver made none; gpu-driver tells more"
            yield Finding(gpu, "unknown", "no render node", (place,), why)
            continue
        node = f"/dev/dri/{gpu.drm_render}"
        if gpu.may_open:
            yield Finding(gpu, "ok", "may be opened", (Evidence(node, "read and write"),))
        elif gpu.may_open is not None:
            yield Finding(
                gpu,
                "problem",
                f"may not be opened by {host.answers.user if host.answers else 'us'}",
                (Evidence(node, "permission denied"),),
                "engines see no card at all, and some then run on the CPU without a word",
                f"`sudo usermod -aG $(stat -c %G {node}) $USER`, then log in again; in a "
                f"container: `--group-add $(stat -c %g {node})`",
                f"`sudo gpasswd -d $USER $(stat -c %G {node})`",
                ("root", "login"),
            )
        elif host.machine.live and gpu.drm_render not in nodes:
            yield Finding(
                gpu,
                "problem",
                "in /sys, but not in /dev/dri",
                (Evidence(node, "absent"),),
                "engines open that file; a container has it only if it is given",
                "start the container with --device /dev/dri",
                "start it without",
                ("a restart of the container",),
            )
        else:
            why = "only the running machine can be asked"
            words = "whether it may be opened is not recorded"
            yield Finding(gpu, "unknown", words, (Evidence(node),), why)
