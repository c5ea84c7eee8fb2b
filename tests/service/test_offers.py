"""Offers are applied once, as they were shown; the load belongs to the service."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from engine.control import MoveInstance, Offer, StartLoad, StopInstances, StopLoad
from engine.core.errors import ControlError, StaleOffer
from engine.core.status import State
from engine.host.root import HostRoot
from engine.service.consequences import at_logout
from tests.processes import Home, alive, eventually_async


async def test_an_offer_is_stale_after_another_was_applied(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    first = await client.offer(StopInstances(("a",)))
    second = await client.offer(StopInstances(("a",), forget=True))
    await client.apply(second)
    with pytest.raises(StaleOffer, match="the machine or the instances have changed"):
        await client.apply(first)
    with pytest.raises(StaleOffer):
        await client.apply(second)
    with pytest.raises(StaleOffer):
        await client.apply(Offer("made up"))


async def test_offers_say_what_they_cost(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "stop_grace_s": 7})
    offer = await client.offer(StopInstances(("a",)))
    assert offer.stops == ("a",)
    assert offer.consequences[0].startswith("a: ")
    with pytest.raises(ControlError, match="There is no instance 'b'"):
        await client.offer(StopInstances(("a", "b")))


async def test_an_instance_that_left_meanwhile_breaks_no_offer(home: Home) -> None:
    client = await home.connect()
    wish = {"name": "a", "flags": ["--ignore-sigterm"], "stop_grace_s": 0.5}
    await home.up(client, wish)
    await home.apply(client, StopInstances(("a",), forget=True))
    late = await client.offer(StopInstances(("a",)))
    await home.until(client, lambda now: not now)
    await client.apply(late)
    assert not (await client.snapshot()).instances


async def test_a_load_starts_and_stops(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    refused = await client.offer(StartLoad(("a", "a")))
    assert not refused.refusals
    await home.apply(client, StartLoad(("a",), concurrency=2, duration_s=60))
    load = (await client.snapshot()).load
    assert load is not None
    assert (load.targets, load.concurrency) == (("a",), 2)
    assert 0 < load.ends_in_s <= 60
    await home.apply(client, StartLoad(("a",), duration_s=60))
    assert not alive(load.pid)
    second = (await client.snapshot()).load
    assert second is not None
    await home.apply(client, StopLoad())
    assert (await client.snapshot()).load is None
    assert not alive(second.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_load_ends_with_the_service(home: Home, number: signal.Signals) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    await home.apply(client, StartLoad(("a",), duration_s=60))
    load = (await client.snapshot()).load
    assert load is not None
    await home.kill_service(number)
    await eventually_async(lambda: not alive(load.pid))
    assert len(home.engines()) == 1


async def test_loads_started_at_once_leave_one(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})

    async def start() -> None:
        try:
            await home.apply(client, StartLoad(("a",), duration_s=60))
        except StaleOffer:
            return

    await asyncio.gather(*(start() for _ in range(6)))
    load = (await client.snapshot()).load
    assert load is not None
    service = await home.service_pid()
    await eventually_async(lambda: set(home.processes()) == {service, load.pid, *home.engines()})


async def test_a_load_waits_for_ready(home: Home) -> None:
    client = await home.connect()
    await home.apply(client, home.layout({"name": "a", "flags": ["--never-ready"]}))
    offer = await client.offer(StartLoad(("a",)))
    assert offer.refusals[0].why == "it is starting"
    with pytest.raises(ControlError, match="Nothing was changed"):
        await client.apply(offer)
    assert (await home.until_state(client, "a", State.STARTING)).pid != os.getpid()


async def test_an_instance_that_is_started_again_keeps_to_the_ports_of_its_file(
    home: Home,
) -> None:
    client = await home.connect()
    before = (await home.up(client, {"name": "a", "slot": "core:0"})).instances[0]
    assert before.port is not None
    await home.kill_service()  # only the journal is left to tell which they were
    client = await home.connect()
    await home.until_state(client, "a", State.READY)
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    # Until nothing of it is left, whoever listens on its port counts as its own.
    await eventually_async(lambda: home.journal()["instances"][0]["running"] is None)
    with socket.create_server(("127.0.0.1", before.port)):
        offer = await client.offer(MoveInstance("a", "core:0"))
    (placed,) = offer.starts
    first, last = home.ports
    assert placed.port != before.port
    assert first <= placed.port <= last


def test_what_ends_at_logout_is_said_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user.slice/session-3.scope\n")
    (tmp_path / "etc/systemd").mkdir(parents=True)
    settings = tmp_path / "etc/systemd/logind.conf"
    settings.write_text("KillUserProcesses=yes\nKillExcludeUsers=\n")
    (told,) = at_logout(HostRoot(tmp_path))
    assert "(KillUserProcesses=yes in /etc/systemd/logind.conf)" in told
    settings.write_text("KillUserProcesses=no\n")
    assert at_logout(HostRoot(tmp_path)) == ()
