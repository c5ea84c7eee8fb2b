"""Engines with bad manners: they crash, hang, fork, flood and do not listen."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.control import StartInstances, StopInstances
from engine.core.layout import Instance
from engine.core.status import State
from engine.drivers.openai_api import get
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from engine.service.readiness import first_request, why_no_token
from tests.processes import FAKE_ENGINE, Home, alive, eventually_async

QUICK = "patience=Policy(backoff_first_s=0.05, max_failures=2)"


async def test_a_crash_is_retried_and_then_failed_with_its_last_line(home: Home) -> None:
    client = await home.served(QUICK)
    flags = ["--die-on-start", "no such weights: model.safetensors", "--exit-code", "3"]
    wish = {"name": "a", "flags": flags, "restart": "on-failure"}
    await home.apply(client, home.layout(wish))
    status = await home.until_state(client, "a", State.FAILED)
    assert status.why == (
        "ended with exit code 3: no such weights: model.safetensors "
        "(gave up after 2 restarts in a row)"
    )
    assert status.restarts == 2
    assert status.pid is None
    told = [one.text for one in (await client.snapshot()).happenings]
    assert sum(text.startswith("a: backoff") for text in told) == 2
    assert any("restart in 0.05 s" in text for text in told)
    assert any("restart in 0.1 s" in text for text in told)


@pytest.mark.parametrize(
    ("restart", "code", "state", "why"),
    [
        ("never", "2", State.FAILED, "ended with exit code 2: bye"),
        ("on-failure", "0", State.STOPPED, "ended with exit code 0: bye"),
    ],
)
async def test_an_engine_that_shall_not_restart_does_not(
    home: Home, restart: str, code: str, state: State, why: str
) -> None:
    client = await home.connect()
    flags = ["--die-on-start", "bye", "--exit-code", code]
    await home.apply(client, home.layout({"name": "a", "flags": flags, "restart": restart}))
    status = await home.until_state(client, "a", state)
    assert status.why == why
    assert status.restarts == 0


async def test_health_without_a_token_is_not_ready_and_says_why(home: Home) -> None:
    client = await home.connect()
    await home.apply(client, home.layout({"name": "a", "flags": ["--cut-completions"]}))
    said = "health answers, but its first token did not come: "
    await home.until(client, lambda now: said in now["a"].why)
    assert (await client.snapshot()).instances[0].state == State.STARTING


def test_ranks_that_work_together_have_to_give_a_second_token() -> None:
    wish = Instance(name="a", model="/models/m")
    assert first_request(wish, 1)["max_tokens"] == 1
    assert first_request(wish, 2)["max_tokens"] == 2
    assert first_request(wish, 2)["ignore_eos"], "an answer that ends at once says nothing"
    assert first_request(Instance(name="a", weights="dummy"), 2)["prompt"] == [1]


async def test_ranks_that_hang_after_the_first_token_are_told(home: Home) -> None:
    client = await home.connect()
    up = await home.up(client, {"name": "a", "flags": ["--hang-after", "1"]})
    url, wish = up.instances[0].url, Instance(name="a", model="m")
    assert url is not None
    assert await why_no_token(url, wish, 1, api_key=None) == ""
    said = ""
    for doubling in range(7):  # However long a busy machine needs for the first one.
        said = await why_no_token(url, wish, 2, api_key=None, within_s=0.25 * 2**doubling)
        if "second" in said:
            break
    assert "its second token did not come within" in said
    assert said.endswith(" s; its 2 ranks may wait for each other, see its log")
    said = await why_no_token(url + "/nowhere", wish, 2, api_key=None)
    assert said.startswith("a completion failed: HTTP 404")


async def test_a_ready_engine_that_crashes_comes_back(home: Home) -> None:
    client = await home.served(QUICK)
    before = (await home.up(client, {"name": "a", "restart": "on-failure"})).instances[0]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    await home.until(client, lambda now: now["a"].restarts == 1 and now["a"].state == "ready")
    after = (await client.snapshot()).instances[0]
    assert after.pid != before.pid
    assert after.port == before.port
    assert len(home.engines()) == 1


async def test_a_back_off_outlives_the_service(home: Home) -> None:
    client = await home.served("patience=Policy(backoff_first_s=600)")
    flags = ["--crash-after", "0.3"]
    await home.apply(client, home.layout({"name": "a", "flags": flags, "restart": "always"}))
    await home.until_state(client, "a", State.BACKOFF)
    await eventually_async(lambda: home.journal()["instances"][0]["life"]["state"] == "backoff")
    await home.kill_service()
    client = await home.served("patience=Policy(backoff_first_s=600)")
    await home.until(client, lambda now: now["a"].restarts == 1 and now["a"].pid is not None)


async def test_a_port_that_is_taken_during_a_back_off_is_waited_for(home: Home) -> None:
    client = await home.served("patience=Policy(backoff_first_s=0.4, max_failures=9)")
    before = (await home.up(client, {"name": "a", "restart": "on-failure"})).instances[0]
    assert before.pid is not None
    assert before.port is not None
    os.kill(before.pid, signal.SIGKILL)
    with contextlib.ExitStack() as taken:

        def take() -> bool:
            with contextlib.suppress(OSError):  # until the engine's end has freed it
                taken.enter_context(socket.create_server(("127.0.0.1", before.port or 0)))
                return True
            return False

        await eventually_async(take)
        words = f"(pid {os.getpid()}) listens on its port {before.port}; restart in"
        found = await home.until(client, lambda now: words in now["a"].why)
        status = found.instances[0]
        assert status.state is State.BACKOFF
        assert status.why.endswith("Stop that, or give the instance another port")
    after = await home.until_state(client, "a", State.READY)
    assert after.port == before.port
    assert len(home.engines()) == 1


async def test_one_that_ignores_sigterm_is_killed_after_its_grace(home: Home) -> None:
    client = await home.connect()
    wish = {"name": "a", "flags": ["--ignore-sigterm", "--fork-child"], "stop_grace_s": 0.5}
    await home.up(client, wish)
    await home.apply(client, StopInstances(("a",)))
    stopped = await home.until_state(client, "a", State.STOPPED)
    assert stopped.why == "killed after its grace"
    await eventually_async(lambda: not home.engines())


async def test_a_stopped_engine_ends_too(home: Home) -> None:
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "stop_grace_s": 0.5})).instances[0]
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    assert not alive(status.pid)


async def test_one_that_hangs_when_ready_is_restarted_where_the_layout_says_so(home: Home) -> None:
    client = await home.served("patience=Policy(backoff_first_s=0.1)")
    wish = {"name": "a", "stop_grace_s": 0.2, "answer_timeout_s": 1.0, "restart": "on-failure"}
    now = await home.up(client, wish, {"name": "b"})
    hung, other = (one.pid for one in now.instances)
    assert hung is not None
    assert other is not None
    os.kill(hung, signal.SIGSTOP)
    os.kill(other, signal.SIGSTOP)
    async for now in client.snapshots():
        a, b = now.instances
        if a.restarts and a.state is State.READY and b.why.startswith("not answering for "):
            break
    told = [one.text for one in now.happenings if one.text.startswith("a: backoff")]
    assert len(told) == 1
    assert told[0].startswith("a: backoff — not answering for ")
    assert a.pid not in (hung, None)
    assert not alive(hung)
    assert (b.pid, b.state) == (other, State.READY)


async def test_children_that_got_away_are_ended_and_the_port_is_free(home: Home) -> None:
    client = await home.connect()
    flags = ["--fork-child", "--double-fork", "--hold-port"]
    status = (await home.up(client, {"name": "a", "flags": flags})).instances[0]
    assert len(home.engines()) == 3
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    await home.until_state(client, "a", State.FAILED)
    await eventually_async(lambda: not home.engines())
    assert status.port not in listening_ports(HostRoot())


@pytest.mark.parametrize("flag", ["--never-ready", "--hang-health"])
async def test_one_that_never_gets_ready_fails(home: Home, flag: str) -> None:
    client = await home.connect()
    wish = {"name": "a", "flags": [flag], "ready_timeout_s": 1.0, "restart": "always"}
    await home.apply(client, home.layout(wish))
    status = await home.until_state(client, "a", State.FAILED)
    assert status.why.startswith("not ready within 1 s")
    assert not home.engines()


async def test_a_flood_is_bounded_on_disk_and_can_be_followed(home: Home) -> None:
    client = await home.connect()
    count = 100 << 20
    flags = ["--flood-bytes", str(count), "--flood-when-asked"]
    status = (await home.up(client, {"name": "a", "flags": flags})).instances[0]
    end = (await client.log("a")).next_offset
    flooding = asyncio.ensure_future(get(f"{status.url}/flood", timeout_s=60))
    read, offset = 0, end
    while read < count:
        lines = await client.log("a", offset=offset, limit_bytes=2 << 20)
        assert lines.next_offset >= offset
        read += len(lines.text)
        # What the pump wrote while we were slow may be gone, but nothing comes twice.
        assert len(lines.text) <= lines.next_offset - offset
        offset = lines.next_offset
        if flooding.done() and not lines.text:
            break
    assert (await flooding).status == 200
    assert offset == end + count
    assert on_disk(home.paths.instance("a")) <= 17 << 20
    assert (await client.log("a", limit_bytes=1000)).text.endswith("x\n")


async def test_a_slow_flood_is_followed_without_a_loss(home: Home) -> None:
    client = await home.connect()
    count = 6 << 20
    flags = ["--flood-bytes", str(count), "--flood-when-asked"]
    status = (await home.up(client, {"name": "a", "flags": flags})).instances[0]
    offset = (await client.log("a")).next_offset
    text = ""
    for _ in range(4):  # 24 MiB: three pieces, one of which is dropped
        assert (await get(f"{status.url}/flood", timeout_s=60)).status == 200
        while (lines := await client.log("a", offset=offset, limit_bytes=2 << 20)).text:
            text, offset = text + lines.text, lines.next_offset
    assert text == ("x" * 99 + "\n") * (4 * count // 100) or len(text) == 4 * count


async def test_start_stop_start_in_a_hurry_leaves_one_engine(home: Home) -> None:
    client = await home.connect()
    await home.apply(client, home.layout({"name": "a"}))
    for _ in range(12):
        await home.apply(client, StopInstances(("a",)))
        while True:
            offer = await client.offer(StartInstances(("a",)))
            if not offer.refusals:
                await client.apply(offer)
                break
            await asyncio.sleep(0)
    await home.until_state(client, "a", State.READY)
    assert len(home.engines()) == 1
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.until(client, lambda now: not now)
    assert not home.engines()
    assert not [one.text for one in (await client.snapshot()).happenings if "bug" in one.text]


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def test_another_program_on_its_port_does_not_pass_for_it(home: Home) -> None:
    """It binds late, as engines do that load for minutes; somebody else was quicker."""
    gate = home.folder / "gate"
    python = home.folder / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
        "port = sys.argv[sys.argv.index('--port') + 1]\n"
        f"os.execv(sys.executable, [sys.executable, {str(FAKE_ENGINE)!r}, '--port', port])\n"
    )
    python.chmod(0o755)
    model = home.folder / "model"
    model.mkdir()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300}
    (model / "config.json").write_text(json.dumps({"model_type": "llama", **sizes, **heads}))
    client = await home.connect()
    wish = {"name": "a", "engine": "torch", "model": str(model), "weights": "dummy"}
    await home.apply(client, home.layout({**wish, "python": str(python)}))
    loading = (await home.until(client, lambda now: now["a"].pid is not None)).instances[0]
    port = str(loading.port)
    words = [sys.executable, str(FAKE_ENGINE), "--port", port]
    stranger = subprocess.Popen(words)  # noqa: ASYNC220
    try:
        told = f"(pid {stranger.pid}) listens on its port and answers in its place"
        now = await home.until(client, lambda now: told in now["a"].why)
        assert now.instances[0].state is State.STARTING
    finally:
        stranger.kill()
        stranger.wait()
    gate.touch()
    ready = await home.until_state(client, "a", State.READY)
    assert ready.pid == loading.pid
