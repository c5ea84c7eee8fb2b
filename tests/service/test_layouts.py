"""Layouts applied: all or nothing, and only what differs."""

import os
import socket
import sys
from typing import Any

import pytest

from engine.control import ApplyLayout, MoveInstance, StartInstances, StopInstances
from engine.core.errors import ControlError
from engine.core.status import Snapshot, State
from engine.layout_files import saving
from tests.processes import FAKE_ENGINE, Home, free_ports


def pids(snapshot: Snapshot) -> dict[str, int | None]:
    return {one.name: one.pid for one in snapshot.instances}


async def test_a_busy_port_is_refused_before_anything_starts(home: Home) -> None:
    client = await home.connect()
    before = await home.up(client, {"name": "a", "slot": "core:0"})
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        offer = await client.offer(
            home.layout(
                {"name": "a", "slot": "core:0"}, {"name": "b", "slot": "core:1", "port": port}
            )
        )
        assert [one.instance for one in offer.refusals] == ["b"]
        assert "another program" in offer.refusals[0].why
        with pytest.raises(ControlError, match="Nothing was changed: b has no place"):
            await client.apply(offer)
    assert pids(await client.snapshot()) == pids(before)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"command": ["no-such-server", "{port}"]}, "there is no program 'no-such-server'"),
        ({"command": ["./missing", "{port}"]}, "missing'"),
        ({"engine": "ipex", "model": "./no-model"}, "no-model"),
        ({"slot": "numa:7"}, "numa:7"),
        ({"slot": "core:90"}, "core"),
    ],
)
async def test_one_wrong_instance_refuses_the_whole_layout(
    home: Home, wrong: dict[str, Any], why: str
) -> None:
    client = await home.connect()
    wish = {"name": "b", **wrong}
    offer = await client.offer(home.layout({"name": "a", "slot": "core:0"}, wish))
    assert [one.instance for one in offer.refusals] == ["b"]
    assert why in offer.refusals[0].why
    with pytest.raises(ControlError, match="Nothing was changed"):
        await client.apply(offer)
    assert not (await client.snapshot()).instances
    assert not home.engines()


async def test_a_program_beside_the_layout_file_is_found_and_the_layout_may_go_elsewhere(
    home: Home,
) -> None:
    client = await home.connect()
    script = home.folder / "server"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    script.chmod(0o755)
    command = ["./server", str(FAKE_ENGINE), "--port", "{port}"]
    await home.up(client, {"name": "a", "command": command})
    elsewhere = home.folder / "elsewhere"
    elsewhere.mkdir()
    saved = saving(str(elsewhere / "a.toml"), await client.layout(), await client.machine())
    assert '"../server"' in saved.after
    offer = await client.offer(ApplyLayout("a.toml", saved.after, str(elsewhere)))
    assert offer.keeps == ("a",)


async def test_the_same_layout_again_keeps_everything(home: Home) -> None:
    client = await home.connect()
    wishes = ({"name": "a", "slot": "core:0"}, {"name": "b", "slot": "core:1"})
    before = await home.up(client, *wishes)
    offer = await client.offer(home.layout(*wishes))
    assert offer.keeps == ("a", "b")
    assert (offer.starts, offer.moves, offer.stops) == ((), (), ())
    await client.apply(offer)
    assert pids(await client.snapshot()) == pids(before)


async def test_only_what_differs_is_restarted_and_only_what_is_gone_stops(home: Home) -> None:
    client = await home.connect()
    a, b = {"name": "a", "slot": "core:0"}, {"name": "b", "slot": "core:1"}
    before = await home.up(client, a, b)
    changed = {**b, "env": {"MINE": "2"}}
    offer = await client.offer(home.layout(a, changed))
    assert [one.instance for one in offer.moves] == ["b"]
    assert offer.keeps == ("a",)
    await client.apply(offer)
    after = await home.until(
        client, lambda now: now["b"].state == "ready" and now["b"].pid != pids(before)["b"]
    )
    assert pids(after)["a"] == pids(before)["a"]
    offer = await client.offer(home.layout(changed))
    assert offer.stops == ("a",)
    await client.apply(offer)
    last = await home.until(client, lambda now: "a" not in now)
    assert pids(last)["b"] == pids(after)["b"]
    assert len(home.engines()) == 1


async def test_a_move_keeps_the_name_and_changes_the_place(home: Home) -> None:
    client = await home.connect()
    before = await home.up(client, {"name": "a", "slot": "core:0"})
    offer = await home.apply(client, MoveInstance("a", "core:1", restart=True))
    assert offer.consequences[0] == "a: moves by a restart: as asked"
    after = await home.until(
        client, lambda now: now["a"].verified is True and now["a"].pid != pids(before)["a"]
    )
    status = after.instances[0]
    assert (status.pus, status.slot, status.state) == ("1", "core:1", State.READY)
    assert status.pid is not None
    assert os.sched_getaffinity(status.pid) == {1}


async def test_two_instances_swap_slots_and_ports(home: Home) -> None:
    client = await home.connect()
    one, two = free_ports(2)
    slow = {"flags": ["--ignore-sigterm"], "stop_grace_s": 0.8}
    await home.up(
        client,
        {"name": "a", "slot": "core:0", "port": one, **slow},
        {"name": "b", "slot": "core:1", "port": two},
    )
    offer = await client.offer(
        home.layout(
            {"name": "a", "slot": "core:1", "port": two, **slow},
            {"name": "b", "slot": "core:0", "port": one},
        )
    )
    assert not offer.refusals
    old = home.engines()
    await client.apply(offer)
    # b, which ends at once, must not start beside a, which still has the place that b wants.
    waiting = await home.until(client, lambda now: "waits for a" in now["b"].why)
    assert waiting.instances[1].pid is None
    after = await home.until(
        client,
        lambda now: all(now[name].verified is True and now[name].pid not in old for name in "ab"),
    )
    assert [(status.pus, status.port) for status in after.instances] == [("1", two), ("0", one)]
    assert len(home.engines()) == 2


async def test_a_stopped_instance_starts_again_where_it_was(home: Home) -> None:
    client = await home.connect()
    before = (await home.up(client, {"name": "a", "slot": "auto", "cores": 1})).instances[0]
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    await home.apply(client, StartInstances(("a",)))
    # Whoever has applied sees the new life at once, never the old one.
    assert (await client.snapshot()).instances[0].state is not State.STOPPED
    after = await home.until_state(client, "a", State.READY)
    assert (after.pus, after.port) == (before.pus, before.port)


async def test_a_forgotten_name_can_be_used_again_at_once(home: Home) -> None:
    client = await home.connect()
    wish = {"name": "a", "flags": ["--double-fork", "--ignore-sigterm"], "stop_grace_s": 0.4}
    await home.up(client, wish)
    old = home.engines()
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.apply(client, home.layout(wish))
    await home.until(client, lambda now: now["a"].state == "ready" and now["a"].pid not in old)
    assert not set(old) & set(home.engines())
    assert len(home.engines()) == 2
