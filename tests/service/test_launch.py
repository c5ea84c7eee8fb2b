"""Launching: bound before anything is executed, never twice, and nothing left of what failed."""

import fcntl
import json
import os
import signal
import sys
import termios
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.core.command import Command
from engine.core.cpuset import CpuSet
from engine.core.errors import LaunchError
from engine.core.status import MemoryBinding
from engine.host.process import read_all
from engine.host.root import HostRoot
from engine.service.launcher import Launched, Launcher, LaunchOrder, Relief, pack_order
from engine.service.processes import kill_start, leftovers, shims
from tests.processes import alive, environment_of, eventually

PUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    with Launcher() as one:
        yield one


class Engines:
    """Small programs in folders of their own; all of them end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders: list[LaunchOrder] = []

    def order(self, *argv: str, pus: tuple[int, ...] = (PUS[0],)) -> LaunchOrder:
        mark = uuid.uuid4().hex
        words = argv or ("/bin/sh", "-c", "echo hello; : >began; exec sleep 600")
        self.orders.append(
            LaunchOrder(
                name="a",
                command=Command(words),
                pus=CpuSet(pus),
                memory=MemoryBinding("local", ""),
                folder=self.folder / mark,
                mark=mark,
                allow_degraded=False,
            )
        )
        return self.orders[-1]


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    made = Engines(tmp_path)
    yield made
    for order in made.orders:
        kill_start(HostRoot(), order.mark)


def record(order: LaunchOrder) -> dict[str, object]:
    read: dict[str, object] = json.loads((order.folder / "exit.json").read_text())
    return read


def test_many_at_once_are_each_where_they_belong(launcher: Launcher, engines: Engines) -> None:
    orders = [engines.order(pus=(PUS[number % len(PUS)],)) for number in range(12)]
    before = os.sched_getaffinity(0)
    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(launcher.launch, orders))
    assert os.sched_getaffinity(0) == before
    for order, launched in zip(orders, started, strict=True):
        assert os.sched_getaffinity(launched.pid) == set(order.pus)
        assert os.sched_getaffinity(launched.shim_pid) == set(order.pus)
        assert os.getsid(launched.pid) == os.getpgid(launched.pid) == launched.pid
        # Its shim is in a session of its own, and is found by its mark alone.
        assert os.getsid(launched.shim_pid) == launched.shim_pid
        assert set(shims(HostRoot(), order.mark)) == {launched.shim_pid, launched.pid}
        assert list(leftovers(HostRoot(), order.mark)) == [launched.pid]
        assert (record(order)["state"], record(order)["pid"]) == ("running", launched.pid)


def test_engines_and_exit_codes_outlive_the_launcher(engines: Engines) -> None:
    order = engines.order("/bin/sh", "-c", "read line <gate; exit 7")
    order.folder.mkdir()
    os.mkfifo(order.folder / "gate")
    with Launcher() as launcher:
        launched = launcher.launch(order)
    assert alive(launched.pid)
    assert alive(launched.shim_pid)
    (order.folder / "gate").write_text("go\n")
    eventually(lambda: not alive(launched.shim_pid))
    assert (record(order)["state"], record(order)["code"]) == ("ended", 7)


def test_without_a_go_nothing_is_started(launcher: Launcher, engines: Engines) -> None:
    """As when the service is killed: whatever was under way, the next one starts it anew."""
    order = engines.order()
    order.folder.mkdir()
    packed = pack_order(order, list(order.command.argv))
    for sent in (b"", packed[:1], packed[: len(packed) // 2], packed[:-1]):
        with launcher.connect() as connection:
            connection.sendall(sent)
    with launcher.connect() as connection:
        connection.sendall(packed)
        assert connection.recv(4096).startswith(b"bound 0 ")
        # It has its mark before it asks, so that nobody takes it for dead and starts another.
        (shim,) = shims(HostRoot(), order.mark)
        assert environment_of(shim)[0] == b"SLOTDECK_SHIM=" + order.mark.encode()
    eventually(lambda: not alive(shim))
    assert not (order.folder / "began").exists()
    assert record(order)["state"] == "starting"
    assert not leftovers(HostRoot(), order.mark)
    assert launcher.launch(order).pid


def test_an_engine_outlives_its_shim_and_another_one_takes_its_place(
    launcher: Launcher, engines: Engines
) -> None:
    script = "while read word; do head -c 200000 /dev/zero; echo $word >said; done <gate; exit 7"
    order = engines.order("/bin/sh", "-c", script)
    order.folder.mkdir()
    os.mkfifo(order.folder / "gate")
    first = launcher.launch(order)
    gate = os.open(order.folder / "gate", os.O_WRONLY)
    os.kill(first.shim_pid, signal.SIGKILL)
    eventually(lambda: not alive(first.shim_pid))
    # More than the pipe holds, with nobody who reads it: SIGPIPE would end a shell.
    os.write(gate, b"one\n")
    eventually(lambda: waiting_bytes(first.pid) == 1 << 16)
    numbers = [int(str(record(order)[key])) for key in ("pipe", "log")]
    relief = Relief(order.folder, order.mark, order.pus, first.pid, first.started_ticks, *numbers)
    shim_pid, shim_ticks = launcher.relieve(relief)
    assert shims(HostRoot(), order.mark) == {shim_pid: shim_ticks}
    said = order.folder / "said"
    eventually(lambda: said.exists() and said.read_text() == "one\n")
    assert os.sched_getaffinity(shim_pid) == set(order.pus)
    os.write(gate, b"two\n")
    eventually(lambda: said.read_text() == "two\n")
    os.close(gate)
    eventually(lambda: not alive(shim_pid))
    assert sum(path.stat().st_size for path in order.folder.glob("log-*")) == 400_000
    # It is nobody's child that could be asked.
    assert (record(order)["state"], record(order)["code"]) == ("ended", None)
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        launcher.relieve(relief)


def waiting_bytes(pid: int) -> int:
    """In the pipe of its output."""
    with Path(f"/proc/{pid}/fd/1").open("rb", buffering=0) as pipe:
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_an_engine_has_the_umask_that_its_service_began_with(engines: Engines) -> None:
    with Launcher() as launcher:
        own = os.umask(0o177)  # as who makes a private file, on another thread
        try:
            order = engines.order("/bin/sh", "-c", "umask >said; exec sleep 600")
            launcher.launch(order)
        finally:
            os.umask(own)
    said = order.folder / "said"
    assert int(eventually(lambda: said.exists() and said.read_text()), 8) == own


def test_a_go_counts_also_when_the_service_has_died_since(
    launcher: Launcher, engines: Engines
) -> None:
    order = engines.order()
    order.folder.mkdir()
    with launcher.connect() as connection:
        connection.sendall(pack_order(order, list(order.command.argv)))
        assert connection.recv(4096).startswith(b"bound 0 ")
        connection.sendall(b"go\n")
    eventually((order.folder / "began").exists)
    eventually(lambda: record(order)["state"] == "running")
    (pid,) = leftovers(HostRoot(), order.mark)
    assert record(order)["pid"] == pid


def test_a_killed_nursery_takes_no_engine_with_it_and_is_made_anew(
    launcher: Launcher, engines: Engines
) -> None:
    first = launcher.launch(engines.order())
    nursery = parent_of(first)
    os.kill(nursery, signal.SIGKILL)
    eventually(lambda: not alive(nursery))
    second = launcher.launch(engines.order())
    assert parent_of(second) not in (nursery, 1)
    assert alive(first.pid)
    assert alive(first.shim_pid)


def test_shims_that_were_expected_serve_or_go(launcher: Launcher, engines: Engines) -> None:
    launcher.expect(3)
    first = launcher.launch(engines.order())
    nursery = parent_of(first)

    def idle() -> set[int]:
        found = {one.pid for one in read_all(HostRoot()).values() if one.parent == nursery}
        return {pid for pid in found if alive(pid)} - {first.shim_pid}

    waiting: set[int] = eventually(lambda: found if len(found := idle()) == 2 else None)
    second = launcher.launch(engines.order())
    assert second.shim_pid in waiting
    launcher.dismiss()
    eventually(lambda: idle() == {second.shim_pid})
    launcher.expect(1)
    third = eventually(lambda: idle() - {second.shim_pid}).pop()
    launcher.close()
    eventually(lambda: not alive(third))
    assert alive(first.shim_pid)
    assert alive(second.shim_pid)


def test_a_nursery_that_hangs_is_ended_too(engines: Engines) -> None:
    launcher = Launcher()
    launched = launcher.launch(engines.order())
    nursery = parent_of(launched)
    os.kill(nursery, signal.SIGSTOP)
    launcher.close()
    assert not alive(nursery)
    assert alive(launched.shim_pid)


def test_it_ends_when_the_service_does(engines: Engines) -> None:
    launcher = Launcher()
    launched = launcher.launch(engines.order())
    nursery = parent_of(launched)
    launcher.close()
    assert not alive(nursery)
    assert alive(launched.shim_pid)


def parent_of(launched: Launched) -> int:
    return read_all(HostRoot())[launched.shim_pid].parent


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("/nowhere/server",), "there is no program '/nowhere/server'"),
        (("{folder}",), "there is no program"),
        (("{script}",), "script: Exec format error"),
    ],
)
def test_nothing_is_left_of_what_cannot_be_started(
    launcher: Launcher, engines: Engines, tmp_path: Path, argv: tuple[str, ...], why: str
) -> None:
    (tmp_path / "script").write_bytes(b"\x7fELF?")
    (tmp_path / "script").chmod(0o755)
    words = [word.format(folder=tmp_path, script=tmp_path / "script") for word in argv]
    order = engines.order(*words)
    with pytest.raises(LaunchError, match=why):
        launcher.launch(order)
    eventually(lambda: not shims(HostRoot(), order.mark))
    assert not leftovers(HostRoot(), order.mark)


def test_pus_that_the_kernel_refuses_are_named(launcher: Launcher, engines: Engines) -> None:
    with pytest.raises(LaunchError, match="PU 4000: Invalid argument"):
        launcher.launch(engines.order(pus=(4000,)))
    narrowed = engines.order(pus=(PUS[0], 4000))
    with pytest.raises(LaunchError, match=f"asked for PU {PUS[0]},4000, the kernel gave {PUS[0]}"):
        launcher.launch(narrowed)
