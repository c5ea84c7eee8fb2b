"""Trees of /sys and /proc written for a test: a whole machine, or PCI functions one by one."""

import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from engine.core.cpuset import CpuSet
from engine.core.topology import Gpu, Machine
from engine.host.root import HostRoot
from tests.shared import unpack

MEMORY = 0x200
PREFETCH_64 = 0x14220C
"""Flags of a 64-bit prefetchable memory BAR, as the kernel prints them."""
UNSET = 0x20000000


class SysfsTree:
    """A folder that fills up like the kernel's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> HostRoot:
        return HostRoot(self.path)

    def file(self, name: str, content: str | bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())

    def link(self, name: str, target: str) -> None:
        """A relative link, as in sysfs; both names are under the root."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(self.path / target, path.parent))

    def function(
        self,
        place: str,
        *,
        class_code: int = 0x030000,
        vendor: int = 0x8086,
        device: int = 0x56A0,
        numa_node: int | None = -1,
        near: str | None = None,
        driver: str | None = None,
        link: tuple[str, int] | None = None,
        best: tuple[str, int] | None = None,
        bars: Sequence[tuple[int, int, int]] | None = None,
        drm: Sequence[str] = (),
    ) -> str:
        """A PCI function at `pciDDDD:BB/…/ADDRESS`; returns its folder under the root.

        `bars` are (start, size, flags); a size of 0 stands for a BAR that the function has not.
        """
        folder = f"sys/devices/{place}"
        address = place.rpartition("/")[2]
        self.file(f"{folder}/class", f"0x{class_code:06x}")
        self.file(f"{folder}/vendor", f"0x{vendor:04x}")
        self.file(f"{folder}/device", f"0x{device:04x}")
        if numa_node is not None:
            self.file(f"{folder}/numa_node", str(numa_node))
        if near is not None:
            self.file(f"{folder}/local_cpulist", near)
        if driver is not None:
            self.link(f"{folder}/driver", f"sys/bus/pci/drivers/{driver}")
        for which, told in (("current", link), ("max", best)):
            if told is not None:
                self.file(f"{folder}/{which}_link_speed", told[0])
                self.file(f"{folder}/{which}_link_width", str(told[1]))
        if bars is not None:
            lines = [
                f"0x{start:016x} 0x{start + size - 1 if size else 0:016x} 0x{flags:016x}"
                for start, size, flags in [*bars, *[(0, 0, 0)] * (13 - len(bars))]
            ]
            self.file(f"{folder}/resource", "\n".join(lines))
        for name in drm:
            (self.path / folder / "drm" / name).mkdir(parents=True)
            self.link(f"sys/class/drm/{name}", f"{folder}/drm/{name}")
        self.link(f"sys/bus/pci/devices/{address}", folder)
        return folder

    def bridge(
        self, place: str, link: tuple[str, int] | None = None, *, vendor: int = 0x8086
    ) -> str:
        return self.function(
            place, class_code=0x060400, vendor=vendor, device=0x4FA0, link=link, best=link
        )


def write_machine(machine: Machine, path: Path) -> HostRoot:
    """The machine as a kernel would show it; GPUs become functions right on a root bus.

    The masks beside the lists are for hwloc, which reads nothing else.
    """
    tree = SysfsTree(path)
    cpu = "sys/devices/system/cpu"
    every = machine.pus.online | machine.pus.offline
    for name, pus in (("online", machine.pus.online), ("present", every), ("possible", every)):
        tree.file(f"{cpu}/{name}", str(pus))
    for pu in machine.pus.offline:
        tree.file(f"{cpu}/cpu{pu}/online", "0")
    for core in machine.cores:
        for pu in core.pus:
            topology = f"{cpu}/cpu{pu}/topology"
            tree.file(f"{topology}/thread_siblings_list", str(core.pus))
            tree.file(f"{topology}/thread_siblings", mask(core.pus))
            tree.file(f"{topology}/core_id", str(-1 if core.core_id is None else core.core_id))
            package = -1 if core.package is None else core.package
            tree.file(f"{topology}/physical_package_id", str(package))
            beside = (each.pus for each in machine.cores if each.package == core.package)
            tree.file(
                f"{topology}/core_siblings", mask(CpuSet(pu for pus in beside for pu in pus))
            )
    for row, node in enumerate(machine.numa_nodes):
        folder = f"sys/devices/system/node/node{node.os_index}"
        tree.file(f"{folder}/cpulist", str(node.cpus))
        tree.file(f"{folder}/cpumap", mask(node.cpus))
        if node.memory_bytes is not None:
            kib = node.memory_bytes // 1024
            tree.file(f"{folder}/meminfo", f"Node {node.os_index} MemTotal: {kib} kB")
        if machine.distances is not None:
            tree.file(f"{folder}/distance", " ".join(map(str, machine.distances[row])))
    (tree.path / "sys/devices/pci0000:00").mkdir(parents=True, exist_ok=True)
    for gpu in machine.gpus:
        _write_gpu(tree, gpu)
    tree.file(
        "proc/self/status",
        f"Name:\tpython3\nCpus_allowed_list:\t{machine.pus.usable}\n"
        f"Mems_allowed_list:\t{machine.usable_nodes}",
    )
    return tree.root


def mask(pus: CpuSet) -> str:
    """The kernel's other form: 32-bit words in hexadecimal, highest first."""
    words = [0] * (max(pus, default=0) // 32 + 1)
    for pu in pus:
        words[pu // 32] |= 1 << pu % 32
    return ",".join(f"{word:08x}" for word in reversed(words))


def _write_gpu(tree: SysfsTree, gpu: Gpu) -> None:
    bus = gpu.pci.rpartition(":")[0]
    link = (f"{gpu.link_gt_s} GT/s PCIe", gpu.link_width) if gpu.link_gt_s else None
    tree.function(
        f"pci{bus}/{gpu.pci}",
        vendor=int(gpu.vendor or "ffff", 16),
        device=int(gpu.device or "ffff", 16),
        numa_node=-1 if gpu.numa_node is None else gpu.numa_node,
        near=str(CpuSet()),
        driver=gpu.driver,
        link=None if link is None or link[1] is None else (link[0], link[1]),
        bars=[(gpu.bar_address or 0, gpu.bar_bytes or 0, PREFETCH_64)],
        drm=[name for name in (gpu.drm_card, gpu.drm_render) if name],
    )


def recorded_card(archive: Path, tree: SysfsTree) -> None:
    """A `cardN` folder copied from a live machine, put back where its uevent says."""
    with tarfile.open(archive) as packed:
        unpack(packed, tree.path / "packed")
    (card,) = [path for path in (tree.path / "packed").rglob("card?") if path.is_dir()]
    uevent = (card / "device/uevent").read_text()
    told = re.search(r"^PCI_SLOT_NAME=(.*)$", uevent, re.MULTILINE)
    assert told is not None
    address = told.group(1)
    folder = f"sys/devices/pci{address[:7]}/{address}"
    shutil.copytree(card / "device", tree.path / folder)
    shutil.copytree(card, tree.path / folder / "drm" / card.name)
    tree.link(f"sys/bus/pci/devices/{address}", folder)
