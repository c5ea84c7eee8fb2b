"""A running instance goes to another slot with its process, its threads and its requests."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from engine.client import ServiceClient
from engine.control import AnswerEnd, AnswerPiece, MoveInstance, StopInstances
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import StaleOffer
from engine.core.status import InstanceStatus, State
from engine.host.cpuset_group import remapped
from engine.host.process import thread_affinities
from engine.host.root import HostRoot
from engine.service.carrying import counterpart
from tests.bundled_model import bundled_model
from tests.processes import Home, free_ports
from tests.service.asking import send_off, stream

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a move needs somewhere to go"
)


def affinities(pid: int | None) -> set[str]:
    assert pid is not None
    return {str(pus) for pus in thread_affinities(HostRoot(), pid).values()}


async def moved(home: Home, client: ServiceClient, name: str, slot: str) -> InstanceStatus:
    """Apply a live move and wait until it is over and verified."""
    offer = await home.apply(client, MoveInstance(name, slot))
    assert offer.live == (name,), offer.consequences
    now = await home.until(client, lambda each: each[name].verified is not None)
    return next(one for one in now.instances if one.name == name)


async def test_requests_in_flight_go_on_while_the_process_changes_its_place(home: Home) -> None:
    client = await home.connect()
    flags = ["--busy", "--fork-child", "--touch-mib", "32", "--itl-ms", "4"]
    before = (await home.up(client, {"name": "a", "slot": "core:0", "flags": flags})).instances[0]
    family = home.engines()
    answers = [asyncio.ensure_future(stream(before, 250)) for _ in range(8)]
    for slot in ("core:1", "core:0", "core:1"):
        await asyncio.sleep(0.1)
        after = await moved(home, client, "a", slot)
        assert (after.pid, after.state, after.verified) == (before.pid, State.READY, True)
        assert (after.slot, after.pus, after.restarts) == (slot, slot[-1], 0)
        assert home.engines() == family
        for pid in family:
            assert affinities(pid) == {slot[-1]}
    expected = [f"t{number} " for number in range(250)]
    assert [await answer for answer in answers] == [expected] * 8
    row = home.journal()["instances"][0]
    assert (row["running"]["placement"]["slot"], row["placement"]["pus"]) == ("core:1", "1")
    assert row["wish"]["slot"] == "core:1"
    # Its shim, which only waits for it, has left the old slot as well.
    assert affinities(row["launched"]["shim_pid"]) == {"1"}


async def test_the_offer_says_how_it_moves_before_anything_does(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "slot": "core:0"})
    offer = await client.offer(MoveInstance("a", "core:1"))
    assert offer.live == ("a",)
    assert offer.consequences == (
        "a: moves live, requests go on: its threads go to PU 1, its memory stays on NUMA node 0",
    )
    wider = await client.offer(MoveInstance("a", "core:0-1"))
    assert wider.live == ()
    assert wider.consequences[0] == (
        "a: moves by a restart: its threads were made for 1 PU, and the new slot has 2 PUs"
    )
    asked = await client.offer(MoveInstance("a", "core:1", restart=True))
    assert (asked.live, asked.consequences[0]) == ((), "a: moves by a restart: as asked")


async def test_a_layout_moves_live_what_only_changes_its_slot(home: Home) -> None:
    client = await home.connect()
    port = free_ports(1)[0]
    wish = {"name": "a", "slot": "core:0", "port": port}
    before = (await home.up(client, wish)).instances[0]
    offer = await home.apply(client, home.layout({**wish, "slot": "core:1"}))
    assert (offer.live, [one.slot for one in offer.moves]) == (("a",), ["core:1"])
    now = await home.until(client, lambda each: each["a"].verified is not None)
    assert (now.instances[0].pid, now.instances[0].pus) == (before.pid, "1")
    again = await client.offer(home.layout({**wish, "slot": "core:1"}))
    assert again.keeps == ("a",)
    other = await client.offer(home.layout({**wish, "slot": "core:0", "env": {"A": "1"}}))
    assert other.live == ()
    assert "more than its slot changes" in other.consequences[0]


async def test_a_live_offer_is_stale_for_another_start_of_the_instance(home: Home) -> None:
    client = await home.connect()
    wish = {"name": "a", "slot": "core:0", "restart": "always"}
    before = (await home.up(client, wish)).instances[0]
    offer = await client.offer(MoveInstance("a", "core:1"))
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    await home.until(client, lambda now: now["a"].state == "ready" and now["a"].pid != before.pid)
    with pytest.raises(StaleOffer):
        await client.apply(offer)


async def test_what_is_not_ready_moves_by_a_restart(home: Home) -> None:
    client = await home.connect()
    await home.apply(
        client, home.layout({"name": "a", "slot": "core:0", "flags": ["--never-ready"]})
    )
    await home.until(client, lambda now: now["a"].pid is not None)
    offer = await client.offer(MoveInstance("a", "core:1"))
    assert offer.consequences[0] == "a: moves by a restart: it is starting"


async def test_a_service_that_died_in_the_middle_leaves_what_verify_finds(home: Home) -> None:
    client = await home.connect()
    before = (await home.up(client, {"name": "a", "slot": "core:0"})).instances[0]
    # As a move that came no further than the threads: the journal knows the old place.
    await send_off(before, cpus=[1])
    await home.kill_service()
    client = await home.connect()
    now = await home.until(client, lambda each: each["a"].verified is False)
    assert "1 thread may run on PU 1, asked PU 0" in now.instances[0].why
    (repaired,) = (await client.verify(("a",), repair=True)).instances
    assert repaired.verified, repaired
    assert affinities(before.pid) == {"0"}


async def test_stopping_in_the_middle_of_a_move_stops(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "slot": "core:0", "flags": ["--touch-mib", "64"]})
    await home.apply(client, MoveInstance("a", "core:1"))
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.until(client, lambda now: not now)
    assert not home.engines()


@pytest.mark.torch
async def test_the_real_engine_goes_on_generating(home: Home) -> None:
    models = home.folder / "cache/slotdeck/models"
    models.mkdir(parents=True)
    (models / "smollm2-135m").symlink_to(bundled_model())
    client = await home.connect()
    wish = {
        "name": "a",
        "engine": "torch",
        "model": "bundled:smollm2-135m",
        "slot": "core:0",
        "dtype": "float32",
    }
    await home.apply(client, home.layout(wish))
    now = await home.until(client, lambda each: each["a"].verified is True, within_s=120)
    pid = now.instances[0].pid
    whole = await collected(client.ask("a", "Count to twenty", max_tokens=48))
    answer = asyncio.ensure_future(collected(client.ask("a", "Count to twenty", max_tokens=48)))
    await asyncio.sleep(0.3)
    after = await moved(home, client, "a", "core:1")
    assert not answer.done()
    assert (after.pid, after.verified) == (pid, True)
    assert pid is not None
    assert len(thread_affinities(HostRoot(), pid)) > 1
    assert affinities(pid) == {"1"}
    assert await answer == whole


async def collected(pieces: AsyncIterator[AnswerPiece | AnswerEnd]) -> str:
    """The text of an answer that came to its end."""
    text = ""
    async for piece in pieces:
        if isinstance(piece, AnswerPiece):
            text += piece.text
        else:
            assert isinstance(piece, AnswerEnd)
            assert piece.output_tokens == 48
    return text


# How the kernel rewrites a policy's nodes when those of its cpuset change (seen in a guest)


@pytest.mark.parametrize(
    ("nodes", "old", "new", "becomes"),
    [
        ("1", "0-3", "2", "2"),
        ("2", "2", "0,2", "0"),
        ("0", "0,2", "0", "0"),
        ("0-1", "0-3", "2-3", "2-3"),
        ("2-3", "0-3", "0-1", "0-1"),
        ("1,3", "0-3", "0,2", "2"),
        ("5", "0-3", "2", "5"),
    ],
)
def test_nodes_are_remapped_as_the_kernel_does(
    nodes: str, old: str, new: str, becomes: str
) -> None:
    sets = map(NodeSet.parse, (nodes, old, new))
    assert str(remapped(*sets)) == becomes


@pytest.mark.parametrize(
    ("affinity", "was", "to", "goes"),
    [
        ("0-3", "0-3", "8-11", "8-11"),  # the whole slot
        ("2", "0-3", "8-11", "10"),  # its own PU
        ("0,3", "0-3", "4-7", "4,7"),
        ("0-7", "0-3", "8-11", "8-11"),  # it may run outside
        ("9", "0-3", "8-11", "8-11"),
        ("0", "0,2", "1,3", "1"),
        ("2", "0,2", "1,3", "3"),
        ("1", "0-1", "1-2", "2"),  # the slots overlap
        ("1,5", "0-3", "0-3", "1"),  # back into the same slot
        ("5", "0-3", "0-3", "0-3"),
    ],
)
def test_a_thread_goes_to_the_counterpart_of_its_pus(
    affinity: str, was: str, to: str, goes: str
) -> None:
    sets = map(CpuSet.parse, (affinity, was, to))
    assert str(counterpart(*sets)) == goes
