"""A process id that was an engine's becomes a stranger's: `python -m tests.service.reused_numbers
STAGE`, as the first process of a namespace in which the next id can be chosen."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.core.status import State
from tests.processes import a_home, alive, eventually_async
from tests.service.scenes import scene

_NEXT = Path("/proc/sys/kernel/ns_last_pid")
_TRIES = 50


async def main(stage: str) -> None:
    """Raises where a stranger was signalled, or the engine was not known as ended."""
    with a_home() as home:
        async with scene(home, stage) as it:
            await home.kill_service()
            shim = home.journal()["instances"][0]["launched"]["shim_pid"]
            for pid in (shim, it.pid):
                os.kill(pid, signal.SIGKILL)
            await it.ended()
            await eventually_async(lambda: not any(map(exists, (shim, it.pid))))
            with stranger_with(it.pid) as stranger, stranger_with(shim) as other:
                await it.next_service()
                wanted = State.STOPPED if stage == "stopping" else State.FAILED
                await it.became(wanted, engines={it.beside})
                assert alive(stranger.pid)
                assert alive(other.pid)


def exists(pid: int) -> bool:
    """As the first process, we collect whoever lost its parent."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return Path(f"/proc/{pid}").exists()


@contextlib.contextmanager
def stranger_with(pid: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Somebody else's process with that very id, a group and a session of its own."""
    for _ in range(_TRIES):  # somebody else may be quicker
        _NEXT.write_text(str(pid - 1))
        made = subprocess.Popen(["sleep", "600"], start_new_session=True)
        if made.pid == pid:
            break
        made.kill()
        made.wait()
    assert made.pid == pid, f"the number could not be had: {made.pid}"
    try:
        yield made
    finally:
        made.kill()
        made.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
