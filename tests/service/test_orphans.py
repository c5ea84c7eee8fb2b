"""What an instance leaves behind is found by its mark or its session, shown, and ended on request;
nobody else's ever is."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.control import StopInstances
from engine.core.errors import ControlError
from engine.core.status import State
from engine.host.process import read_stat
from engine.host.root import HostRoot
from engine.service.orphans import orphans_of, reap
from engine.service.processes import in_session
from tests.processes import Home, a_home, alive, environment_of, eventually_async

ROOT = HostRoot()


def orphans(home: Home) -> list[int]:
    return [one.pid for one in orphans_of(ROOT, home.paths)]


def slotdeck(home: Home, *words: str) -> "subprocess.CompletedProcess[str]":
    program = "import sys; from engine.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", program, *words]
    return subprocess.run(
        command, env=home.environment, capture_output=True, text=True, timeout=60, check=False
    )


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def lose_the_journal(home: Home, *flags: str) -> list[int]:
    """An engine whose service and journal are gone; returns its processes."""
    client = await home.connect()
    await home.up(client, {"name": "a", "flags": list(flags)})
    await home.kill_service()
    home.paths.journal.unlink()
    return sorted(home.engines())


async def test_what_no_journal_knows_is_shown_and_ended_on_request(home: Home) -> None:
    flags = ("--fork-child", "--double-fork", "--hold-port", "--ignore-sigterm")
    left = await lose_the_journal(home, *flags)
    assert len(left) == 3
    assert orphans(home) == left
    status = await asyncio.to_thread(slotdeck, home, "service", "status")
    assert status.stdout.startswith("No service runs.\n\nLeft over from earlier")
    rows = [line.split()[:2] for line in status.stdout.splitlines()]
    assert all([str(pid), Path(sys.executable).name] in rows for pid in left)
    asked = await asyncio.to_thread(slotdeck, home, "service", "reap")
    assert "Nothing was ended. `slotdeck service reap --yes` ends these 3" in asked.stdout
    assert all(map(alive, left))
    done = await asyncio.to_thread(slotdeck, home, "service", "reap", "--yes", "--grace", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ended these 3 processes; none of it is left" in done.stdout
    assert not any(map(alive, left))
    again = await asyncio.to_thread(slotdeck, home, "service", "reap", "--yes")
    assert again.stdout == "Nothing is left over from earlier.\n"


async def test_a_new_service_tells_of_them_and_does_not_touch_them(home: Home) -> None:
    left = await lose_the_journal(home)
    client = await home.connect()
    await home.until_told(client, "left over from earlier, and nobody's any more: python")
    await home.up(client, {"name": "b"})
    assert all(map(alive, left))
    assert orphans(home) == left


async def test_engines_that_somebody_looks_after_are_none(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "flags": ["--fork-child", "--double-fork"]})
    assert orphans(home) == []
    await home.kill_service()
    assert orphans(home) == []
    with a_home() as other:  # another service of the same user, which lost its journal
        theirs = await lose_the_journal(other)
        assert orphans(home) == []
        assert orphans(other) == theirs


@pytest.mark.parametrize(
    "text", ['{"schema": "slotdeck.journal/9"}', '{"schema": "slotdeck.journal/1", "boo']
)
async def test_where_the_journal_cannot_be_read_nothing_is_ended(home: Home, text: str) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    await home.kill_service()
    home.paths.journal.write_text(text)
    with pytest.raises(ControlError, match="Start the service first"):
        orphans_of(ROOT, home.paths)
    refused = await asyncio.to_thread(slotdeck, home, "service", "reap", "--yes")
    assert refused.returncode == 1
    assert len(home.engines()) == 1
    assert home.paths.journal.read_text() == text


async def test_a_number_that_has_become_a_strangers_is_not_signalled(home: Home) -> None:
    await lose_the_journal(home)
    (orphan,) = orphans_of(ROOT, home.paths)
    os.kill(orphan.pid, signal.SIGKILL)
    await eventually_async(lambda: not alive(orphan.pid))
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    stat = read_stat(ROOT, stranger.pid)
    assert stat is not None
    mistaken = type(orphan)(
        stranger.pid, orphan.started_ticks, "a", "sleep", orphan.pus, 0, orphan.age_s
    )
    assert stat.started_ticks != orphan.started_ticks
    assert reap(ROOT, [mistaken], grace_s=0.1) == ()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_a_worker_that_wrote_a_title_over_its_mark_is_ended_too(home: Home) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "flags": ["--titled-child"]})).instances[0]
    assert status.pid is not None
    (worker,) = children_of(status.pid)
    assert not any(b"SLOTDECK" in setting for setting in environment_of(worker))
    os.kill(status.pid, signal.SIGKILL)
    await home.until_state(client, "a", State.FAILED)
    await eventually_async(lambda: not alive(worker))


async def test_a_titled_worker_of_a_lost_instance_is_an_orphan(home: Home) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "flags": ["--titled-child"]})).instances[0]
    assert status.pid is not None
    (worker,) = children_of(status.pid)
    await home.kill_service()
    home.paths.journal.unlink()
    os.kill(status.pid, signal.SIGKILL)
    await eventually_async(lambda: orphans(home) == [worker])
    await asyncio.to_thread(reap, ROOT, orphans_of(ROOT, home.paths), grace_s=1.0)
    assert not alive(worker)


def test_a_session_of_the_same_number_that_began_later_is_a_strangers() -> None:
    # A session of its own: the tests' one is 0 where its leader is outside of our pid namespace.
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        stat = read_stat(ROOT, sleeper.pid)
        assert stat is not None
        leader = {"pid": stat.session, "started_ticks": -1}
        before = {**leader, "ended_ticks": stat.started_ticks - 1}
        assert in_session({stat.pid: stat}, before) == ()
        assert in_session({stat.pid: stat}, leader) == ()
        found = in_session({stat.pid: stat}, {**leader, "ended_ticks": stat.started_ticks})
        assert found == (stat.pid,)
    finally:
        sleeper.kill()
        sleeper.wait()


async def test_what_a_stop_could_not_end_is_told_in_why(home: Home) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "flags": ["--give-port-away"]})).instances[0]
    await home.apply(client, StopInstances(("a",)))
    port = status.port
    await home.until(client, lambda now: f"still listens on its port {port}" in now["a"].why)
    stopped = (await client.snapshot()).instances[0]
    assert stopped.why.startswith("stopped by request; python")
