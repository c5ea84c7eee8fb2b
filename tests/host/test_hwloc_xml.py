"""hwloc's XML: small hand-written files, hostile ones, and what lstopo itself writes."""

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import UsageError
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from engine.host.archive import open_root
from engine.host.hwloc_objects import parse_bitmap
from engine.host.hwloc_xml import read_hwloc
from engine.host.machine import read_machine
from tests.shared import needs, shared
from tests.sysfs_tree import write_machine

GIB = 1 << 30
TRUTH = sorted(shared("machines/truth").glob("*.json"), key=lambda path: path.name)


def obj(kind: str, *inside: str, **attributes: object) -> str:
    told = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f'<object type="{kind}"{told}>{"".join(inside)}</object>'


def info(**pairs: object) -> str:
    return "".join(f'<info name="{name}" value="{value}"/>' for name, value in pairs.items())


def core(index: int, *pus: int) -> str:
    return obj(
        "Core", *(obj("PU", os_index=pu, cpuset=hex(1 << pu)) for pu in pus), os_index=index
    )


def topology(*inside: str, version: str = "2.0", doctype: str | None = None) -> str:
    doctype = '<!DOCTYPE topology SYSTEM "hwloc2.dtd">' if doctype is None else doctype
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}\n'
        f'<topology version="{version}">{"".join(inside)}</topology>\n'
    )


def node(index: int, mask: int, memory: int | None = GIB, **more: object) -> str:
    if memory is not None:
        more["local_memory"] = memory
    return obj("NUMANode", os_index=index, cpuset=hex(mask), nodeset=hex(1 << index), **more)


def server(version: str = "2.0") -> str:
    """Two packages of two SMT cores, PU 7 offline, PU 6 not allowed, a card by the second."""
    card = obj(
        "Bridge",
        obj(
            "Bridge",
            obj(
                "PCIDev",
                obj("OSDev", name="card1", osdev_type=1),
                obj("OSDev", name="renderD129", osdev_type=1),
                obj("OSDev", info(LevelZeroDDRSize=11 << 20), name="ze0", osdev_type=5),
                info(PCIDevice="Battlemage G21"),
                pci_busid="0000:43:00.0",
                pci_type="0300 [8086:e20b] [8086:1100] 00 00",
                pci_link_speed="0.250000",
            ),
            bridge_type="1-1",
            pci_busid="0000:40:01.0",
            pci_type="0604 [8086:352a] [0000:0000] 04",
        ),
        bridge_type="0-1",
        bridge_pci="0000:[40-43]",
    )
    return topology(
        obj(
            "Machine",
            info(HostName="secret"),
            obj("Package", node(0, 0x33), core(0, 0, 4), core(1, 1, 5), os_index=0, cpuset="0x33"),
            obj(
                "Package",
                node(1, 0x4C, 2 * GIB),
                core(0, 2, 6),
                core(1, 3),
                card,
                os_index=1,
                cpuset="0x4c",
                nodeset="0x2",
            ),
            cpuset="0x7f",
            complete_cpuset="0xff",
            allowed_cpuset="0x3f",
            nodeset="0x3",
            complete_nodeset="0x3",
            allowed_nodeset="0x1",
        ),
        '<distances2 type="NUMANode" nbobjs="2" kind="5" name="NUMALatency" indexing="os">'
        '<indexes length="4">1 0 </indexes><u64values length="6">10 31 </u64values>'
        '<u64values length="6">21 11 </u64values></distances2>',
        version=version,
    )


def read(tmp_path: Path, text: str | bytes) -> Machine:
    path = tmp_path / "machine.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_hwloc(path)


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_a_server(tmp_path: Path, version: str) -> None:
    machine = read(tmp_path, server(version))
    assert not machine.live
    assert [(each.os_index, each.cores) for each in machine.packages] == [(0, 2), (1, 2)]
    assert [(each.package, each.core_id, str(each.pus)) for each in machine.cores] == [
        *((0, 0, "0,4"), (0, 1, "1,5"), (1, 0, "2,6"), (1, 1, "3"))
    ]
    assert [str(each.cpus) for each in machine.numa_nodes] == ["0-1,4-5", "2-3,6"]
    assert [each.memory_bytes for each in machine.numa_nodes] == [GIB, 2 * GIB]
    assert [each.packages for each in machine.numa_nodes] == [(0,), (1,)]
    assert str(machine.pus.online) == "0-6"
    assert str(machine.pus.offline) == "7"
    assert str(machine.pus.usable) == "0-5"
    assert machine.usable_nodes == NodeSet([0])
    # The file lists node 1 first.
    assert machine.distances == ((11, 21), (31, 10))
    (gpu,) = machine.gpus
    assert (gpu.pci, gpu.name, gpu.numa_node) == ("0000:43:00.0", "Arc B580", 1)
    assert (gpu.drm_card, gpu.drm_render, gpu.memory_bytes) == ("card1", "renderD129", 11 * GIB)
    assert (gpu.driver, gpu.link_gt_s, gpu.bar_bytes) == (None, None, None)
    told = {each.what for each in machine.missing}
    assert {"gpus[*].driver", "gpus[*].link_gt_s", "gpus[*].bar_bytes"} <= told
    # Allowed and online differ: the file was written with all PUs, so 7 is offline for sure.
    assert "pus.offline" not in told


def test_offline_and_not_allowed_cannot_be_told_apart_without_disallowed(tmp_path: Path) -> None:
    text = server().replace('allowed_cpuset="0x3f"', 'allowed_cpuset="0x7f"')
    machine = read(tmp_path, text)
    assert "pus.offline" in {each.what for each in machine.missing}


def test_memory_only_nodes_have_no_pus_and_keep_their_kind(tmp_path: Path) -> None:
    inside = obj(
        "Package",
        # hwloc gives a memory-only node the PUs of what it is attached to.
        node(2, 0xF, 32 * GIB, subtype="CXL-DRAM"),
        obj(
            "Group",
            obj("MemCache", node(0, 0x3, subtype="DRAM")),
            node(3, 0x3, subtype="HBM"),
            core(0, 0, 1),
        ),
        obj("Group", node(1, 0xC), node(4, 0xC), core(1, 2, 3)),
        node(5, 0x0, 0),
        os_index=0,
    )
    machine = read(tmp_path, topology(obj("Machine", inside, allowed_cpuset="0xf")))
    assert [(str(each.cpus), each.kind) for each in machine.numa_nodes] == [
        ("0-1", "dram"),
        ("2-3", "dram"),
        ("", "cxl"),
        ("", "hbm"),
        ("", "unknown"),
        ("", "unknown"),
    ]
    assert machine.numa_nodes[5].memory_bytes == 0


def test_what_the_file_leaves_out_is_told(tmp_path: Path) -> None:
    text = topology(
        obj("Machine", obj("NUMANode", os_index=0, cpuset="0x3"), obj("PU", os_index=0))
    )
    machine = read(tmp_path, text)
    assert machine.packages == ()
    assert machine.cores[0].package is None
    assert machine.cores[0].core_id is None
    assert machine.numa_nodes[0].memory_bytes is None
    assert machine.distances is None
    told = " ".join(each.what for each in machine.missing)
    for what in ("package", "memory_bytes", "distances", "pus.usable", "gpus", "cores PU 0"):
        assert what in told


def test_kinds_of_cores(tmp_path: Path) -> None:
    kinds = (
        f'<cpukind cpuset="0x3">{info(CoreType="IntelCore")}</cpukind>'
        f'<cpukind cpuset="0x4">{info(CoreType="IntelAtom")}</cpukind>'
    )
    machine = read(tmp_path, topology(obj("Machine", core(0, 0, 1), core(1, 2)), kinds))
    assert [each.kind for each in machine.cores] == ["performance", "efficiency"]


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("0x0", ""),
        ("0x0000000f", "0-3"),
        ("0x00000001,0x80000000", "31-32"),
        ("0x00000001,,0x00000001", "0,64"),
        ("0x1,,", "64"),
        ("0xf...f", None),
        ("0xf...f,0x00000001", None),
        ("15", None),
        ("0x1ffffffff", None),
        (",".join(["0x1"] * 2000), None),
    ],
)
def test_bitmaps(text: str, indexes: str | None) -> None:
    assert parse_bitmap(text) == (None if indexes is None else CpuSet.parse(indexes))


LAUGHS = (
    '<!DOCTYPE topology [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not XML"),
        ("hello", "not XML"),
        (server()[:-30], "not XML"),
        ("<html/>", "outermost element is 'html'"),
        ("<topology/>", "format version '1'"),
        (topology(version="4.0"), "format version '4.0'"),
        (topology(version="2.0"), "no object of type Machine"),
        (topology(obj("Machine")), "holds no PU"),
        (topology(obj("Machine", obj("PU"))), "no os_index"),
        (topology(obj("Machine", core(0, 1), core(1, 1))), "PU 1 stands twice"),
        (topology(obj("Machine", core(0, 1), node(0, 2), node(0, 2))), "NUMA nodes"),
        (topology("&i;", doctype=LAUGHS), "document type of its own"),
        (
            topology("&x;", doctype='<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
            "document type of its own",
        ),
        (topology("<a>" * 300 + "</a>" * 300), "nested more than 200 deep"),
        (b"\x1f\x8b\x08\x00garbage", "not XML"),
        (server().encode("utf-16").replace(b"UTF-8", b"UTF-8"), "not XML"),
    ],
)
def test_what_is_not_hwlocs_is_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert says in caught.value.why
    assert "lstopo" in caught.value.do


def test_absent_and_too_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_hwloc(tmp_path / "absent.xml")
    with pytest.raises(UsageError, match="directory"):
        read_hwloc(tmp_path)
    monkeypatch.setattr("engine.host.hwloc_objects.MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="larger than"):
        read(tmp_path, server())


def test_each_attribute_broken_in_turn_is_a_machine_or_an_error(tmp_path: Path) -> None:
    text = server()
    whole = read(tmp_path, text)
    for found in re.finditer(r' [a-z_]+="([^"]*)"|>([0-9 ]+)<', text):
        for value in ("", "-1", "99999999999999999999", "0xf...f", "ﬁ"):
            group = 1 if found.group(1) is not None else 2
            start, end = found.span(group)
            try:
                machine = read(tmp_path, text[:start] + value + text[end:])
            except UsageError:
                continue
            assert machine.pus.online <= whole.pus.online
            assert all(gpu.memory_bytes != 0 for gpu in machine.gpus)


@given(cut=st.integers(0, 4000), put=st.text(max_size=20))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_a_machine_or_an_error(tmp_path: Path, cut: int, put: str) -> None:
    text = server()
    with suppress(UsageError):
        read(tmp_path, (text[:cut] + put + text[cut + len(put) :]).encode("utf-8", "replace"))


# What lstopo writes, where it is at hand.


def lstopo(root: Path, target: Path, *options: str) -> Machine:
    program = shutil.which("lstopo-no-graphics")
    if program is None:
        pytest.skip("lstopo-no-graphics is not installed (Debian: hwloc-nox)")
    subprocess.run(
        [program, "--of", "xml", *options, str(target)],
        env={
            "HWLOC_FSROOT": str(root),
            "HWLOC_THISSYSTEM": "0",
            # Without it hwloc asks the CPU that runs the test.
            "HWLOC_COMPONENTS": "linux,stop",
            "HWLOC_HIDE_ERRORS": "2",
            "PATH": os.defpath,
        },
        check=True,
        capture_output=True,
    )
    return read_hwloc(target)


@pytest.mark.parametrize("path", TRUTH or [None], ids=lambda path: path.stem if path else "none")
def test_lstopos_file_of_a_recorded_machine(path: Path | None, tmp_path: Path) -> None:
    if path is None:
        pytest.skip("no recorded machines (set SLOTDECK_SHARED to their folder)")
    truth: dict[str, Any] = json.loads(path.read_text())
    with open_root(needs(f"machines/trees/{path.stem}.tar.bz2")) as root:
        machine = lstopo(root.path, tmp_path / "a.xml", "--disallowed", "--whole-io")
    online = CpuSet.parse(truth["online"])
    kernel = {
        each["os_index"]: CpuSet.parse(each["kernel_cpus"].replace("\0", ""))
        for each in truth["numa_nodes"]
    }
    # The kernel's lists name offline PUs too; for hwloc those are of no node.
    assert {each.os_index: each.cpus for each in machine.numa_nodes} == {
        index: cpus & online for index, cpus in kernel.items()
    }
    assert [each.memory_bytes or 0 for each in machine.numa_nodes] == [
        each["memory_bytes"] for each in truth["numa_nodes"]
    ]
    assert sorted(str(each.pus) for each in machine.cores) == sorted(
        each["pus"] for each in truth["cores"]
    )
    assert machine.pus.online == online
    told = truth["distances"]
    assert machine.distances == (told and tuple(map(tuple, told["matrix"])))
    assert machine.pus.usable == CpuSet.parse(truth["allowed_pus"]) & online
    assert machine.usable_nodes == NodeSet.parse(truth["allowed_nodes"]) & NodeSet(kernel)


def test_lstopos_file_of_a_guest_is_the_guest() -> None:
    machine = read_hwloc(needs("machines/g1.xml"))
    with open_root(needs("machines/g1.tar.gz")) as root:
        ours = read_machine(root)
    for field in fields(Machine):
        if field.name not in ("gpus", "missing"):
            assert getattr(machine, field.name) == getattr(ours, field.name), field.name
    assert [(each.pci, each.numa_node) for each in machine.gpus] == [
        *(("0000:21:00.0", 0), ("0000:41:00.0", 1), ("0000:61:00.0", 2), ("0000:81:00.0", 3))
    ]


@pytest.mark.parametrize(
    "spec",
    [
        "pack:2 numa:2 core:3 pu:2 mem:4GiB",
        "pack:1 core:2 mem:1GiB",
        "pack:3 core:1 pu:4 mem:8GiB",
        "pack:4 numa:4 core:4 pu:2 mem:16GiB",
    ],
)
def test_lstopo_sees_a_made_up_machine_as_it_was_meant(spec: str, tmp_path: Path) -> None:
    made = parse_synthetic(spec)
    seen = lstopo(write_machine(made, tmp_path / "tree").path, tmp_path / "a.xml")
    if len(made.numa_nodes) == 1:  # hwloc keeps no matrix of one
        made = replace(made, distances=None)
    assert replace(seen, missing=()) == replace(made, missing=())
