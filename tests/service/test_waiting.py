"""A command that waits for an instance while something happens to it, or to the service."""

import asyncio
import signal
import sys

from engine.control import StopInstances
from engine.core.status import State
from tests.processes import ROOT, Home


async def up(home: Home, *flags: str) -> asyncio.subprocess.Process:
    """`slotdeck up` that waits for an engine which is not ready yet."""
    layout = home.folder / "waited.toml"
    layout.write_text(home.layout({"name": "a", "flags": list(flags)}).text)
    waiting = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine.cli.main", "up", str(layout)),
        env=home.environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert waiting.stderr is not None
    while b"a: starting" not in await waiting.stderr.readline():
        pass
    return waiting


async def test_up_goes_on_with_the_next_service(home: Home) -> None:
    waiting = await up(home, "--ready-after", "2")
    client = await home.connect(start=False)
    pid = (await home.until(client, lambda now: now["a"].pid is not None)).instances[0].pid
    await home.kill_service()
    shown, told = await waiting.communicate()
    assert waiting.returncode == 0, told.decode()
    assert b"; trying again for 60 s\nthe service answers again\n" in told
    assert b"ready" in shown
    client = await home.connect(start=False)
    assert (await home.until_state(client, "a", State.READY)).pid == pid


async def test_up_ends_where_somebody_stops_what_it_waits_for(home: Home) -> None:
    waiting = await up(home, "--never-ready")
    client = await home.connect(start=False)
    await home.apply(client, StopInstances(("a",), forget=True))
    _, told = await waiting.communicate()
    assert waiting.returncode == 1
    # Seen as stopped, or only when it had left the list.
    assert b"stopped by request" in told or b"somebody has stopped it meanwhile" in told


async def test_what_was_begun_goes_on_after_ctrl_c(home: Home) -> None:
    waiting = await up(home, "--never-ready")
    waiting.send_signal(signal.SIGINT)
    _, told = await waiting.communicate()
    assert waiting.returncode == 130
    assert b"what was begun goes on: `slotdeck status`, `slotdeck down`" in told
    client = await home.connect(start=False)
    await home.until_state(client, "a", State.STARTING)
