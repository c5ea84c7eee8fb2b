"""A full disk stops no engine, loses none, and is said in one sentence."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.control import StopInstances
from engine.core.status import State
from engine.drivers.openai_api import get
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from tests.processes import Home, alive
from tests.service.scenes import fill, small_disk


@pytest.fixture
def state_disk(home: Home) -> Iterator[Path]:
    """The state folder on a file system of 3 MiB."""
    with small_disk(home.folder / "state") as disk:
        yield disk


async def test_a_start_on_a_full_disk_is_refused_and_leaves_nothing(
    home: Home, state_disk: Path
) -> None:
    client = await home.connect()
    ballast = fill(state_disk)
    await home.apply(client, home.layout({"name": "a"}))
    status = await home.until_state(client, "a", State.FAILED)
    assert status.why == (
        "the journal cannot be written, so the engine could be lost. "
        f"Free some disk space for {home.paths.state} and start it again"
    )
    assert not home.engines()
    shutil.rmtree(ballast)
    await home.until_told(client, "the journal is written again")
    await home.up(client, {"name": "a"})


async def test_a_running_engine_does_not_notice_a_full_disk(home: Home, state_disk: Path) -> None:
    client = await home.connect()
    flags = ["--flood-bytes", str(8 << 20), "--flood-when-asked"]
    wish = {"name": "a", "slot": "core:0", "flags": flags}
    status = (await home.up(client, wish)).instances[0]
    service = await home.service_pid()
    assert status.pid is not None
    assert (await get(f"{status.url}/flood", timeout_s=30)).status == 200
    assert (await get(f"{status.url}/health", timeout_s=30)).status == 200
    ballast = fill(state_disk)
    # The journal cannot be written any more, and says so once there is something to write.
    await home.apply(client, home.layout(wish, {"name": "b", "slot": "core:1"}))
    await home.until_state(client, "b", State.FAILED)
    await home.until_told(client, "the journal cannot be written: No space left on device")
    assert alive(status.pid)
    # Room again: by the ballast and by what the log may not keep.
    shutil.rmtree(ballast)
    for piece in home.paths.instance("a").glob("log-*"):
        with piece.open("r+b") as file:
            file.truncate(0)
    await home.until_told(client, "the journal is written again")
    assert (await client.snapshot()).instances[0].state is State.READY
    assert await home.service_pid() == service
    await home.kill_service()
    client = await home.connect()
    assert (await home.until_state(client, "a", State.READY)).pid == status.pid


async def test_a_stop_needs_no_room_on_the_disk(home: Home, state_disk: Path) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "flags": ["--fork-child"]})).instances[0]
    fill(state_disk)
    await home.apply(client, StopInstances(("a",)))
    stopped = await home.until_state(client, "a", State.STOPPED)
    assert stopped.why == "stopped by request"
    assert not home.engines()
    assert status.port not in listening_ports(HostRoot())
    await home.until_told(client, "the journal cannot be written: No space left on device")
