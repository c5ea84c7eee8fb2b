"""Faults at each stage of a life: while an engine starts, is ready with streams, and stops.

Those where a start is cut anywhere, or a full disk, are in files of their own.
"""

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from engine.client import ServiceClient
from engine.control import StopInstances
from engine.core.status import InstanceStatus, State
from tests.processes import Home, alive, eventually_async, state_of
from tests.service.asking import stream

STAGES = ("starting", "ready", "stopping")


async def at_stage(home: Home, stage: str) -> tuple[ServiceClient, int]:
    """An engine that stays in that state for long; its pid."""
    client = await home.connect()
    flags = {"starting": ["--never-ready"], "ready": [], "stopping": ["--ignore-sigterm"]}[stage]
    wish = {"name": "a", "flags": flags, "stop_grace_s": 30.0}
    if stage == "starting":
        await home.apply(client, home.layout(wish))
    else:
        await home.up(client, wish)
    now = await home.until(client, lambda now: now["a"].pid is not None)
    if stage == "stopping":
        await home.apply(client, StopInstances(("a",)))
        await home.until_state(client, "a", State.STOPPING)
    await eventually_async(lambda: home.journal()["instances"][0]["life"]["state"] == stage)
    await eventually_async(lambda: home.journal()["instances"][0]["launched"])
    pid = now.instances[0].pid
    assert pid is not None
    return client, pid


def rewrite(home: Home, **changes: Any) -> None:
    page = home.journal()
    page.update(changes)
    home.paths.journal.write_text(json.dumps(page))


@pytest.mark.parametrize("stage", STAGES)
async def test_the_engine_is_killed(home: Home, stage: str) -> None:
    client, pid = await at_stage(home, stage)
    os.kill(pid, signal.SIGKILL)
    wanted = State.STOPPED if stage == "stopping" else State.FAILED
    status = await home.until_state(client, "a", wanted)
    assert ("ended by signal 9" in status.why) == (stage != "stopping")
    assert status.pid is None
    await eventually_async(lambda: not home.engines())


async def test_the_engine_is_killed_under_a_stream(home: Home) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "restart": "on-failure"})).instances[0]
    streaming = asyncio.ensure_future(stream(status, 5000))
    await asyncio.sleep(0.1)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    with pytest.raises((AssertionError, OSError)):
        await streaming
    await home.until(client, lambda now: now["a"].restarts == 1 and now["a"].state == "ready")


async def test_the_engine_hangs_while_it_starts(home: Home) -> None:
    client = await home.connect()
    flags = ["--ready-after", "1"]
    wish = {"name": "a", "flags": flags, "ready_timeout_s": 1.5, "stop_grace_s": 0.3}
    await home.apply(client, home.layout(wish))
    now = await home.until(client, lambda now: now["a"].pid is not None)
    assert now.instances[0].pid is not None
    os.kill(now.instances[0].pid, signal.SIGSTOP)
    status = await home.until_state(client, "a", State.FAILED)
    assert status.why == "not ready within 1.5 s"
    assert not home.engines()


async def test_the_engine_pauses_under_a_stream_and_the_service_dies_meanwhile(home: Home) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a"})).instances[0]
    streaming = asyncio.ensure_future(stream(status, 60))
    await asyncio.sleep(0.1)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    await eventually_async(lambda: state_of(status.pid or 0) == "T")
    await home.kill_service()
    client = await home.connect()
    assert (await home.until_state(client, "a", State.READY)).pid == status.pid
    os.kill(status.pid, signal.SIGCONT)
    assert len(await streaming) == 60


@pytest.mark.parametrize("stage", STAGES)
async def test_its_number_has_become_a_strangers(home: Home, stage: str) -> None:
    await at_stage(home, stage)
    await home.kill_service()
    for pid in home.engines():
        os.kill(pid, signal.SIGKILL)
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    rows = home.journal()["instances"]
    rows[0]["launched"]["pid"] = stranger.pid
    rewrite(home, instances=rows)
    client = await home.connect()
    await home.until_state(client, "a", State.STOPPED if stage == "stopping" else State.FAILED)
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.until(client, lambda now: not now)
    assert state_of(stranger.pid) == "S"
    stranger.kill()
    await stranger.wait()


@pytest.mark.parametrize("stage", ["starting", "stopping"])
async def test_the_machine_was_restarted(home: Home, stage: str) -> None:
    _, pid = await at_stage(home, stage)
    await home.kill_service()
    rewrite(home, boot_id="another")
    client = await home.connect()
    status = (await client.snapshot()).instances[0]
    assert (status.state, status.why) == (State.STOPPED, "the machine was restarted")
    assert alive(pid)  # the number is not ours any more, whoever has it


@pytest.mark.parametrize("stage", STAGES)
async def test_several_services_want_to_adopt_it(home: Home, stage: str) -> None:
    _, pid = await at_stage(home, stage)
    await home.kill_service()
    services = [home.start_service() for _ in range(3)]
    await eventually_async(lambda: sum(one.poll() is None for one in services) == 1)
    client = await home.connect()
    status = await home.until_state(client, "a", State(stage))
    assert status.pid == pid
    assert home.engines() == [pid]
    told = [one.text for one in (await client.snapshot()).happenings]
    assert told.count(f"a: adopted, pid {pid}") == 1


@pytest.mark.parametrize("stage", ["starting", "stopping"])
async def test_the_journal_is_torn(home: Home, stage: str) -> None:
    _, pid = await at_stage(home, stage)
    await home.kill_service()
    text = home.paths.journal.read_text()
    home.paths.journal.write_text(text[: len(text) // 2])
    client = await home.connect()
    await home.until_told(client, "left over from earlier, and nobody's any more: python")
    assert (await client.snapshot()).instances == ()
    assert home.engines() == [pid]


@pytest.mark.parametrize("stage", STAGES)
async def test_a_half_written_next_journal_means_nothing(home: Home, stage: str) -> None:
    _, pid = await at_stage(home, stage)
    await home.kill_service()
    home.paths.journal.with_suffix(".new").write_text('{"schema": "slotdeck.jou')
    client = await home.connect()
    status: InstanceStatus = await home.until_state(client, "a", State(stage))
    assert status.pid == pid
    await eventually_async(lambda: not home.paths.journal.with_suffix(".new").exists())
