"""Starts an engine as the service would, on one PU with the bundled model, and asks one token."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.command import shell_line
from engine.core.errors import ControlError, NotReadyInTime
from engine.core.layout import parse_layout
from engine.core.topology import Machine
from engine.drivers.openai_api import get, post_json
from engine.drivers.registry import driver_of
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from engine.service.launcher import Launched, Launcher, LaunchOrder
from engine.service.logs import read_log
from engine.service.orders import Planned, Surroundings, served_name
from engine.service.planning import plan_layout
from engine.service.processes import exit_record, kill_start, leftovers, signal_group

MODEL = "bundled:smollm2-135m"
_PROMPT = "The capital of France is"
_TOKEN_WITHIN_S = 120.0
_GONE_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Trial:
    """An engine that has generated a token, and has stopped again."""

    pus: str
    shell: str
    ready_s: float
    """Until its health path answered."""
    token_s: float
    text: str
    stop_s: float


def plan_trial(
    engine: str, python: Path, pu: int, machine: Machine, around: Surroundings
) -> Planned:
    """The command line for one PU, from the same planning as a layout's. Raises ControlError."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = {
        "name": "check",
        "engine": engine,
        "model": MODEL,
        "slot": f"pu:{pu}",
        "port": port,
        "python": str(python),
        "reserve_cores": 0,
        "restart": "never",
    }
    text = "\n".join(
        [
            'schema = 1\nname = "check"\n[[instance]]',
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items()),
            "args = { max-model-len = 512, max-num-seqs = 1 }\n",
        ]
    )
    layout = parse_layout(text, name="check")
    plan = plan_layout(machine, layout, around, base="/")
    for refusal in plan.refusals:
        raise ControlError(what="The trial is refused", why=refusal.why, do=refusal.do)
    return plan.planned[0]


async def run_trial(planned: Planned, *, timeout_s: float, tell: Callable[[str], None]) -> Trial:
    """Start, ask, stop. Raises ControlError with the log's last lines; nothing of it is left."""
    mark = f"check-{uuid.uuid4().hex}"
    folder = Path(tempfile.mkdtemp(prefix="slotdeck-check-"))
    placement, wish = planned.placement, planned.wish
    grace_s = wish.stop_grace_s
    if grace_s is None:
        grace_s = driver_of(wish.engine).stop_grace_s
    order = LaunchOrder(
        name="check",
        command=planned.command,
        pus=placement.pus,
        memory=placement.memory,
        folder=folder,
        mark=mark,
        allow_degraded=True,
    )
    launched: Launched | None = None
    try:
        began = time.monotonic()
        with Launcher() as launcher:
            launched = launcher.launch(order)
        url = f"http://127.0.0.1:{placement.port}"
        await _healthy(planned, url, folder, mark, began + timeout_s, tell)
        ready = time.monotonic()
        tell("asking one token")
        text = await _token(planned, url, folder)
        answered = time.monotonic()
        _stop(launched, mark, grace_s)
        stopped, launched = time.monotonic(), None
        if placement.port in listening_ports(HostRoot()):
            raise ControlError(
                what=f"{planned.wish.engine} did not stop as it should",
                why=f"port {placement.port} is still taken",
                do="Look for the process: ss -ltnp",
            )
    finally:
        if launched is not None:
            _stop(launched, mark, grace_s)
        shutil.rmtree(folder, ignore_errors=True)
    return Trial(
        pus=str(placement.pus),
        shell=shell_line(planned.command, placement.pus, placement.memory),
        ready_s=round(ready - began, 1),
        token_s=round(answered - ready, 2),
        text=text,
        stop_s=round(stopped - answered, 1),
    )


async def _healthy(
    planned: Planned,
    url: str,
    folder: Path,
    mark: str,
    deadline: float,
    tell: Callable[[str], None],
) -> None:
    engine = planned.wish.engine
    path = driver_of(engine).health_path
    began = time.monotonic()
    while True:
        if (ended := exit_record(folder, mark)).get("state") == "ended":
            raise ControlError(
                what=f"{engine} ended before it was ready",
                why=_last_lines(folder) or f"it said nothing, exit code {ended.get('code')}",
                do=f"Start it by hand: {_shell(planned)}",
            )
        now = time.monotonic()
        if now > deadline:
            raise NotReadyInTime(
                what=f"{engine} was not ready within {deadline - began:.0f} s",
                why=_last_lines(folder) or "it said nothing",
                do="Give it longer (--timeout), or try again when the machine is less busy",
            )
        tell(f"waiting until it is healthy, {now - began:.0f} s")
        with contextlib.suppress(ControlError):
            if (await get(url + path, timeout_s=5.0)).status == 200:
                return
        await asyncio.sleep(0.3)


async def _token(planned: Planned, url: str, folder: Path) -> str:
    body = {
        "model": served_name(planned.wish.model),
        "prompt": _PROMPT,
        "max_tokens": 1,
        "temperature": 0,
    }
    try:
        answer = await post_json(url + "/v1/completions", body, timeout_s=_TOKEN_WITHIN_S)
    except ControlError as error:
        raise ControlError(
            what=f"{planned.wish.engine} is healthy, but generates nothing",
            why=_last_lines(folder) or error.why,
            do=f"Start it by hand: {_shell(planned)}",
        ) from None
    choices = (answer.json() or {}).get("choices") if answer.status == 200 else None
    if not choices or "text" not in choices[0]:
        raise ControlError(
            what=f"{planned.wish.engine} is healthy, but generates nothing",
            why=f"HTTP {answer.status}: {answer.body[:300].decode('utf-8', 'replace')}",
            do=f"Start it by hand: {_shell(planned)}",
        )
    return str(choices[0]["text"])


def _shell(planned: Planned) -> str:
    return shell_line(planned.command, planned.placement.pus, planned.placement.memory)


def _stop(launched: Launched, mark: str, grace_s: float) -> None:
    """Ask, wait for the engine's own grace, then kill what is left."""
    root = HostRoot()
    try:
        signal_group(root, launched.pid, launched.started_ticks, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while leftovers(root, mark) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        kill_start(root, mark)
    deadline = time.monotonic() + _GONE_WITHIN_S
    while leftovers(root, mark) and time.monotonic() < deadline:
        time.sleep(0.02)


def _last_lines(folder: Path) -> str:
    """The end of the engine's log in one line."""
    lines = read_log(folder, offset=-1, limit_bytes=4096).text.splitlines()
    return " | ".join(line.strip() for line in lines[-6:] if line.strip())[-900:]


def free_pu(machine: Machine, taken: Mapping[int, str]) -> int:
    """The last usable PU that no instance of ours holds; the last one where all are held."""
    usable = sorted(machine.pus.usable)
    free = [pu for pu in usable if pu not in taken]
    return (free or usable)[-1]
