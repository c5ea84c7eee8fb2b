"""What can befall: each fault strikes one scene, and says what has to have come of it."""

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from engine.core.errors import ServiceUnreachable
from engine.core.status import State
from engine.drivers.openai_api import get
from tests.faraway import Faraway
from tests.processes import ROOT, Home, a_home, alive, eventually_async, state_of
from tests.service.scenes import STAGES, fill, scene, small_disk
from tests.tui.terminal import Terminal

Fault = Callable[[Home, str], Awaitable[None]]
TEN_YEARS_S = 10 * 365 * 86400
_ENDS_WITHIN_S = 300.0
"""A scene that hangs is a failure like others; most take two seconds."""


# The service ends


async def the_service_is_killed(home: Home, stage: str) -> None:
    async with scene(home, stage) as it:
        await home.kill_service()
        await it.next_service()
        await it.goes_on()


GREEDY = "import signal; signal.signal(signal.SIGUSR1, lambda *_: bytearray(1 << 30))"


async def the_service_runs_out_of_memory(home: Home, stage: str) -> None:
    """For sure: the kernel ends it, because its control group has no memory left."""
    with memory_group() as group:
        async with scene(home, stage, launcher=GREEDY) as it:
            service = await home.service_pid()
            (group / "cgroup.procs").write_text(str(service))
            os.kill(service, signal.SIGUSR1)
            await eventually_async(lambda: not alive(service))
            assert oom_kills(group) == 1
            await it.next_service()
            await it.goes_on()


@contextlib.contextmanager
def memory_group(most_bytes: int = 128 << 20) -> Iterator[Path]:
    """A memory control group of either version; skips where none may be made."""
    tops = {"memory": "memory.limit_in_bytes", "": "memory.max"}
    for top, limit in tops.items():
        group = Path("/sys/fs/cgroup") / top / f"slotdeck-test-{os.getpid()}-{time.monotonic_ns()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(most_bytes))
                with contextlib.suppress(OSError):
                    (group / "memory.swap.max").write_text("0")
                yield group
                return
            finally:
                group.rmdir()
    pytest.skip("no memory control group may be made here")


def oom_kills(group: Path) -> int:
    for name in ("memory.oom_control", "memory.events"):
        with contextlib.suppress(FileNotFoundError):
            lines = (group / name).read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    raise AssertionError("it does not say how often")


async def several_services_start_at_once(home: Home, stage: str) -> None:
    async with scene(home, stage) as it:
        late = [home.start_service() for _ in range(2)]
        await eventually_async(lambda: all(one.poll() is not None for one in late))
        assert [one.returncode for one in late] == [75, 75]
        await it.goes_on()
        await home.kill_service()
        services = [home.start_service() for _ in range(3)]
        await eventually_async(lambda: sum(one.poll() is None for one in services) == 1)
        await it.next_service()
        await it.goes_on()
        told = [one.text for one in (await it.client.snapshot()).happenings]
        assert told.count(f"a: adopted, pid {it.pid}") == 1


# Whoever looked is gone


async def the_panel_is_killed(home: Home, stage: str) -> None:
    async with scene(home, stage) as it, a_panel(home) as panel:
        os.kill(panel.pid, signal.SIGKILL)
        await asyncio.to_thread(panel.until, panel.ended)
        await it.goes_on()


async def the_terminal_is_closed(home: Home, stage: str) -> None:
    async with scene(home, stage) as it, a_panel(home) as panel:
        panel.hang_up()
        await eventually_async(panel.ended)
        await it.goes_on()


@contextlib.asynccontextmanager
async def a_panel(home: Home) -> AsyncIterator[Terminal]:
    service = await home.service_pid()
    with Terminal("-m", "tui", size=(100, 30), **home.environment) as panel:
        await asyncio.to_thread(panel.until, "● live", 60.0)
        yield panel
    assert await home.service_pid() == service


async def the_link_is_cut(home: Home, stage: str) -> None:
    with a_home() as here:
        async with scene(home, stage) as it:
            service = await home.service_pid()
            far = Faraway(here, home)
            watching = await asyncio.create_subprocess_exec(
                *far.argv("--host", "me@there", "status", "--watch"),
                env=far.environment,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert watching.stdout is not None
            assert watching.stderr is not None
            assert await watching.stdout.readline()
            assert far.cut() == 1
            assert b"was cut" in await watching.stderr.readline()
            await it.goes_on()
            assert b"answers again" in await watching.stderr.readline()
            watching.terminate()
            await watching.communicate()
            assert await home.service_pid() == service
            await it.goes_on()


# The engine itself


async def the_engine_is_killed(home: Home, stage: str) -> None:
    async with scene(home, stage) as it:
        os.kill(it.pid, signal.SIGKILL)
        await it.ended()
        if stage == "stopping":
            await it.became(State.STOPPED, "stopped by request", engines={it.beside})
        else:
            await it.became(State.FAILED, "ended by signal 9", engines={it.beside})


async def the_engine_is_paused(home: Home, stage: str) -> None:
    """And the service dies meanwhile; later the engine goes on where it was."""
    async with scene(home, stage) as it:
        os.kill(it.pid, signal.SIGSTOP)
        await eventually_async(lambda: state_of(it.pid) == "T")
        await home.kill_service()
        await it.next_service()
        await home.until(it.client, lambda now: now["a"].pid == it.pid)
        os.kill(it.pid, signal.SIGCONT)
        await it.goes_on()


# A disk


async def the_disk_of_the_log_is_full(home: Home, stage: str) -> None:
    with small_disk(home.paths.instance("a").parent) as disk:
        async with scene(home, stage) as it:
            fill(disk)
            assert (await get(f"{it.a.url}/flood", timeout_s=60)).status == 200
            await it.goes_on()
            await home.kill_service()
            await it.next_service()
            await it.goes_on()


async def the_disk_of_the_journal_is_full(home: Home, stage: str) -> None:
    with small_disk(home.folder / "state") as disk:
        async with scene(home, stage) as it:
            ballast = fill(disk)
            await it.client.verify(("b",))  # what it finds is to be written
            await home.until_told(it.client, "the journal cannot be written: No space left")
            await it.goes_on()
            await home.kill_service()
            await it.next_service()
            await it.goes_on()
            shutil.rmtree(ballast)
            await home.until_told(it.client, "the journal is written again")
            await it.goes_on()


async def the_disk_of_the_socket_is_full(home: Home, stage: str) -> None:
    """Where the stale socket was also cleared away: none can be made."""
    with small_disk(home.folder / "run") as disk:
        async with scene(home, stage) as it:
            await home.kill_service()
            home.paths.socket.unlink()
            ballast = fill(disk)
            with pytest.raises(ServiceUnreachable, match="No space left on device"):
                await it.next_service()
            shutil.rmtree(ballast)
            await it.next_service()
            await it.goes_on()


REFUSED_FSYNC = """
import ctypes, signal, struct
def refuse(*_):
    libc = ctypes.CDLL(None, use_errno=True)
    ops = [(0x20, 0, 0, 0), (0x15, 0, 1, 74), (0x06, 0, 0, 0x50000 | {code}),
           (0x06, 0, 0, 0x7fff0000)]
    code = b"".join(struct.pack("HBBI", *op) for op in ops)
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
    program = Program(len(ops), code)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(317, 1, 1, ctypes.byref(program)) == 0, ctypes.get_errno()
signal.signal(signal.SIGUSR1, refuse)
"""
"""seccomp(2) for all threads of the process: the kernel answers fsync(2) with that error."""


async def the_disk_fails_while_the_journal_is_written(home: Home, stage: str) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the filter names x86-64's system calls")
    launcher = f"exec({REFUSED_FSYNC.replace('{code}', str(errno.EIO))!r})"
    async with scene(home, stage, launcher=launcher) as it:
        before = home.paths.journal.read_bytes()
        os.kill(await home.service_pid(), signal.SIGUSR1)
        await it.client.verify(("b",))
        await home.until_told(it.client, "the journal cannot be written: Input/output error")
        assert home.paths.journal.read_bytes() == before
        await it.goes_on()
        await home.kill_service()
        await it.next_service()
        await it.goes_on()


# Time and numbers


async def the_clock_jumps(home: Home, stage: str) -> None:
    """What a jump leaves behind: every stamp is ten years off, either way. The real clock is not
    touched; nothing waits or decides by it."""
    async with scene(home, stage) as it:
        for years_s in (TEN_YEARS_S, -TEN_YEARS_S):
            await home.kill_service()
            page = home.journal()
            for row in page["instances"]:
                row["started_at"] = f"{2026 + years_s // TEN_YEARS_S * 10}-01-01T00:00:00Z"
            home.paths.journal.write_text(json.dumps(page))
            for top in (home.paths.state, home.paths.runtime):
                for path in (top, *top.rglob("*")):
                    at = path.lstat().st_mtime + years_s
                    os.utime(path, (at, at))
            await it.next_service()
            await it.goes_on()


async def the_machine_was_restarted(home: Home, stage: str) -> None:
    async with scene(home, stage) as it:
        await home.kill_service()
        page = home.journal()
        home.paths.journal.write_text(json.dumps({**page, "boot_id": "another"}))
        await it.next_service()
        # The numbers are not ours any more, whoever has them: nobody is signalled.
        words = "the machine was restarted"
        await it.became(State.STOPPED, words, engines={it.pid, it.beside})


async def its_number_becomes_a_strangers(_home: Home, stage: str) -> None:
    """In a process namespace of its own, where the next number can be chosen."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare program")
    words = words if os.getuid() == 0 else [*words, "--user", "--map-root-user"]
    probe = await asyncio.create_subprocess_exec(*words, "true", stderr=asyncio.subprocess.PIPE)
    _, refused = await probe.communicate()
    if probe.returncode:
        pytest.skip(f"no process namespace: {refused.decode().strip()}")
    playing = await asyncio.create_subprocess_exec(
        *words,
        *(sys.executable, "-P", "-m", "tests.service.reused_numbers", stage),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # noqa: TID251 - as this process has it
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await playing.communicate()
    assert playing.returncode == 0, said.decode()


async def play(fault: Fault) -> dict[str, BaseException | None]:
    """All stages at the same time, each in a home of its own; what came out of each."""

    async def one(stage: str) -> None:
        with a_home() as home:
            await asyncio.wait_for(fault(home, stage), _ENDS_WITHIN_S)

    ends = await asyncio.gather(*map(one, STAGES), return_exceptions=True)
    return dict(zip(STAGES, ends, strict=True))
