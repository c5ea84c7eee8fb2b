"""Another machine, from the XML file that hwloc's `lstopo` wrote there."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Core, Gpu, Machine, Missing, NumaNode, Package, Pus
from engine.host import pci_names
from engine.host.gpu_kinds import is_gpu, is_integrated, order
from engine.host.hwloc_objects import (
    HwlocObject,
    infos,
    not_hwloc,
    objects,
    parse_bitmap,
    read_topology,
)
from engine.host.pci import ADDRESS, PciDevice

# Subtypes of NUMA nodes in hwloc 2.10 and 3; NVM and SPM (memory set apart) are none of ours.
_MEMORY_KINDS = {
    "DRAM": "dram",
    "HBM": "hbm",
    "MCDRAM": "hbm",
    "GPUMemory": "gpu",
    "CXL-DRAM": "cxl",
    "CXL-NVM": "cxl",
}
_CORE_KINDS = {"IntelCore": "performance", "IntelAtom": "efficiency"}
# In KiB, by hwloc's Level Zero, OpenCL, CUDA and ROCm plugins.
_MEMORY_INFOS = (
    ("LevelZeroHBMSize", "LevelZeroDDRSize"),
    ("LevelZeroMemorySize",),
    ("OpenCLGlobalMemorySize",),
    ("CUDAGlobalMemorySize",),
    ("RSMIVRAMSize",),
)


def read_hwloc(path: Path) -> Machine:
    """The machine in an XML file of hwloc 2 or 3; never live. Raises UsageError."""
    top = read_topology(path)
    found = list(objects(top))
    whole = next((each for each in found if each.kind == "Machine"), None)
    if whole is None:
        raise not_hwloc(path, "it holds no object of type Machine")
    missing: list[Missing] = []
    cores = _cores(path, top, found, missing)
    online = CpuSet(pu for core in cores for pu in core.pus)
    nodes = _nodes(path, found, online, missing)
    cores = tuple(_with_nodes(core, nodes) for core in cores)
    packages = sorted({core.package for core in cores if core.package is not None})
    allowed = whole.index_set("allowed_cpuset")
    allowed_nodes = whole.index_set("allowed_nodeset")
    if allowed is None or allowed_nodes is None:
        missing.append(Missing("pus.usable", "the file tells no allowed sets: all taken"))
    offline = (whole.index_set("complete_cpuset") or online) - online
    if offline and allowed is not None and online <= allowed:
        why = "lstopo without --disallowed leaves out what is offline and what is not allowed"
        missing.append(Missing("pus.offline", f"{offline} may only be not allowed: {why}"))
    every_node = NodeSet(node.os_index for node in nodes)
    return Machine(
        packages=tuple(
            Package(
                os_index=package,
                numa_nodes=NodeSet(
                    node for core in cores if core.package == package for node in core.numa_nodes
                ),
                cores=sum(1 for core in cores if core.package == package),
            )
            for package in packages
        ),
        numa_nodes=tuple(_with_packages(node, cores) for node in nodes),
        cores=cores,
        pus=Pus(
            online=online,
            offline=offline,
            usable=online if allowed is None else online & allowed,
        ),
        usable_nodes=every_node if allowed_nodes is None else every_node & allowed_nodes,
        distances=_distances(top, [node.os_index for node in nodes], missing),
        gpus=_gpus(found, nodes, missing),
        missing=tuple(missing),
        live=False,
    )


def _cores(
    path: Path,
    top: ElementTree.Element,
    found: Iterable[HwlocObject],
    missing: list[Missing],
) -> tuple[Core, ...]:
    """PUs by the Core above them, in the order of the machine: by package, then first PU."""
    by_core: dict[int, tuple[HwlocObject, set[int]]] = {}
    seen: set[int] = set()
    for pu in found:
        if pu.kind != "PU":
            continue
        if pu.os_index is None or pu.os_index in seen:
            why = "has no os_index" if pu.os_index is None else f"{pu.os_index} stands twice"
            raise not_hwloc(path, f"its PU {why}")
        seen.add(pu.os_index)
        core = pu.above("Core")
        if core is None:
            missing.append(Missing(f"cores PU {pu.os_index}", "taken as a core of one PU"))
        by_core.setdefault(id(core or pu), (core or pu, set()))[1].add(pu.os_index)
    if not seen:
        raise not_hwloc(path, "it holds no PU")
    kinds = _core_kinds(top)
    cores: list[Core] = []
    for core, pus in by_core.values():
        package = core.above("Package")
        if package is None or package.os_index is None:
            missing.append(Missing(f"cores PU {min(pus)} package", "the file tells none"))
        cores.append(
            Core(
                package=package.os_index if package else None,
                core_id=core.os_index if core.kind == "Core" else None,
                numa_nodes=NodeSet(),
                pus=CpuSet(pus),
                kind=next((kind for kind, cpus in kinds if CpuSet(pus) <= cpus), None),
            )
        )
    return tuple(sorted(cores, key=lambda core: (core.package or 0, min(core.pus))))


def _core_kinds(top: ElementTree.Element) -> list[tuple[str, CpuSet]]:
    """`<cpukind>`: hwloc's word for performance and efficiency cores."""
    found: list[tuple[str, CpuSet]] = []
    for element in top.findall("cpukind"):
        kind = _CORE_KINDS.get(infos(element).get("CoreType", ""))
        cpus = parse_bitmap(element.get("cpuset", ""))
        if kind is not None and cpus:
            found.append((kind, cpus))
    return found if len({kind for kind, _ in found}) > 1 else []


def _nodes(
    path: Path, found: Iterable[HwlocObject], online: CpuSet, missing: list[Missing]
) -> tuple[NumaNode, ...]:
    """NUMA nodes with the PUs that the kernel would list for each.

    For hwloc a memory-only node has the PUs of what it is attached to; for the kernel every PU is
    of one node. The node with the smallest set is its own; of equal ones that of plain memory,
    then that of the lowest number, as firmware numbers nodes with PUs first.
    """
    told = [each for each in found if each.kind == "NUMANode"]
    indexes = [each.os_index for each in told]
    if None in indexes or len(set(indexes)) < len(indexes):
        raise not_hwloc(path, "its NUMA nodes have no os_index, or one has it twice")
    if not told:
        missing.append(Missing("numa_nodes", "the file tells none"))

    def nearness(each: HwlocObject) -> tuple[int, bool, int]:
        special = _kind(each) not in (None, "dram") or each.attributes.get("subtype") == "NVM"
        return len(each.index_set("cpuset") or ()), special, each.os_index or 0

    owned: dict[int, CpuSet] = {}
    free = online
    for each in sorted(told, key=nearness):
        cpus = (each.index_set("cpuset") or CpuSet()) & free
        free = free - cpus
        owned[each.os_index or 0] = cpus
    nodes: list[NumaNode] = []
    for each in sorted(told, key=lambda each: each.os_index or 0):
        index = each.os_index or 0
        text = each.attributes.get("local_memory", "")
        memory = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
        if memory is None:
            why = "hwloc leaves out what is 0 or unknown"
            missing.append(Missing(f"numa_nodes {index} memory_bytes", why))
        plain = "dram" if owned[index] and memory else "unknown"
        near = each.index_set("cpuset") or CpuSet()
        initiators = NodeSet()
        if not owned[index] and near != online:
            initiators = NodeSet(one for one, cpus in owned.items() if cpus & near)
        kind = _kind(each) or plain
        nodes.append(NumaNode(index, owned[index], memory, (), kind, initiators))
    return tuple(nodes)


def _kind(node: HwlocObject) -> str | None:
    return _MEMORY_KINDS.get(node.attributes.get("subtype", ""))


def _with_nodes(core: Core, nodes: Iterable[NumaNode]) -> Core:
    near = NodeSet(node.os_index for node in nodes if node.cpus & core.pus)
    return Core(core.package, core.core_id, near, core.pus, core.kind)


def _with_packages(node: NumaNode, cores: Iterable[Core]) -> NumaNode:
    packages = {
        core.package
        for core in cores
        if core.package is not None and node.os_index in core.numa_nodes
    }
    return replace(node, packages=tuple(sorted(packages)))


def _distances(
    top: ElementTree.Element, order_: Sequence[int], missing: list[Missing]
) -> tuple[tuple[int, ...], ...] | None:
    """`<distances2 type="NUMANode" name="NUMALatency">`, rows in the order of the nodes."""
    for element in top.findall("distances2"):
        if (
            element.get("type") != "NUMANode"
            or element.get("name", "NUMALatency") != "NUMALatency"
            or element.get("indexing", "os") != "os"
        ):
            continue
        indexes = _numbers(element, "indexes")
        values = _numbers(element, "u64values")
        size = len(indexes)
        if sorted(indexes) != list(order_) or len(values) != size * size or max(values) > 10**6:
            continue
        rows = [indexes.index(node) for node in order_]
        return tuple(tuple(values[row * size + column] for column in rows) for row in rows)
    if order_:
        missing.append(Missing("distances", "the file has no NUMALatency of all NUMA nodes"))
    return None


def _numbers(element: ElementTree.Element, tag: str) -> list[int]:
    """hwloc breaks long rows of numbers into several elements."""
    words = " ".join(each.text or "" for each in element.findall(tag)).split()
    return [int(word) for word in words if re.fullmatch(r"[0-9]{1,19}", word)]


def _gpus(
    found: Sequence[HwlocObject], nodes: Sequence[NumaNode], missing: list[Missing]
) -> tuple[Gpu, ...]:
    cards = [
        (device, each)
        for each in found
        if each.kind == "PCIDev" and (device := _pci(each)) is not None and is_gpu(device)
    ]
    gpus: list[Gpu] = []
    for index, (device, each) in enumerate(sorted(cards, key=lambda card: order(card[0]))):
        inside = [
            child
            for child in found
            if child.kind == "OSDev" and any(parent is each for parent in child.parents)
        ]
        gpus.append(_gpu(index, device, each, inside, nodes, missing))
    if gpus:
        fields = ("driver", "bar_bytes", "bar_address", "link_gt_s", "link_width")
        missing += [Missing(f"gpus[*].{each}", "hwloc's XML does not tell") for each in fields]
    if not any(each.kind in ("Bridge", "PCIDev") for each in found):
        missing.append(Missing("gpus", "the file holds no PCI: lstopo wrote it without I/O"))
    return tuple(gpus)


def _pci(each: HwlocObject) -> PciDevice | None:
    """`pci_busid` and `pci_type` ("0300 [8086:e20b] …") with the bridges above as its folder."""
    address = each.attributes.get("pci_busid", "")
    told = re.match(
        r"([0-9a-f]{4}) \[([0-9a-f]{4}):([0-9a-f]{4})\]", each.attributes.get("pci_type", "")
    )
    if not ADDRESS.fullmatch(address) or told is None:
        return None
    bridges = [parent.attributes.get("pci_busid", "") for parent in each.parents]
    above = [bridge for bridge in bridges if ADDRESS.fullmatch(bridge)]
    bus = (above[0] if above else address)[: -len(":00.0")]
    return PciDevice(
        address=address,
        folder="/".join(("sys/devices", f"pci{bus}", *above, address)),
        class_code=int(told.group(1), 16) << 8,
        vendor=told.group(2),
        device=told.group(3),
    )


def _gpu(
    index: int,
    device: PciDevice,
    each: HwlocObject,
    inside: Sequence[HwlocObject],
    nodes: Sequence[NumaNode],
    missing: list[Missing],
) -> Gpu:
    def unknown(field: str, why: str) -> None:
        missing.append(Missing(f"gpus[{index}].{field}", f"{device.address}: {why}"))

    known = pci_names.model(device.vendor, device.device)
    models = (one.infos["GPUModel"] for one in inside if one.infos.get("GPUModel"))
    name = known.name if known else next(models, None) or each.infos.get("PCIDevice")
    if name is None:
        unknown("name", "hwloc had no list of PCI ids")
    memory = _memory(inside)
    if memory is None and known is not None and not is_integrated(device):
        memory = pci_names.memory_bytes(known, 0, None)
        if memory is not None:
            unknown("memory_bytes", f"not told: what an {known.name} is sold with")
    if memory is None:
        unknown("memory_bytes", "no plugin of hwloc told it")
    node = _near(each, nodes)
    if node is None:
        unknown("numa_node", "it is attached to no single NUMA node")
    drm = [one.attributes.get("name", "") for one in inside]
    card = next((each for each in drm if re.fullmatch(r"card[0-9]+", each)), None)
    render = next((each for each in drm if re.fullmatch(r"renderD[0-9]+", each)), None)
    for field, value in (("drm_card", card), ("drm_render", render)):
        if value is None:
            unknown(field, "no such device below it in the file")
    return Gpu(
        index=index,
        pci=device.address,
        vendor=device.vendor,
        device=device.device,
        name=name,
        driver=None,
        numa_node=node,
        memory_bytes=memory,
        bar_bytes=None,
        bar_address=None,
        link_gt_s=None,
        link_width=None,
        drm_card=card,
        drm_render=render,
    )


def _memory(inside: Iterable[HwlocObject]) -> int | None:
    every = {name: value for one in inside for name, value in one.infos.items()}
    for names in _MEMORY_INFOS:
        sizes = [every.get(name, "") for name in names]
        kib = sum(int(size) for size in sizes if re.fullmatch(r"[0-9]{1,12}", size))
        if kib:
            return kib * 1024
    return None


def _near(each: HwlocObject, nodes: Iterable[NumaNode]) -> int | None:
    """The one node with PUs that the nearest parent with a `nodeset` covers."""
    parent = next((one for one in reversed(each.parents) if one.index_set("nodeset")), None)
    near = (parent.index_set("nodeset") if parent else None) or NodeSet()
    homes = [node.os_index for node in nodes if node.cpus and node.os_index in near]
    return homes[0] if len(homes) == 1 else None
