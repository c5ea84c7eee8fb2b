"""`slotdeck bench --offline`: an engine alone, pinned as its layout says, without HTTP."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from engine.bench.offline import (
    HEADER,
    OfflineLoad,
    OfflineReport,
    Place,
    headline,
    notes,
    offline_json,
    offline_report,
    offline_rows,
    read_measured,
)
from engine.cli.layouts import checked, read_layout
from engine.cli.text import folded, numbers, print_json, table
from engine.client import connect
from engine.core.command import shell_line
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, PlacementRefused, ServiceUnreachable, UsageError
from engine.core.status import InstanceStatus
from engine.host.machine import read_machine
from engine.host.paths import Paths
from engine.host.root import HostRoot
from engine.service.launcher import Launched, Launcher, LaunchOrder
from engine.service.logs import read_log
from engine.service.orders import Planned, Surroundings, served_name
from engine.service.planning import plan_layout
from engine.service.processes import exit_record, kill_start, lives

WORKERS = ("torch", "ipex")
"""The engines that run our worker, which can measure itself."""
INPUT_LEN = OUTPUT_LEN = 32
ITERATIONS, WARMUPS = 20, 3


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Measure each instance in turn; they never run at once."""
    load = _load(asked)
    # Ended like a person would, so that the worker does not stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plans = [one for target in asked.targets for one in _planned(target, environment)]
    running = asyncio.run(_running(environment))
    reports = []
    for planned in plans:
        reports.append(_measured(planned, load, running, show=not asked.json))
        if not asked.json:
            print(_text(reports[-1], first=len(reports) == 1))
    if asked.json:
        print_json(offline_json(reports))
    return 0


def _load(asked: argparse.Namespace) -> OfflineLoad:
    sizes = numbers("--batch-size", asked.batch_size or "1", int)
    return OfflineLoad(
        batch_sizes=tuple(sizes),
        input_len=INPUT_LEN if asked.input_len is None else asked.input_len,
        output_len=OUTPUT_LEN if asked.output_len is None else asked.output_len,
        iterations=ITERATIONS if asked.num_iter is None else asked.num_iter,
        warmups=WARMUPS if asked.num_warmup is None else asked.num_warmup,
    )


def _planned(target: str, environment: Mapping[str, str]) -> list[Planned]:
    """The command lines of a layout's instances, or of the one that was named."""
    path, name = _split(target)
    change = read_layout(path)
    layout = checked(change)
    around = Surroundings(environment, Paths.of(environment).models)
    plan = plan_layout(read_machine(HostRoot()), layout, around, base=change.base)
    names = [one.wish.name for one in plan.planned] + [one.instance for one in plan.refusals]
    if name is not None and name not in names:
        raise UsageError(
            what=f"{path} has no instance {name!r}",
            why=f"it has: {', '.join(names)}",
            do=f"Name one of them: --offline {path}:{names[0] if names else 'NAME'}",
        )
    for refusal in plan.refusals:
        if name in (None, refusal.instance):
            raise PlacementRefused(
                what=f"{refusal.instance} has no place", why=refusal.why, do=refusal.do
            )
    chosen = [one for one in plan.planned if name in (None, one.wish.name)]
    for one in chosen:
        _require_worker(one)
    return chosen


def _split(target: str) -> tuple[str, str | None]:
    """A file's own name may have a colon."""
    path, colon, name = target.rpartition(":")
    if not colon or Path(target).exists():
        return target, None
    return path, name


def _require_worker(planned: Planned) -> None:
    engine = planned.wish.engine
    if engine not in WORKERS:
        vllm = engine.startswith("vllm")
        raise UsageError(
            what=f"{planned.wish.name} cannot be measured offline",
            why=f"only {' and '.join(WORKERS)} have a mode without HTTP here, and its engine is "
            f"{engine}",
            do="Start it and use `slotdeck bench NAME`"
            + (", or run `vllm bench latency` in its environment" if vllm else ""),
        )


async def _running(environment: Mapping[str, str]) -> tuple[InstanceStatus, ...]:
    try:
        client = await connect(start=False, environment=environment)
    except ServiceUnreachable:
        return ()
    return tuple(one for one in (await client.snapshot()).instances if one.pid is not None)


def _measured(
    planned: Planned, load: OfflineLoad, running: tuple[InstanceStatus, ...], *, show: bool
) -> OfflineReport:
    """Started as the service would start it: the same launcher, command line and environment."""
    mark = f"offline-{uuid.uuid4().hex}"
    folder = Path(tempfile.mkdtemp(prefix="slotdeck-offline-"))
    out = folder / "measured.json"
    placement = planned.placement
    command = replace(planned.command, argv=(*planned.command.argv, *load.words(out)))
    order = LaunchOrder.of(planned.wish, placement, command, folder, mark)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with Launcher() as launcher:
            launched = launcher.launch(order)
        try:
            _wait(planned, launched, folder, mark, show=show)
        finally:
            kill_start(HostRoot(), mark)
        measured = read_measured(out.read_bytes())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    place = Place(
        instance=planned.wish.name,
        engine=planned.wish.engine,
        model=served_name(planned.wish.model),
        slot=placement.slot,
        pus=str(placement.pus),
        memory_policy=placement.memory.policy,
        memory_nodes=placement.memory.nodes,
        beside=tuple(one.name for one in running if CpuSet.parse(one.pus) & placement.pus),
        degraded=launched.degraded,
    )
    report = offline_report(measured, place, load, started_at=started_at)
    report.manifest["shell"] = shell_line(planned.command, placement.pus, placement.memory)
    return report


def _wait(planned: Planned, launched: Launched, folder: Path, mark: str, *, show: bool) -> None:
    """Until the worker has ended; its last word is shown where somebody watches."""
    show = show and sys.stderr.isatty()
    is_watched = True
    while (record := exit_record(folder, mark)).get("state") != "ended" and is_watched:
        # Looked at before the next record is read: a shim writes it and then goes.
        is_watched = lives(HostRoot(), launched.shim_pid, launched.shim_ticks)
        if show:
            said = _last_line(folder)[:70]
            print(f"\r\x1b[K{planned.wish.name}: {said}", end="", file=sys.stderr, flush=True)
        time.sleep(0.1)
    if show:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if record.get("code") != 0:
        raise ControlError(
            what=f"{planned.wish.name} could not be measured",
            why=_last_line(folder) or f"the worker said nothing, exit code {record.get('code')}",
            do="Start it by hand to see all it says: "
            + shell_line(planned.command, planned.placement.pus, planned.placement.memory),
        )


def _last_line(folder: Path) -> str:
    lines = read_log(folder, offset=-1, limit_bytes=4096).text.splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _text(report: OfflineReport, *, first: bool) -> str:
    width = shutil.get_terminal_size().columns
    lines = folded(headline(report), width, indent="  ")
    lines += ["", table(HEADER, offline_rows(report)), ""]
    for note in notes(report):
        lines += folded(note, width, indent="  ")
    return ("" if first else "\n") + "\n".join(lines)
