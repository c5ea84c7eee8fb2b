"""What the panel shows of a running instance's start, and starting it anew."""

import pytest

from engine.control import RestartInstances
from engine.core.errors import ControlError
from engine.core.status import State
from tests.processes import Home


async def test_a_command_line_tells_who_asked_for_each_part(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "env": {"KMP_BLOCKTIME": "1", "HF_TOKEN": "hf_very"}})
    told = await client.command("a")
    variables = {one.name: (one.value, one.source) for one in told.parts if one.kind == "variable"}
    assert variables["KMP_BLOCKTIME"] == ("1", "layout")
    assert "hf_very" not in told.shell
    assert variables["HF_TOKEN"][0] == "(redacted)"
    assert "numactl -C" in told.shell
    assert any(one.kind == "program" for one in told.parts)
    with pytest.raises(ControlError, match="There is no instance 'b'"):
        await client.command("b")


async def test_a_restart_ends_the_process_and_starts_it_where_it_was(home: Home) -> None:
    client = await home.connect()
    before = (await home.up(client, {"name": "a"})).instances[0]
    offer = await client.offer(RestartInstances(("a",)))
    assert [at.instance for at in offer.starts] == ["a"]
    assert offer.consequences[0].startswith("a: ")
    await client.apply(offer)
    await home.until(
        client, lambda now: now["a"].state is State.READY and now["a"].pid != before.pid
    )
    after = (await client.snapshot()).instances[0]
    assert (after.pus, after.port) == (before.pus, before.port)
