"""The end of a start: its exit code from the shim's record, and nothing of it left behind."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from engine.core.causes import Ended, cause_of
from engine.core.lifecycle import Exited
from engine.host.gpu_holders import held_gpus
from engine.host.machine import read_machine
from engine.host.oom import out_of_memory
from engine.host.process import open_files
from engine.host.root import HostRoot
from engine.service.logs import last_line, said_since
from engine.service.managed import Managed
from engine.service.neighbours import listener_on
from engine.service.processes import exit_record, kill_leftovers, leftovers, lives

_RECORDED_WITHIN_S = 10.0
_SWEPT_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class End:
    """How it ended, and its last line where the cause stands in its place."""

    exited: Exited
    said: str = ""


async def end_of(root: HostRoot, managed: Managed) -> End:
    """Its exit code, and why it ended: the cause where it is known, else its last line."""
    launched, kills = managed.launched, managed.oom_kills
    folder, mark, port = managed.folder, managed.mark, managed.at.placement.port
    limited = managed.at.placement.limits.memory_bytes is not None
    code = await exit_code(root, managed)

    def read() -> tuple[str, str]:
        begin = exit_record(folder, mark).get("log")
        text = said_since(folder, begin if isinstance(begin, int) else 0)
        if launched is None or kills is None or code == 0:
            return text, ""
        return text, out_of_memory(root, launched.pid, launched.started_ticks, kills)

    text, memory = await asyncio.to_thread(read)
    said = last_line(text)
    cause = await asyncio.to_thread(cause_of, Ended(code, text, port, memory, limited))
    if cause is None:
        return End(Exited(code, said))
    return End(Exited(code, cause.why, cause.do), said)


def still_held(root: HostRoot, managed: Managed, left: tuple[int, ...]) -> str:
    """What a start holds after its end, in words; empty when nothing of it is left."""
    found = []
    placement = managed.at.placement
    if left:
        found.append(f"processes of it do not end: {', '.join(map(str, left))}")
    gpus = read_machine(root).gpus if left and placement.gpus else ()
    for pid in left if gpus else ():
        held = held_gpus(root, pid, open_files(root, pid) or {}, gpus)
        found += [f"GPU {index} is still open in process {pid}" for index in held]
    if managed.running is not None and (holder := listener_on(root, placement.port)):
        found.append(f"{holder} still listens on its port {placement.port}")
    return "; ".join(found)


async def exit_code(root: HostRoot, managed: Managed) -> int | None:
    """What the shim has recorded, or records in a moment; None when it was killed before."""
    folder, mark, launched = managed.folder, managed.mark, managed.launched
    deadline = time.monotonic() + _RECORDED_WITHIN_S
    while True:
        # Looked at before the record is read: a shim that has ended has written it before.
        at_work = launched is not None and lives(root, launched.shim_pid, launched.shim_ticks)
        record = exit_record(folder, mark)
        if record.get("state") == "ended":
            code = record.get("code")
            return code if isinstance(code, int) else None
        if not at_work or time.monotonic() > deadline:
            return None
        await asyncio.sleep(0.01)


async def sweep(root: HostRoot, mark: str, folder: Path) -> tuple[int, tuple[int, ...]]:
    """Kill what is left of a start; how many there were, and who does not end.

    Again and again: a process that forks while it is killed leaves one that was not seen.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _SWEPT_WITHIN_S
    while True:
        killed.update(await asyncio.to_thread(kill_leftovers, root, mark, folder))
        left = await asyncio.to_thread(leftovers, root, mark, folder)
        if not left or time.monotonic() > deadline:
            return len(killed), tuple(left)
        await asyncio.sleep(0.05)
