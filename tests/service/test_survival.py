"""The service dies in every way; engines go on, and the next service knows all of them."""

import asyncio
import json
import os
import shutil
import signal
import socket

import pytest

from engine.control import StopInstances
from engine.core.errors import ServiceUnreachable
from engine.core.status import State
from engine.drivers.openai_api import Piece, get, stream
from engine.host.paths import Paths
from tests.processes import WITHIN_S, Home, alive, eventually_async, state_of


async def test_a_stream_goes_on_when_the_service_is_killed(home: Home) -> None:
    client = await home.connect()
    flags = ["--itl-ms", "20"]
    before = (await home.up(client, {"name": "a", "flags": flags})).instances[0]
    pieces: list[Piece] = []
    body = {"model": "m", "prompt": "Hi", "max_tokens": 60, "stream": True}
    streaming = asyncio.ensure_future(
        stream(f"{before.url}/v1/completions", body, on_piece=pieces.append, idle_timeout_s=20)
    )
    await eventually_async(lambda: len(pieces) > 3)
    await home.kill_service()
    client = await home.connect()
    after = await home.until_state(client, "a", State.READY)
    assert (after.pid, after.started_at) == (before.pid, before.started_at)
    assert (await streaming).tokens == 60
    assert "".join(piece.text for piece in pieces) == "".join(f"t{n} " for n in range(60))
    await home.apply(client, StopInstances(("a",)))
    stopped = await home.until_state(client, "a", State.STOPPED)
    assert stopped.why == "stopped by request"
    assert not home.engines()


async def test_an_engine_that_loads_is_adopted_and_becomes_ready(home: Home) -> None:
    client = await home.connect()
    await home.apply(client, home.layout({"name": "a", "flags": ["--ready-after", "1.5"]}))
    before = await home.until(client, lambda now: now["a"].pid is not None)
    await home.kill_service()
    client = await home.connect()
    after = await home.until_state(client, "a", State.READY)
    assert after.pid == before.instances[0].pid


@pytest.mark.parametrize("delay_ms", [0, 4, 8, 12, 16, 20, 30, 45])
async def test_a_start_cut_anywhere_ends_with_one_engine(home: Home, delay_ms: int) -> None:
    client = await home.connect()
    pid = await home.service_pid()
    await home.apply(client, home.layout({"name": "a"}))
    await asyncio.sleep(delay_ms / 1000)  # not to wait for something: to cut somewhere
    os.kill(pid, signal.SIGKILL)
    await eventually_async(lambda: not alive(pid))
    client = await home.connect()
    await home.until_state(client, "a", State.READY)
    assert len(home.engines()) == 1
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.until(client, lambda now: not now)
    assert not home.engines()


async def test_the_next_service_finishes_a_stop(home: Home) -> None:
    client = await home.connect()
    wish = {"name": "a", "flags": ["--ignore-sigterm"], "stop_grace_s": 1.5}
    await home.up(client, wish)
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.kill_service()
    assert home.journal()["instances"][0]["life"]["state"] == "stopping"
    client = await home.connect()
    await home.until(client, lambda now: not now)
    assert not home.engines()


async def test_an_exit_that_nobody_saw_is_learned_from_the_shim(home: Home) -> None:
    client = await home.connect()
    pid = (await home.up(client, {"name": "a"})).instances[0].pid
    assert pid is not None
    await home.kill_service()
    os.kill(pid, signal.SIGABRT)
    await eventually_async(lambda: not alive(pid))
    client = await home.connect()
    status = await home.until_state(client, "a", State.FAILED)
    assert "ended by signal 6 (abort)" in status.why
    assert "serving" in status.why


async def test_without_its_shim_an_engine_goes_on_and_its_exit_is_unknown(home: Home) -> None:
    client = await home.connect()
    pid = (await home.up(client, {"name": "a"})).instances[0].pid
    assert pid is not None
    os.kill(home.journal()["instances"][0]["launched"]["shim_pid"], signal.SIGKILL)
    told = "a: its launcher was killed; the engine goes on"
    await home.until_told(client, told)
    assert (await client.snapshot()).instances[0].state is State.READY
    os.kill(pid, signal.SIGKILL)
    status = await home.until_state(client, "a", State.FAILED)
    assert "exit code unknown" in status.why


async def test_what_an_engine_says_is_kept_whoever_is_killed(home: Home) -> None:
    client = await home.connect()
    flags = ["--flood-bytes", str(1 << 20), "--flood-when-asked"]
    status = (await home.up(client, {"name": "a", "flags": flags})).instances[0]
    service = await home.service_pid()
    shim = home.journal()["instances"][0]["launched"]["shim_pid"]
    # Both at once: the next service finds an engine that nobody listens to.
    os.kill(service, signal.SIGSTOP)
    os.kill(shim, signal.SIGKILL)
    flooding = asyncio.ensure_future(get(f"{status.url}/flood", timeout_s=60))
    os.kill(service, signal.SIGKILL)
    await eventually_async(lambda: not alive(service))
    client = await home.connect()
    await home.until_told(client, "a: its launcher was killed; the engine goes on, another one")
    assert (await flooding).status == 200
    await eventually_async(
        lambda: sum(one.stat().st_size for one in home.paths.instance("a").iterdir()) > 1 << 20
    )
    assert (await home.until_state(client, "a", State.READY)).pid == status.pid
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.until(client, lambda now: not now)
    assert not home.engines()


async def test_a_number_that_belongs_to_somebody_else_is_not_signalled(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    await home.kill_service()
    for pid in home.engines():
        os.kill(pid, signal.SIGKILL)
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    page = home.journal()
    page["instances"][0]["launched"]["pid"] = stranger.pid
    page["instances"][0]["life"]["state"] = "stopping"
    home.paths.journal.write_text(json.dumps(page))
    client = await home.connect()
    await home.until_state(client, "a", State.STOPPED)
    assert state_of(stranger.pid) == "S"
    stranger.kill()
    await stranger.wait()


async def test_after_another_boot_nothing_is_signalled(home: Home) -> None:
    client = await home.connect()
    pid = (await home.up(client, {"name": "a"})).instances[0].pid
    assert pid is not None
    await home.kill_service()
    page = home.journal()
    page["boot_id"] = "another"
    home.paths.journal.write_text(json.dumps(page))
    client = await home.connect()
    snapshot = await client.snapshot()
    assert snapshot.instances[0].state is State.STOPPED
    assert snapshot.instances[0].why == "the machine was restarted"
    assert any("the machine was restarted" in one.text for one in snapshot.happenings)
    assert alive(pid)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"schema": "slotdeck.journal/1", "boot', "is torn or not ours"),
        ('{"schema": "slotdeck.journal/9", "rows": 3}', "another version (slotdeck.journal/9)"),
    ],
)
async def test_a_journal_that_cannot_be_read_is_kept_aside(
    home: Home, text: str, told: str
) -> None:
    client = await home.connect()
    pid = (await home.up(client, {"name": "a"})).instances[0].pid
    await home.kill_service()
    home.paths.journal.write_text(text)
    client = await home.connect()
    snapshot = await client.snapshot()
    assert snapshot.instances == ()
    problem = snapshot.happenings[0]
    assert problem.severity == "error"
    assert told in problem.text
    assert str(pid) in problem.text
    assert home.paths.journal.with_suffix(".unread").read_text() == text


async def test_two_services_started_at_once_are_one(home: Home) -> None:
    services = [home.start_service() for _ in range(4)]
    await eventually_async(lambda: sum(one.poll() is None for one in services) == 1)
    assert sorted(one.poll() or 0 for one in services) == [0, 75, 75, 75]
    serving = next(one for one in services if one.poll() is None)
    await home.connect()
    assert await home.service_pid() == serving.pid


async def test_clients_that_race_share_one_service(home: Home) -> None:
    clients = await asyncio.gather(*(home.connect() for _ in range(4)))
    pids = {(await client.snapshot()).service_pid for client in clients}
    assert len(pids) == 1
    await eventually_async(lambda: home.processes() == list(pids))


async def test_a_deleted_lock_makes_no_second_service(home: Home) -> None:
    await home.connect()
    home.paths.lock.unlink()
    second = home.start_service()
    assert await asyncio.to_thread(second.wait, 20) == 75


async def test_one_journal_has_one_service_whatever_the_socket(home: Home) -> None:
    await home.connect()
    first = await home.service_pid()
    elsewhere = home.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    home.environment["XDG_RUNTIME_DIR"] = str(elsewhere)
    home.paths = Paths.of(home.environment)
    with pytest.raises(ServiceUnreachable, match=r"another one works on .* Set XDG_RUNTIME_DIR"):
        await home.connect()
    assert alive(first)


async def test_a_deleted_socket_is_made_again(home: Home) -> None:
    client = await home.connect()
    pid = (await home.up(client, {"name": "a"})).instances[0].pid
    first = await home.service_pid()
    home.paths.socket.unlink()
    client = await home.connect()
    snapshot = await client.snapshot()
    assert snapshot.instances[0].pid == pid
    assert snapshot.service_pid == first


async def test_after_the_last_logout_engines_are_still_looked_after(home: Home) -> None:
    """Then XDG_RUNTIME_DIR is removed with all that is in it, until the next login."""
    client = await home.served("patience=Policy(backoff_first_s=0.1)")
    pid = (await home.up(client, {"name": "a", "restart": "on-failure"})).instances[0].pid
    assert pid is not None
    service = await home.service_pid()
    login = home.paths.runtime.parent
    shutil.rmtree(login)
    os.kill(pid, signal.SIGKILL)
    await eventually_async(lambda: home.journal()["instances"][0]["life"]["restarts"] == 1)
    login.mkdir(mode=0o700)
    client = await home.connect()
    now = await home.until_state(client, "a", State.READY)
    assert now.pid not in (pid, None)
    assert await home.service_pid() == service


async def test_a_service_ends_where_another_has_taken_its_place(home: Home) -> None:
    service = home.start_service()
    await eventually_async(home._accepts)
    await home.service_pid()  # answered: it knows by now which socket is its own
    aside = home.paths.socket.with_name("aside.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(aside))
        aside.rename(home.paths.socket)
        assert await asyncio.to_thread(service.wait, WITHIN_S) == 0
        assert home.paths.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signals_to_the_service_never_reach_engines(
    home: Home, number: signal.Signals
) -> None:
    client = await home.connect()
    pid = (await home.up(client, {"name": "a"})).instances[0].pid
    assert pid is not None
    service = await home.service_pid()
    os.killpg(service, number)
    if number is signal.SIGHUP:
        assert (await client.snapshot()).service_pid == service
    else:
        await eventually_async(lambda: not alive(service))
        assert not home.paths.socket.exists()
    assert alive(pid)
    client = await home.connect()
    assert (await home.until_state(client, "a", State.READY)).pid == pid


async def test_the_journal_of_another_host_is_left_alone(home: Home) -> None:
    client = await home.connect()
    pid = (await home.up(client, {"name": "a"})).instances[0].pid
    assert pid is not None
    await home.kill_service()
    theirs = {**home.journal(), "boot_id": "another", "host": "elsewhere-01234567"}
    shared = home.paths
    shared.journal.write_text(json.dumps(theirs))
    home.paths = Paths.of(home.environment)
    assert home.paths.state.parent == shared.state / "hosts"
    client = await home.connect()
    await home.until_told(client, f"{shared.state} is shared with another host (elsewhere-0123456")
    assert (await client.snapshot()).instances == ()
    await home.up(client, {"name": "a"})
    assert alive(pid)
    assert json.loads(shared.journal.read_text()) == theirs
    assert [row["wish"]["name"] for row in home.journal()["instances"]] == ["a"]
    assert (shared.instance("a") / "exit.json").exists()
    assert home.paths.instance("a").is_relative_to(home.paths.state)
