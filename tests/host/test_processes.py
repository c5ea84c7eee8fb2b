"""Processes, memory policy and ports, asked of real children."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.core.cpuset import CpuSet, NodeSet
from engine.host.cpu_times import busy_shares, read_cpu_times
from engine.host.machine import read_machine
from engine.host.numa import memory_policy, process_policy, resident_nodes
from engine.host.ports import listening_ports
from engine.host.process import (
    boot_id,
    family,
    marked,
    read_all,
    read_stat,
    thread_affinities,
)
from engine.host.root import HostRoot

ROOT = HostRoot()


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    children: list[subprocess.Popen[str]] = []

    def start(program: str, **more: dict[str, str]) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=more.get("env"),
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def test_stat_of_ourselves() -> None:
    stat = read_stat(ROOT, os.getpid())
    assert stat is not None
    assert (stat.pid, stat.parent, stat.group) == (os.getpid(), os.getppid(), os.getpgrp())
    assert stat.session == os.getsid(0)
    assert stat.alive
    assert stat.rss_bytes > 1 << 20
    assert stat.cpu_s > 0
    # Without it a journal of before the boot would be taken for one of now.
    assert boot_id(ROOT) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_name_may_hold_spaces_and_parentheses(
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    child = started(
        "open('/proc/self/comm', 'w').write('a) b (c'); print('named', flush=True); input()"
    )
    assert said(child) == "named"
    stat = read_stat(ROOT, child.pid)
    assert stat is not None
    assert (stat.name, stat.parent, stat.session) == ("a) b (c", os.getpid(), child.pid)


@pytest.mark.parametrize("text", ["", "1", "1 (a", "1 (a) S", "1 (a) S 1 2 3"])
def test_a_torn_stat_is_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/stat").write_text(text)
    assert read_stat(HostRoot(tmp_path), 1) is None


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    try:
        deadline = time.monotonic() + 60
        while (stat := read_stat(ROOT, child.pid)) and stat.alive:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert stat is not None
        assert family(read_all(ROOT), [child.pid]) == ()
    finally:
        child.wait()
    assert read_stat(ROOT, child.pid) is None


CHILD_IN_ITS_OWN_SESSION = """
import os, time
child = os.fork()
if child == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    time.sleep(30)
os.waitpid(child, 0)
"""
DOUBLE_FORKED = """
import os, time
if os.fork() == 0:
    os.setsid()
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.005)
        print(os.getpid(), flush=True)
        time.sleep(30)
    os._exit(0)
os.wait()
time.sleep(30)
"""


def test_a_child_with_a_session_of_its_own_is_family(
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    leader = started(CHILD_IN_ITS_OWN_SESSION)
    child = int(said(leader))
    try:
        assert set(family(read_all(ROOT), [leader.pid])) == {leader.pid, child}
    finally:
        os.kill(child, 9)


def test_a_double_forked_process_is_found_by_its_mark(
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    leader = started(DOUBLE_FORKED, env={"SLOTDECK_TEST_MARK": "m-17"})
    lost = int(said(leader))
    try:
        processes = read_all(ROOT)
        assert lost not in family(processes, [leader.pid])
        assert set(marked(ROOT, processes, "SLOTDECK_TEST_MARK=m-17")) == {leader.pid, lost}
        assert marked(ROOT, processes, "SLOTDECK_TEST_MARK=m-1") == ()
    finally:
        os.kill(lost, 9)


def test_each_threads_affinity(started: Callable[..., subprocess.Popen[str]]) -> None:
    first = min(os.sched_getaffinity(0))
    child = started(
        f"import os, threading; os.sched_setaffinity(0, [{first}])\n"
        "threading.Thread(target=input, daemon=True).start(); print('on', flush=True)\n"
        "threading.Event().wait(30)"
    )
    assert said(child) == "on"
    affinities = thread_affinities(ROOT, child.pid)
    assert len(affinities) == 2
    assert set(affinities.values()) == {CpuSet([first])}
    assert thread_affinities(ROOT, 2**22 + 1) == {}


def in_a_child(program: str) -> str:
    """A policy belongs to a thread: ours stays as it is."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


POLICY = """
import os
from engine.core.cpuset import NodeSet
from engine.host.numa import memory_policy, process_policy, set_memory_policy
from engine.host.root import HostRoot
"""


def refuses_policies() -> bool:
    try:
        memory_policy()
    except OSError:
        return True
    return False


numa = pytest.mark.skipif(
    refuses_policies() or not read_machine(ROOT).usable_nodes,
    reason="this kernel has no memory policies, or we may not ask",
)


@numa
@pytest.mark.parametrize("policy", ["bind", "preferred", "interleave", "local", "default"])
def test_a_policy_is_set_and_read_back(policy: str) -> None:
    node = min(read_machine(ROOT).usable_nodes)
    nodes = NodeSet([node]) if policy in ("bind", "preferred", "interleave") else NodeSet()
    told = in_a_child(
        POLICY + f"set_memory_policy({policy!r}, NodeSet({list(nodes)}))\n"
        "print(*memory_policy(), process_policy(HostRoot(), os.getpid()))"
    ).split()
    assert told[0] == policy
    if nodes:
        assert told[1:] == [str(nodes), {"preferred": "prefer"}.get(policy, policy) + f":{nodes}"]


@numa
def test_a_node_that_we_may_not_use_is_left_out_silently() -> None:
    """That is why every placement is read back after the start."""
    usable = read_machine(ROOT).usable_nodes
    beyond = max(usable) + 1
    told = in_a_child(
        POLICY
        + f"""
try:
    set_memory_policy("bind", NodeSet([{min(usable)}, {beyond}]))
    print(memory_policy()[1])
except OSError as error:
    print(error.errno)
"""
    )
    assert told in (str(CpuSet([min(usable)])), "22")
    alone = (
        POLICY
        + f"""
for node in ({beyond}, 5000):
    try:
        set_memory_policy("bind", NodeSet([node]))
    except OSError as error:
        print(error.errno)
"""
    )
    assert in_a_child(alone).split() == ["22", "22"]


@numa
def test_where_our_own_pages_lie() -> None:
    found = resident_nodes(ROOT, os.getpid(), samples=500, chance=random.Random(1))
    assert found
    assert set(found) <= set(read_machine(ROOT).usable_nodes)
    assert 0 < sum(found.values()) <= 500
    assert resident_nodes(ROOT, 2**22 + 1, samples=10, chance=random.Random(1)) is None
    assert process_policy(ROOT, os.getpid()) is not None
    assert process_policy(ROOT, 2**22 + 1) is None


@pytest.mark.parametrize(
    ("kind", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_listening_port_is_found(kind: socket.AddressFamily, address: str) -> None:
    try:
        listener = socket.socket(kind)
        listener.bind((address, 0))
    except OSError:
        pytest.skip(f"no {address} here")
    with listener:
        port = listener.getsockname()[1]
        assert port not in listening_ports(ROOT)
        listener.listen()
        assert port in listening_ports(ROOT)
    assert port not in listening_ports(ROOT)


def test_garbage_in_the_list_of_sockets_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/tcp").write_text(
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1F41 00000000:0000 0A 0\n"
        "   1: 0100007F:ZZZZ 00000000:0000 0A 0\n"
        "   2: 0100007F:1F42 00000000:0000 01 0\n"
        "   3:\n"
    )
    assert listening_ports(HostRoot(tmp_path)) == {8001}


def test_busy_time_of_each_pu(tmp_path: Path) -> None:
    times = read_cpu_times(ROOT)
    assert set(times) == set(read_machine(ROOT).pus.online)
    assert busy_shares({0: (10, 20), 1: (5, 5)}, {0: (15, 30), 1: (5, 5), 2: (1, 1)}) == {
        0: 0.5,
        1: None,
        2: None,
    }
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(
        "cpu 1 2\ncpu0 1 1 1 4 1 1 1 1 9\ncpux 1 1 1 1 1\nintr 5\n"
    )
    assert read_cpu_times(HostRoot(tmp_path)) == {0: (6, 11)}
