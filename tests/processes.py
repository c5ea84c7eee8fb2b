"""A user of its own for tests of real processes: folders, ports, and an end for all of it."""

import asyncio
import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.client import ServiceClient, connect
from engine.control import ApplyLayout, Change, Offer
from engine.core.status import InstanceStatus, Snapshot, State
from engine.host.paths import Paths

ROOT = Path(__file__).parent.parent
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
WITHIN_S = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now; all are held until all are found, so no two are the same."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def free_range(count: int) -> tuple[int, int]:
    """First and last of so many neighbouring free ports below those that the kernel hands out."""
    while True:
        first = random.randrange(10_000, 32_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first, first + count - 1


def environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def state_of(pid: int) -> str:
    """One letter; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z", "X")


def fds_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connections_to(path: Path) -> int:
    """How many clients a listening Unix socket has accepted or is about to accept."""
    # Num RefCount Protocol Flags Type St Inode Path; 03 is SS_CONNECTED (linux/net.h), 02 waits.
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return sum(row[5] in ("02", "03") for row in rows if row[-1] == str(path))


def eventually(true: Callable[[], Any], *, within_s: float = WITHIN_S) -> Any:
    """Poll until it is true, and return what it was."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within_s:g} s")
        time.sleep(0.01)
    return found


async def eventually_async(true: Callable[[], Any], *, within_s: float = WITHIN_S) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within_s:g} s")
        await asyncio.sleep(0.01)
    return found


class Home:
    """One user's folders and everything that runs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # noqa: TID251
        self.environment = {
            "PATH": path,
            "HOME": str(folder / "home"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(ROOT),
        }
        for name in ("home", "run", "state", "cache"):
            (folder / name).mkdir(mode=0o700)
        self.paths = Paths.of(self.environment)
        self.ports = free_range(8)
        self._children: list[subprocess.Popen[bytes]] = []

    # The service

    def start_service(
        self, arguments: str = "", *, launcher: str = ""
    ) -> "subprocess.Popen[bytes]":
        """A service as a child of the test, with arguments of its main, e.g. `idle_exit_s=1`."""
        code = (
            "import sys; from engine.core.lifecycle import Policy; "
            f"from engine.service.__main__ import main; {launcher or 'pass'}; "
            f"sys.exit(main({arguments}))"
        )
        self.paths.prepare()
        with self.paths.service_log.open("ab") as log:
            service = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd="/",
                start_new_session=True,
            )
        self._children.append(service)
        return service

    async def connect(self, *, start: bool = True) -> ServiceClient:
        return await connect(start=start, environment=self.environment)

    async def served(
        self, arguments: str = "", *, launcher: str = "", within_s: float = WITHIN_S
    ) -> ServiceClient:
        """A client of a service with those arguments."""
        service = self.start_service(arguments, launcher=launcher)
        await eventually_async(
            lambda: self._accepts() or service.poll() is not None, within_s=within_s
        )
        return await self.connect(start=False)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.paths.socket))
            except OSError:
                return False
            return True

    async def service_pid(self) -> int:
        return (await (await self.connect(start=False)).snapshot()).service_pid

    async def kill_service(self, number: signal.Signals = signal.SIGKILL) -> None:
        pid = await self.service_pid()
        # Its first thread may be a zombie while others still hold its socket: this tells of all.
        watched = os.pidfd_open(pid)
        try:
            os.kill(pid, number)
            await eventually_async(lambda: bool(select.select([watched], [], [], 0)[0]))
        finally:
            os.close(watched)

    # Layouts

    def layout(self, *instances: dict[str, Any], name: str = "test") -> ApplyLayout:
        """Instances of the fake engine; `flags` are its flags, the rest are keys of the file."""
        first, last = self.ports
        lines = ["schema = 1", f'name = "{name}"']
        lines += ["[ports]", f"first = {first}", f"last = {last}"]
        for instance in instances:
            keys = {"engine": "command", "restart": "never", **instance}
            flags = keys.pop("flags", [])
            words = [sys.executable, "-S", str(FAKE_ENGINE), "--port", "{port}", *flags]
            if keys["engine"] == "command":
                keys.setdefault("command", words)
            lines += ["[[instance]]", *(f"{key} = {_toml(keys[key])}" for key in keys)]
        return ApplyLayout(f"{name}.toml", "\n".join(lines), str(self.folder))

    async def apply(self, client: ServiceClient, change: Change) -> Offer:
        offer = await client.offer(change)
        await client.apply(offer)
        return offer

    async def up(self, client: ServiceClient, *instances: dict[str, Any]) -> Snapshot:
        """Apply a layout and wait until all of it is ready and verified."""
        await self.apply(client, self.layout(*instances))
        names = [one["name"] for one in instances]
        return await self.until(
            client,
            lambda now: all(
                name in now and now[name].state is State.READY and now[name].verified is not None
                for name in names
            ),
        )

    async def until(
        self,
        client: ServiceClient,
        true: Callable[[dict[str, InstanceStatus]], bool],
        *,
        within_s: float = WITHIN_S,
    ) -> Snapshot:
        """Poll snapshots until it is true of the instances."""
        deadline = time.monotonic() + within_s
        while True:
            snapshot = await client.snapshot()
            if true({one.name: one for one in snapshot.instances}):
                return snapshot
            if time.monotonic() > deadline:
                shown = [(one.name, one.state, one.why) for one in snapshot.instances]
                told = "\n".join(one.text for one in snapshot.happenings)
                raise AssertionError(f"not within {within_s:g} s: {shown}\n{told}")
            await asyncio.sleep(0.02)

    async def until_told(self, client: ServiceClient, start: str) -> None:
        """Poll until a happening begins so."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            told = [one.text for one in (await client.snapshot()).happenings]
            if any(text.startswith(start) for text in told):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{start!r} was not told: {told}")
            await asyncio.sleep(0.02)

    async def until_state(
        self, client: ServiceClient, name: str, state: State, **more: Any
    ) -> InstanceStatus:
        found = await self.until(
            client, lambda now: name in now and now[name].state is state, **more
        )
        return {one.name: one for one in found.instances}[name]

    def journal(self) -> dict[str, Any]:
        page: dict[str, Any] = json.loads(self.paths.journal.read_text())
        return page

    # The end

    def processes(self) -> list[int]:
        """Everything alive that was started with these folders: service, engines, escapees."""
        wanted = f"XDG_STATE_HOME={self.folder / 'state'}".encode()
        pids = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
        return [pid for pid in pids if wanted in environment_of(pid) and alive(pid)]

    def engines(self) -> list[int]:
        return [
            pid
            for pid in self.processes()
            if any(one.startswith(b"SLOTDECK_INSTANCE=") for one in environment_of(pid))
        ]

    def close(self) -> None:
        deadline = time.monotonic() + WITHIN_S
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for child in self._children:
            child.wait(WITHIN_S)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


@contextlib.contextmanager
def a_home() -> Iterator[Home]:
    """Under /tmp, because a socket's path has room for about 100 characters only."""
    home = Home(Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp")))
    try:
        yield home
    finally:
        home.close()
