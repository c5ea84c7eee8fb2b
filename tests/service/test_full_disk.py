"""A full disk stops no engine, loses none, and is said in one sentence."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.control import StopInstances
from engine.core.status import State
from engine.drivers.openai_api import get
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from tests.processes import Home, alive


@pytest.fixture
def small_disk(home: Home) -> Iterator[Path]:
    """The state folder on a file system of 3 MiB."""
    disk = home.folder / "state"
    mounting = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(disk)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount program")
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mount is refused: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    return ballast


async def test_a_start_on_a_full_disk_is_refused_and_leaves_nothing(
    home: Home, small_disk: Path
) -> None:
    client = await home.connect()
    ballast = fill(small_disk)
    await home.apply(client, home.layout({"name": "a"}))
    status = await home.until_state(client, "a", State.FAILED)
    assert status.why == (
        "the journal cannot be written, so the engine could be lost. "
        f"Free some disk space for {home.paths.state} and start it again"
    )
    assert not home.engines()
    ballast.unlink()
    await home.until_told(client, "the journal is written again")
    await home.up(client, {"name": "a"})


async def test_a_running_engine_does_not_notice_a_full_disk(home: Home, small_disk: Path) -> None:
    client = await home.connect()
    flags = ["--flood-bytes", str(8 << 20), "--flood-when-asked"]
    wish = {"name": "a", "slot": "core:0", "flags": flags}
    status = (await home.up(client, wish)).instances[0]
    service = await home.service_pid()
    assert status.pid is not None
    assert (await get(f"{status.url}/flood", timeout_s=30)).status == 200
    assert (await get(f"{status.url}/health", timeout_s=30)).status == 200
    fill(small_disk)
    # The journal cannot be written any more, and says so once there is something to write.
    await home.apply(client, home.layout(wish, {"name": "b", "slot": "core:1"}))
    await home.until_state(client, "b", State.FAILED)
    await home.until_told(client, "the journal cannot be written: No space left on device")
    assert alive(status.pid)
    # Room again: by the ballast and by what the log may not keep.
    (small_disk / "ballast").unlink(missing_ok=True)
    for piece in home.paths.instance("a").glob("log-*"):
        with piece.open("r+b") as file:
            file.truncate(0)
    await home.until_told(client, "the journal is written again")
    assert (await client.snapshot()).instances[0].state is State.READY
    assert await home.service_pid() == service
    await home.kill_service()
    client = await home.connect()
    assert (await home.until_state(client, "a", State.READY)).pid == status.pid


async def test_a_stop_needs_no_room_on_the_disk(home: Home, small_disk: Path) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "flags": ["--fork-child"]})).instances[0]
    fill(small_disk)
    await home.apply(client, StopInstances(("a",)))
    stopped = await home.until_state(client, "a", State.STOPPED)
    assert stopped.why == "stopped by request"
    assert not home.engines()
    assert status.port not in listening_ports(HostRoot())
    await home.until_told(client, "the journal cannot be written: No space left on device")
