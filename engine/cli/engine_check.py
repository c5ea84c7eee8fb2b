"""Checks an engine: imports it, starts it on one PU, and asks it for a token."""

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.cli.engine_list import TELLING, version_here
from engine.cli.engine_steps import Steps
from engine.cli.engine_trial import MODEL, Trial, free_pu, plan_trial, run_trial
from engine.cli.engine_users import held_pus
from engine.cli.text import DASH, folded, print_json
from engine.core.errors import ControlError
from engine.drivers.registry import DRIVERS
from engine.engines.environments import python_of
from engine.engines.isa import isa_words
from engine.engines.pairs import BadPair, bad_pairs
from engine.engines.probing import import_errors, probe
from engine.engines.recipes import Recipe, recipe_of, recipes
from engine.host.machine import read_machine
from engine.host.paths import Paths
from engine.host.root import HostRoot
from engine.service.orders import Surroundings

_PROBE_WITHIN_S = 600.0


def check(asked: argparse.Namespace, environment: Mapping[str, str], data: Path) -> int:
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
    if python is None and asked.name == "torch" and version_here("torch"):
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
    taken = await held_pus(environment)
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
    lines.append("  " + ", ".join(f"{name} {has[name]}" for name in TELLING if name in has))
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
