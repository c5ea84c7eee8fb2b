"""GPUs from PCI and drm sysfs: what they are, where they sit, how they are attached."""

import re
from collections.abc import Callable, Sequence

from engine.core.cpuset import CpuSet
from engine.core.topology import Gpu, Missing
from engine.host import pci_names
from engine.host.device_root import DeviceRoot
from engine.host.gpu_kinds import CLASSES, is_gpu, is_integrated, order
from engine.host.lists import read_list
from engine.host.pci import (
    Link,
    PciDevice,
    find_devices,
    read_bar_sizes,
    read_bars,
    read_hex,
    read_link,
)
from engine.host.root import HostRoot

Nodes = Sequence[tuple[int, CpuSet]]
"""OS index and PUs of every NUMA node."""

_INTEL = int(pci_names.INTEL, 16)
_LIE = Link(2.5, 1)
_SAME_REASON = {
    "vendor": "device",
    "bar_address": "bar_bytes",
    "link_width": "link_gt_s",
    "drm_render": "drm_card",
}
"""Fields that are unknown because others are: every unknown has its own row."""


def read_gpus(root: HostRoot, nodes: Nodes) -> tuple[tuple[Gpu, ...], tuple[Missing, ...]]:
    """Read every display and accelerator below /sys/bus/pci/devices.

    Beside the GPUs a row for each fact that is unknown or was not told by firmware or driver.
    """
    tree = DeviceRoot.of(root)
    devices = find_devices(tree, CLASSES)
    if devices is None:
        return (), (Missing("gpus", "no PCI bus in /sys/devices"),)
    missing: list[Missing] = []
    found: list[PciDevice] = []
    for device in devices:
        if device.class_code is None:
            # A GPU cannot be told from a disk then: better a row than a wrong or lost card.
            missing.append(Missing(f"gpus {device.address}", "its PCI class is not readable"))
        elif is_gpu(device):
            found.append(device)
    gpus = [
        _read(tree, index, device, nodes, missing)
        for index, device in enumerate(sorted(found, key=order))
    ]
    return tuple(gpus), tuple(missing)


def _read(
    root: DeviceRoot, index: int, device: PciDevice, nodes: Nodes, missing: list[Missing]
) -> Gpu:
    whys: dict[str, str] = {}

    def unknown(field: str, why: str) -> None:
        whys[field] = f"{device.address}: {why}"

    integrated = is_integrated(device)
    virtual = root.link(f"{device.folder}/physfn") is not None
    if device.vendor is None or device.device is None:
        unknown("device", "its PCI ids are not readable")
    known = pci_names.model(device.vendor, device.device)
    if known is None:
        unknown("name", f"no name for PCI id {device.vendor}:{device.device} in our list")
    driver = _driver(root, device)
    if driver is None:
        unknown("driver", "no driver is bound to it")
    node, derived = _numa_node(root, device, nodes, unknown)
    bars = read_bars(root, device)
    bar = max(bars, key=lambda each: each.size_bytes, default=None)
    if bar is None:
        unknown("bar_bytes", "no readable BAR in resource or config")
    elif bar.address is None:
        unknown("bar_address", "firmware gave the largest BAR no address")
    sizes = read_bar_sizes(root, device, bar.number) if bar else None
    ports = () if integrated else _ports(root, device)
    link, link_at = _narrowest(root, device, ports, "current")
    best, _ = _narrowest(root, device, ports, "max")
    if integrated:
        unknown("link_gt_s", "inside the processor: it has no PCIe link")
    elif link is None and read_link(root, device.folder) is None:
        unknown("link_gt_s", "it tells no PCIe link, or one on the way to it tells none")
    elif link is None and not ports:
        unknown("link_gt_s", "its own word (2.5 GT/s x1) is never true, the card's port is hidden")
    elif link is None:
        unknown("link_gt_s", "a link on the way to it cannot be read at either end")
    if best is None and link is not None:
        unknown("link_best_gt_s", "the ports on the way do not tell what they could do")
    card, render = _drm_nodes(root, device)
    if card is None and render is None:
        unknown("drm_card", "no drm device: no driver, or one without drm")
    elif card is None or render is None:
        unknown("drm_card" if card is None else "drm_render", "its driver made none")
    memory = _memory_by_driver(root, device, card)
    from_model = False
    if memory is None and known is not None and not virtual:
        memory = pci_names.memory_bytes(known, bar.size_bytes if bar else 0, sizes)
        from_model = memory is not None
    if memory is None:
        shares = "it shares the processor's memory" if integrated else "its driver does not tell"
        unknown("memory_bytes", shares)
    elif from_model and known is not None:
        unknown("memory_bytes", f"not told by its driver: what an {known.name} is sold with")
    gpu = Gpu(
        index=index,
        pci=device.address,
        vendor=device.vendor,
        device=device.device,
        name=known.name if known else None,
        driver=driver,
        numa_node=node,
        memory_bytes=memory,
        bar_bytes=bar.size_bytes if bar else None,
        bar_address=bar.address if bar else None,
        link_gt_s=link.gt_s if link else None,
        link_width=link.width if link else None,
        drm_card=card,
        drm_render=render,
        integrated=integrated,
        virtual_function=virtual,
        numa_node_derived=derived,
        pci_path=device.path,
        link_at=link_at,
        link_best_gt_s=best.gt_s if best else None,
        link_best_width=best.width if best else None,
        bar_sizes_bytes=sizes,
        may_open=root.may_open(f"dev/dri/{render}") if render else None,
    )
    for field, like in _SAME_REASON.items():
        if getattr(gpu, field) is None and like in whys:
            whys.setdefault(field, whys[like])
    missing += [Missing(f"gpus[{index}].{field}", why) for field, why in whys.items()]
    return gpu


def _driver(root: DeviceRoot, device: PciDevice) -> str | None:
    """The `driver` link, else DRIVER= of `uevent`; None where none is bound."""
    target = root.link(f"{device.folder}/driver")
    if target is not None:
        return target.rpartition("/")[2]
    told = re.search(
        r"^DRIVER=([\w.-]{1,64})$", root.text(f"{device.folder}/uevent") or "", re.MULTILINE
    )
    return told.group(1) if told else None


def _numa_node(
    root: DeviceRoot, device: PciDevice, nodes: Nodes, unknown: Callable[[str, str], None]
) -> tuple[int | None, bool]:
    """`numa_node`, else the one node whose PUs are all that is near (`local_cpulist`)."""
    text = root.line(f"{device.folder}/numa_node") or ""
    indexes = {index for index, _ in nodes}
    if re.fullmatch(r"[0-9]{1,4}", text) and int(text) in indexes:
        return int(text), False
    if text == "-1":
        why = "firmware does not say (-1)"
    elif re.fullmatch(r"[0-9]{1,4}", text):
        why = f"firmware says {text}, a NUMA node that the kernel does not have"
    else:
        why = "numa_node is not readable"
    lists = [f"{device.above(address)}/local_cpulist" for address in reversed(device.path)]
    if device.host_bridge:
        bus = device.host_bridge.rpartition("/pci")[2]
        lists.append(f"{device.host_bridge}/pci_bus/{bus}/cpulistaffinity")
    for name in lists or [f"{device.folder}/local_cpulist"]:
        near = read_list(root, name) or CpuSet()
        homes = [index for index, cpus in nodes if cpus & near]
        if len(homes) == 1:
            unknown("numa_node", f"{why}: taken from the PUs near it, {near}")
            return homes[0], True
    unknown("numa_node", f"{why}, and the PUs near it are of no single NUMA node")
    return None, False


def _ports(root: DeviceRoot, device: PciDevice) -> tuple[str, ...]:
    """The functions on the path whose links count: not those of a link inside the card.

    An Arc sits behind a bridge on its own card and reports 2.5 GT/s x1 whatever its slot.
    """
    own = read_link(root, device.folder) or _LIE
    if device.vendor not in (pci_names.INTEL, None) or own != _LIE:
        return device.path
    bridges = device.path[:-1]
    vendors = [read_hex(root, f"{device.above(name)}/vendor", 0xFFFF) for name in bridges[-2:]]
    if vendors != [_INTEL, _INTEL]:
        return ()  # the card's own bridge is not to be seen: a guest, or a cut recording
    # The last bridge is the other end of the link inside; the one above it sits in the slot.
    return bridges[:-1]


def _narrowest(
    root: DeviceRoot, device: PciDevice, ports: tuple[str, ...], which: str
) -> tuple[Link | None, str | None]:
    """The link that limits the path, and its upper end; None if one link is unknown."""
    ends = [(read_link(root, device.above(name), which), name) for name in ports]
    narrowest: tuple[Link | None, str | None] = (None, None)
    # Two functions share a link: the upper one is a root or switch port. Only a hidden root
    # port leaves one function alone, the first.
    for last in range(len(ends), 0, -2):
        pair = ends[max(0, last - 2) : last]
        told = [link for link, _ in pair if link is not None]
        # Both ends run at the same speed now, but what they could do differs.
        if not told or (which == "max" and len(told) < len(pair)):
            return None, None
        link = min(told, key=lambda each: each.order)
        if narrowest[0] is None or link.order < narrowest[0].order:
            narrowest = link, pair[0][1]
    return narrowest


def _drm_nodes(root: DeviceRoot, device: PciDevice) -> tuple[str | None, str | None]:
    """`cardN` and `renderDN` in the device's `drm` folder; their numbers follow no order."""
    names = root.names(f"{device.folder}/drm")
    cards = [name for name in names if re.fullmatch(r"card[0-9]+", name)]
    renders = [name for name in names if re.fullmatch(r"renderD[0-9]+", name)]
    return next(iter(cards), None), next(iter(renders), None)


def _memory_by_driver(root: DeviceRoot, device: PciDevice, card: str | None) -> int | None:
    """The card's own memory where a driver shows it in sysfs; Linus's i915 and xe do not.

    `lmem_total_bytes` is i915's with Intel's out-of-tree patches, `physical_vram_size_bytes` an
    early xe's (a tile each), `mem_info_vram_total` amdgpu's.
    """
    tiles = [name for name in root.names(device.folder) if re.fullmatch(r"tile[0-9]+", name)]
    by_tile = [_bytes(root, f"{device.folder}/{tile}/physical_vram_size_bytes") for tile in tiles]
    if by_tile and None not in by_tile:
        return sum(size for size in by_tile if size is not None)
    whole = [f"{device.folder}/mem_info_vram_total"]
    if card is not None:
        whole.insert(0, f"{device.folder}/drm/{card}/lmem_total_bytes")
    return next((size for name in whole if (size := _bytes(root, name)) is not None), None)


def _bytes(root: DeviceRoot, name: str) -> int | None:
    text = root.line(name) or ""
    # 0 is what these files say where there is no such memory.
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,14}", text) else None
