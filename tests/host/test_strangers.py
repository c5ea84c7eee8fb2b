"""Programs of others on our PUs and GPUs: recorded ones of every kind, and real ones."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.core.cpuset import CpuSet
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from engine.host.machine import read_machine
from engine.host.process import PAGE_BYTES, TICKS_PER_S, read_all
from engine.host.root import HostRoot
from engine.host.strangers import read_strangers
from tests.machines_by_hand import narrowed, server, with_gpus, with_memoryless_node
from tests.sysfs_tree import SysfsTree

MIB = 1 << 20
UP_S = 10_000


class Processes:
    """A recorded /proc, in which all processes started with the machine."""

    def __init__(self, path: Path) -> None:
        self._tree = SysfsTree(path)
        self._tree.file("proc/uptime", f"{UP_S}.00 0.00")
        self._tree.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh")

    def process(
        self,
        pid: int,
        *affinities: str,
        name: str = "python3",
        mib: int = 300,
        cpu_s: float = 0.0,
        parent: int = 1,
        session: int | None = None,
        state: str = "S",
        uid: int = 1000,
        huge_mib: int = 0,
        mems: str = "0-3",
        group: str | None = None,
        policy: str | None = None,
        started_s: float = 0.0,
    ) -> None:
        """Its threads have the affinities given; the first one is the process's own."""
        numbers = {
            3: parent,
            4: session or pid,
            5: session or pid,
            13: int(cpu_s * TICKS_PER_S),
            21: int(started_s * TICKS_PER_S),
            23: mib * MIB // PAGE_BYTES,
            19: len(affinities),
        }
        fields = " ".join(str(numbers.get(place, 0)) for place in range(3, 52))
        self._tree.file(f"proc/{pid}/stat", f"{pid} ({name}) {state} {fields}")
        for index, affinity in enumerate(affinities):
            status = (
                f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
                f"HugetlbPages:\t{huge_mib * 1024:8} kB\nThreads:\t{len(affinities)}\n"
                f"Cpus_allowed_list:\t{affinity}\nMems_allowed_list:\t{mems}"
            )
            self._tree.file(f"proc/{pid}/task/{pid + index}/status", status)
            if index == 0:
                self._tree.file(f"proc/{pid}/status", status)
        if group is not None:
            self._tree.file(f"proc/{pid}/cgroup", group)
        if policy is not None:
            lines = f"00400000 {policy} file=/usr/bin/python3 mapped=4 N0=4 kernelpagesize_kB=4\n"
            self._tree.file(f"proc/{pid}/numa_maps", lines * 50)

    def cpuset(self, name: str, pus: str) -> None:
        self._tree.file(f"sys/fs/cgroup/{name}", pus)

    def opens(self, pid: int, number: int, target: str, info: str = "") -> None:
        link = self._tree.path / f"proc/{pid}/fd/{number}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        self._tree.file(f"proc/{pid}/fdinfo/{number}", info)

    def found(self, *ours: int, machine: Machine | None = None) -> dict[int, Stranger]:
        read = read_strangers(self._tree.root, ours, machine or server())
        assert [one.pid for one in read] == sorted(one.pid for one in read)
        return {one.pid: one for one in read}


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    """On a server of 64 PUs, on which all belong to everybody."""
    made = Processes(tmp_path)
    made.process(1, "0-63", name="systemd", uid=0)
    return made


def test_a_pinned_engine_and_all_that_is_told_of_it(processes: Processes) -> None:
    processes.process(812, "0-15,32-47", mib=32 << 10, cpu_s=1234.5)
    assert processes.found() == {
        812: Stranger(
            pid=812,
            name="python3",
            uid=1000,
            user="alice",
            pus=CpuSet.parse("0-15,32-47"),
            memory_nodes=None,
            gpus=(),
            threads=1,
            rss_bytes=32 << 30,
            cpu_seconds=1234.5,
        )
    }


def test_threads_pinned_one_by_one_are_one_holder(processes: Processes) -> None:
    processes.process(10, "0", "1", "2", "3")
    # Its first thread runs anywhere and hands out the work.
    processes.process(20, "0-63", "8", "9", "0-63")
    # One helper of many threads: no place of the process.
    processes.process(40, "0-63", "12", "0-63")
    found = processes.found()
    assert {pid: (str(one.pus), one.threads) for pid, one in found.items()} == {
        10: ("0-3", 4),
        20: ("8-9", 4),
    }


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({"mib": 256}, True),
        ({"mib": 255}, False),
        # On average since it started, 10,000 s ago; the young are not judged at once.
        ({"mib": 4, "cpu_s": 1000}, True),
        ({"mib": 4, "cpu_s": 999}, False),
        ({"mib": 4, "cpu_s": 1.0, "started_s": UP_S - 2}, True),
        ({"mib": 4, "cpu_s": 0.9, "started_s": UP_S - 1}, False),
        # A virtual machine: its memory is in huge pages.
        ({"mib": 20, "huge_mib": 4096, "cpu_s": 60.0}, True),
        ({"state": "Z"}, False),
        ({"mib": 0, "cpu_s": 9000, "name": "ksoftirqd/0", "parent": 2}, False),
        ({"name": "irqbalance", "cpu_s": 5000, "uid": 0}, False),
        ({"name": "systemd-journal", "uid": 0}, False),
        ({"name": "sshd-session"}, False),
    ],
)
def test_who_counts(processes: Processes, more: dict[str, float], *, counts: bool) -> None:
    processes.process(50, "0-7", **more)  # type: ignore[arg-type]  # a test's words
    assert (50 in processes.found()) == counts


def test_who_may_run_anywhere_holds_nothing(processes: Processes) -> None:
    processes.process(50, "0-63", mib=99999, cpu_s=90000)
    assert processes.found() == {}
    # In our own cpuset with us, as everybody there.
    processes.process(50, "0-1,8-9,12", mib=99999, cpu_s=90000)
    assert processes.found(machine=narrowed()) == {}
    assert 50 in processes.found()


def test_what_the_host_gives_to_everybody_is_no_pinning(processes: Processes) -> None:
    """`CPUAffinity=0-3` in system.conf: all services inherit it."""
    processes.process(1, "0-3", name="systemd", uid=0)
    processes.process(50, "0-3")
    processes.process(60, "0-2")
    assert set(processes.found()) == {60}
    # In a container, whose first process is an engine itself.
    processes.process(1, "0-3", uid=0)
    assert set(processes.found()) == {1, 50, 60}


@pytest.mark.parametrize(
    ("group", "cpusets"),
    [
        ("0::/box/inner", {"box/cpuset.cpus.effective": "0-15"}),
        (
            "3:cpu:/\n2:cpuset:/box\n0::/box",
            {"cpuset/box/cpuset.effective_cpus": "0-15"},
        ),
    ],
)
def test_a_containers_cpuset_alone_asks_for_real_use(
    processes: Processes, group: str, cpusets: dict[str, str]
) -> None:
    for name, pus in cpusets.items():
        processes.cpuset(name, pus)
    processes.process(50, "0-15", mib=1024, group=group)
    processes.process(60, "0-15", mib=4096, group=group)
    processes.process(70, "0-15", mib=10, cpu_s=UP_S / 2, group=group)
    processes.process(80, "0-7", mib=300, group=group)  # pinned inside it
    processes.process(90, *(str(pu) for pu in range(16)), mib=300, group=group)
    assert {pid: str(one.pus) for pid, one in processes.found().items()} == {
        60: "0-15",
        70: "0-15",
        80: "0-7",
        90: "0-15",
    }


@pytest.mark.parametrize("group", ["0::/../elsewhere", "0::/", "", "garbage", "0::/" + "x/" * 9])
def test_a_control_group_without_a_cpuset_narrows_nothing(
    processes: Processes, group: str
) -> None:
    processes.cpuset("cpuset.cpus.effective", "0-63")
    processes.process(50, "0-15", group=group)
    assert set(processes.found()) == {50}


def test_ours_are_no_strangers_nor_are_their_children(processes: Processes) -> None:
    processes.process(100, "0-7")
    processes.process(101, "0-3", parent=100, session=101)
    processes.process(102, "4-7", parent=1, session=100)
    processes.process(200, "8-15")
    assert set(processes.found(100)) == {200}
    assert set(processes.found()) == {100, 101, 102, 200}


def test_where_its_memory_comes_from(processes: Processes) -> None:
    processes.process(10, "0-7", mems="1")
    processes.process(20, "0-7", policy="bind:0-1")
    processes.process(30, "0-7", policy="interleave=static:2")
    processes.process(40, "0-7", policy="prefer:3")
    processes.process(50, "0-7", policy="default")
    told = {pid: one.memory_nodes for pid, one in processes.found().items()}
    assert {pid: None if nodes is None else str(nodes) for pid, nodes in told.items()} == {
        10: "1",
        20: "0-1",
        30: "2",
        40: None,
        50: None,
    }


def test_a_node_without_memory_is_in_nobodys_list(processes: Processes) -> None:
    processes.process(10, "0-3", mems="0,2")
    assert processes.found(machine=with_memoryless_node())[10].memory_nodes is None


XE = "drm-driver:\txe\ndrm-client-id:\t{client}\ndrm-pdev:\t{pdev}\n{memory}"
FIRST, SECOND = "0000:03:00.0", "0000:04:00.0"


def test_who_holds_a_gpus_memory(processes: Processes) -> None:
    processes.process(10, "0-63", name="vllm")
    for number, client in ((3, 1), (4, 1), (5, 2)):
        memory = "drm-total-vram0:\t9000 MiB\ndrm-resident-vram0:\t200 MiB"
        info = XE.format(client=client, pdev=FIRST, memory=memory)
        processes.opens(10, number, "/dev/dri/renderD128", info)
    # Every GPU of the machine, as runtimes do.
    info = XE.format(client=9, pdev=SECOND, memory="drm-resident-vram0:\t30 MiB")
    processes.opens(10, 6, "/dev/dri/renderD129", info)
    processes.opens(10, 7, "socket:[1234]", "pos:\t0")
    # i915, before it told what is resident; a client that is told twice counts once.
    processes.process(20, "0-63", name="python3")
    for number in (3, 4):
        memory = "drm-total-local0:\t 270000 KiB\ndrm-total-system0:\t0"
        info = XE.format(client=1, pdev=SECOND, memory=memory).replace("\txe", " i915")
        processes.opens(20, number, "/dev/dri/card1", info)
    processes.process(30, "0-63", name="player")
    half = XE.format(client=1, pdev=SECOND, memory="drm-resident-vram0:\t200 MiB")
    processes.opens(30, 3, "/dev/dri/card1", half)
    found = processes.found(machine=with_gpus())
    assert {pid: (one.gpus, str(one.pus)) for pid, one in found.items()} == {
        10: ((0,), ""),
        20: ((1,), ""),
    }
    assert processes.found() == {}  # that server has no GPUs: nobody's files are looked at


def test_a_name_and_a_user_reach_no_terminal_as_they_are(processes: Processes) -> None:
    processes.process(50, "0", name="a) \x1b[2J", uid=4242)
    (one,) = processes.found().values()
    assert (one.name, one.user, one.uid) == ("a) ?[2J", "uid 4242", 4242)


@pytest.mark.parametrize("gone", ["status", "task", "stat", "cgroup"])
def test_what_ends_while_it_is_read_is_no_stranger_or_a_partly_known_one(
    processes: Processes, tmp_path: Path, gone: str
) -> None:
    processes.process(50, "0", "1", group="0::/")
    path = tmp_path / f"proc/50/{gone}"
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert set(processes.found()) <= {50}
    for text in ("", "\n", "garbage", "Cpus_allowed_list:\t3-1\nUid:\tx", "Uid:\t0\n"):
        (tmp_path / "proc/50/status").write_text(text)
        assert set(processes.found()) <= {50}


def test_threads_beyond_the_limit_are_not_asked(processes: Processes, tmp_path: Path) -> None:
    processes.process(50, "0-7")
    status = (tmp_path / "proc/50/status").read_text().replace("Threads:\t1", "Threads:\t5000")
    (tmp_path / "proc/50/status").write_text(status)
    (tmp_path / "proc/50/task/50/status").write_text(status.replace("0-7", "9"))
    assert str(processes.found()[50].pus) == "0-7"


# The live host

ROOT = HostRoot()
LOAD = "import os, threading, time\nload = bytearray(os.urandom(1 << 20)) * 300\n"
PU = max(os.sched_getaffinity(0))
several = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="with one PU nobody can be pinned"
)


@pytest.fixture
def started() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    children: list[subprocess.Popen[str]] = []

    def start(program: str) -> "subprocess.Popen[str]":
        words = [sys.executable, "-I", "-S", "-c", f"{program}\nprint('on', flush=True); input()"]
        pipe = subprocess.PIPE
        child = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        children.append(child)
        assert child.stdout
        assert child.stdout.readline() == "on\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@several
def test_a_real_process_is_found(started: Callable[[str], "subprocess.Popen[str]"]) -> None:
    pinned = started(f"{LOAD}os.sched_setaffinity(0, [{PU}])")
    free = started(LOAD)
    small = started(f"import os; os.sched_setaffinity(0, [{PU}])")
    machine = read_machine(ROOT)
    found = {one.pid: one for one in read_strangers(ROOT, [], machine)}
    assert not {free.pid, small.pid} & found.keys()
    one = found[pinned.pid]
    assert (one.pus, one.uid, one.threads) == (CpuSet([PU]), os.getuid(), 1)
    assert one.name == Path(f"/proc/{pinned.pid}/comm").read_text().strip()
    assert 300 * MIB <= one.rss_bytes < 400 * MIB
    ours = read_strangers(ROOT, [pinned.pid], machine)
    assert pinned.pid not in {one.pid for one in ours}


@several
def test_real_threads_pinned_one_by_one(
    started: Callable[[str], "subprocess.Popen[str]"],
) -> None:
    child = started(
        f"""{LOAD}
ready = threading.Barrier(4)
def work(pu):
    os.sched_setaffinity(0, [pu])
    ready.wait()
    time.sleep(60)
for pu in [{PU}] * 3:
    threading.Thread(target=work, args=[pu], daemon=True).start()
ready.wait()"""
    )
    found = {one.pid: one for one in read_strangers(ROOT, [], read_machine(ROOT))}
    assert (found[child.pid].pus, found[child.pid].threads) == (CpuSet([PU]), 4)


def test_processes_that_come_and_go_raise_nothing() -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            subprocess.run(["true"], check=True)

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        machine = read_machine(ROOT)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            for one in read_strangers(ROOT, [], machine):
                assert one.pus or one.gpus
    finally:
        done.set()
        churning.join()


def test_it_is_bounded() -> None:
    """Measured: 0.01 ms a process. Ten times that is a mistake."""
    machine = read_machine(ROOT)
    best = float("inf")
    for _ in range(5):
        before = time.process_time()
        read_strangers(ROOT, [], machine)
        best = min(best, time.process_time() - before)
    assert best < 0.02 + 0.0005 * len(read_all(ROOT))
