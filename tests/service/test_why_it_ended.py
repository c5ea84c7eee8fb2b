"""What a reader is told when an engine ended: the cause and a cure, and never an older one."""

import pytest

from engine.core.status import State
from tests.processes import Home

QUICK = "patience=Policy(backoff_first_s=0.05, max_failures=1)"
BUSY = "ERROR: [Errno 98] error while attempting to bind on ('::1', 29500): address already in use"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "ModuleNotFoundError: No module named 'vllm'",
            "ended with exit code 1: its Python lacks the module vllm "
            "(gave up after 1 restarts in a row). "
            "Install it into the engine's environment: `slotdeck engines check NAME`",
        ),
        (
            f"{BUSY}\nINFO:     Application shutdown complete.",
            "ended with exit code 1: port 29500 is in use by another program "
            "(gave up after 1 restarts in a row). "
            "Stop that one: it is not the instance's own port, which is {port}",
        ),
    ],
)
async def test_a_cause_is_told_with_a_cure(home: Home, said: str, why: str) -> None:
    client = await home.served(QUICK)
    flags = ["--die-on-start", said]
    await home.apply(client, home.layout({"name": "a", "flags": flags, "restart": "on-failure"}))
    status = await home.until_state(client, "a", State.FAILED)
    assert status.why == why.format(port=status.port)
    told = [one.text for one in (await client.snapshot()).happenings]
    assert f"a: its last line was: {said.splitlines()[-1].strip()}" in told
    assert said in (await client.log("a")).text


async def test_what_an_earlier_start_said_is_not_why_this_one_ended(home: Home) -> None:
    client = await home.connect()
    wish = {"name": "a", "flags": ["--die-on-start", "ModuleNotFoundError: No module named 'x'"]}
    await home.apply(client, home.layout(wish))
    assert "lacks the module x" in (await home.until_state(client, "a", State.FAILED)).why
    await home.apply(client, home.layout({"name": "a", "flags": ["--die-on-start", "bye"]}))
    await home.until(client, lambda now: now["a"].why == "ended with exit code 1: bye")
