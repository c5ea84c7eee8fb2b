"""Placements of several at once, new ones, and taking them back, on real processes."""

import os

import msgspec
import pytest

from engine.client import ServiceClient
from engine.control import (
    AddInstances,
    HeldWish,
    MoveInstance,
    MoveInstances,
    Redo,
    Seat,
    StopInstances,
    Undo,
)
from engine.core.status import InstanceStatus, Snapshot, State
from tests.processes import Home

two_pus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a move needs somewhere to go"
)


def places(snapshot: Snapshot) -> dict[str, tuple[str, str, State]]:
    return {one.name: (one.slot, one.pus, one.state) for one in snapshot.instances}


async def settled(home: Home, client: ServiceClient) -> Snapshot:
    """Nothing starts, stops or is on its way any more."""

    def at_rest(one: InstanceStatus) -> bool:
        if one.state is State.READY:
            return one.verified is not None
        return one.state in (State.STOPPED, State.FAILED)

    return await home.until(client, lambda now: all(at_rest(one) for one in now.values()))


@two_pus
async def test_two_change_places_and_back(home: Home) -> None:
    client = await home.connect()
    before = await home.up(
        client, {"name": "a", "slot": "core:0"}, {"name": "b", "slot": "core:1"}
    )
    swap = MoveInstances((Seat("a", "core:1"), Seat("b", "core:0")))
    offer = await home.apply(client, swap)
    assert {one.instance: str(one.pus) for one in offer.moves} == {"a": "1", "b": "0"}
    after = await settled(home, client)
    assert {one.name: one.pus for one in after.instances} == {"a": "1", "b": "0"}
    assert after.undo == "move a to core:1, b to core:0"
    taken_back = await home.apply(client, Undo())
    assert "takes back: move a to core:1, b to core:0" in taken_back.consequences
    undone = await settled(home, client)
    assert places(undone) == places(before)
    assert undone.redo == "move a to core:1, b to core:0"
    await home.apply(client, Redo())
    assert places(await settled(home, client)) == places(after)


async def test_what_was_stopped_runs_again_and_what_was_new_leaves(home: Home) -> None:
    client = await home.connect()
    first = await home.up(client, {"name": "a", "slot": "core:0"})
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    told = [one.text for one in (await client.snapshot()).happenings]
    assert f"command {os.getpid()}: stop a" in told
    held = (await client.layout()).wishes[0]
    fresh = HeldWish(msgspec.structs.replace(held.wish, name="new"), held.base)
    await home.apply(client, AddInstances((fresh,)))
    await home.until_state(client, "new", State.READY)
    again = await client.offer(AddInstances((fresh,)))
    assert "there is an instance of that name" in again.refusals[0].why
    offer = await home.apply(client, Undo())
    assert offer.stops == ("new",)
    assert "new leaves the list" in offer.consequences
    await home.until(client, lambda now: "new" not in now)
    offer = await home.apply(client, Undo())
    assert [one.instance for one in offer.starts] == ["a"]
    assert "requests that were cut off by the stop stay lost" in offer.consequences
    assert places(await settled(home, client))["a"] == places(first)["a"]


async def test_a_taken_place_is_not_given_twice(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "slot": "core:0"})
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    await home.apply(client, home.layout({"name": "b", "slot": "core:0"}))
    await home.until_state(client, "b", State.READY)
    offer = await client.offer(AddInstances(()))
    assert not offer.starts
    back = await home.apply(client, Undo())  # b came with a layout, which forgot a
    assert "a did not run and has left the list: that stays so" in back.consequences
    await home.until(client, lambda now: "b" not in now)
    assert (await client.snapshot()).undo == "stop a"


async def test_what_cannot_be_undone_is_said(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "slot": "core:0"})
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    offer = await home.apply(client, StopInstances(("a",), forget=True))
    assert offer.consequences == ("a leaves the list, which cannot be undone",)
    assert (await client.snapshot()).undo == "stop a"


async def test_nothing_to_take_back_is_told(home: Home) -> None:
    client = await home.connect()
    with pytest.raises(Exception, match="nothing to undo"):
        await client.offer(Undo())
    with pytest.raises(Exception, match="nothing to do again"):
        await client.offer(Redo())
    assert (await client.snapshot()).undo == ""


async def test_an_auto_slot_goes_back_to_its_very_place(home: Home) -> None:
    client = await home.connect()
    before = await home.up(client, {"name": "a", "slot": "auto", "cores": 1})
    here = before.instances[0].pus
    other = "0" if here != "0" else "1"
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a move needs somewhere to go")
    await home.apply(client, MoveInstance("a", f"core:{other}"))
    await settled(home, client)
    await home.apply(client, Undo())
    assert places(await settled(home, client)) == places(before)


async def test_the_catalogue_tells_what_there_is(home: Home) -> None:
    client = await home.connect()
    there = home.folder / "home/.cache/huggingface/hub/models--me--tiny/snapshots/abc"
    there.mkdir(parents=True)
    (there / "config.json").write_text("{}")
    told = await client.catalogue()
    engines = {one.name: one for one in told.engines}
    assert engines["vllm-xpu"].device == "gpu"
    assert engines["vllm-cpu"].why_not == (
        "it is not installed: slotdeck engines install vllm-cpu"
    )
    models = {one.name: one for one in told.models}
    assert str(there) in models
    assert "does not hold it yet" in models["bundled:smollm2-135m"].why_not
