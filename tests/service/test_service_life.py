"""The service itself: it ends when nobody needs it, and costs the same after a thousand starts."""

import asyncio
from pathlib import Path

from engine.control import StartInstances, StopInstances
from engine.core.status import State
from tests.processes import Home, alive, environment_of, eventually_async, fds_of, state_of


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def children_of(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(one) for each in threads for one in each.read_text().split()]


def uncollected(pid: int) -> list[int]:
    """Beside the one process that stays with the service: where the launchers are made."""
    (nursery,) = children_of(pid)
    return children_of(nursery)


async def test_an_idle_service_ends_and_leaves_no_socket(home: Home) -> None:
    service = home.start_service("idle_exit_s=0.6")
    assert await asyncio.to_thread(service.wait, 20) == 0
    assert not home.paths.socket.exists()


async def test_a_service_with_engines_or_a_client_does_not_end(home: Home) -> None:
    client = await home.served("idle_exit_s=0.6")
    await home.up(client, {"name": "a"})
    pid = await home.service_pid()
    # Longer than the idle time without any connection: that is what is tried.
    await asyncio.sleep(1.5)
    assert await home.service_pid() == pid
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    seen = 0
    async for _ in client.snapshots():
        seen += 1
        if seen == 3:
            break
    assert alive(pid)
    await eventually_async(lambda: not alive(pid))


async def test_thirty_starts_leave_no_descriptor_no_zombie_no_task(home: Home) -> None:
    client = await home.connect()
    pid = await home.service_pid()

    async def cycle() -> None:
        await home.apply(client, StartInstances(("a",)))
        await home.until(client, lambda now: now["a"].pid is not None)
        await home.apply(client, StopInstances(("a",)))
        await home.until_state(client, "a", State.STOPPED)

    await home.up(client, {"name": "a"})
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    await cycle()
    await eventually_async(lambda: not uncollected(pid))
    fds, threads = fds_of(pid), threads_of(pid)
    for _ in range(30):
        await cycle()
    await eventually_async(lambda: not uncollected(pid))
    await eventually_async(lambda: fds_of(pid) < fds + 10)
    # The pool of asyncio.to_thread grows to a few more than processors, and no further.
    assert threads_of(pid) <= threads + 6
    assert not home.engines()


async def test_the_shim_is_small_and_is_collected(home: Home) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a"})).instances[0]
    shim = int(home.journal()["instances"][0]["launched"]["shim_pid"])
    names = [setting.partition(b"=")[0] for setting in environment_of(shim) if setting]
    assert names == [b"SLOTDECK_SHIM"]
    assert private_kib(shim) < 8 << 10
    assert fds_of(shim) <= 9
    assert status.pid is not None
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.until(client, lambda now: not now)
    await eventually_async(lambda: state_of(shim) == "")
