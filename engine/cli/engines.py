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
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from engine.cli.engine_check import check
from engine.cli.engine_list import describe, row_of
from engine.cli.engine_steps import Steps
from engine.cli.engine_users import wishing
from engine.cli.text import folded, print_json
from engine.core.errors import UsageError
from engine.drivers.registry import DRIVERS
from engine.engines.environments import current, home_of
from engine.engines.install import Installer, InstallOrder
from engine.engines.interpreter import check_interpreter, read_interpreter
from engine.engines.recipes import recipe_of, recipes
from engine.engines.removal import remove
from engine.engines.users import users_of
from engine.engines.words import gigabytes
from engine.host.device_root import DeviceRoot
from engine.host.paths import Paths
from engine.host.processor import read_processor
from engine.host.root import HostRoot


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
        help="install: cuda takes torch as the Python package index has it, which is larger to "
        "fetch; ipex keeps 5 GB of its libraries, ipex-llm puts stubs in their place",
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
    data = Paths.of(environment).data
    processor = read_processor(DeviceRoot()).flags
    if asked.what == "list":
        rows = [row_of(name, data, processor) for name in DRIVERS]
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
                return _install(asked, environment, data, processor)
            case "check":
                return check(asked, environment, data)
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


def _install(
    asked: argparse.Namespace,
    environment: Mapping[str, str],
    data: Path,
    processor: frozenset[str] | None,
) -> int:
    recipe = recipe_of(asked.name)
    if asked.torch_build not in recipe.builds:
        raise UsageError(
            what=f"{recipe.name} has no CUDA build of torch",
            why="it is compiled for the one without",
            do="Leave --torch-build out",
        )
    python = Path(asked.python or sys.executable).expanduser().absolute()
    order = InstallOrder(recipe, python, asked.torch_build, asked.torch_index, processor)
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
    if recipe.note:
        print(f"note: {recipe.note}")
    return 0


def _print_order(order: InstallOrder, environment: Mapping[str, str], data: Path) -> None:
    recipe, build = order.recipe, order.build
    interpreter = read_interpreter(order.python, environment)
    check_interpreter(recipe, interpreter, order.python)
    folder = home_of(recipe.name, data) / order.key(interpreter.release)
    there = current(recipe.name, data) == folder
    print(f"{recipe.title}: {'is installed' if there else 'would be installed'} in {folder}")
    print(f"  Python {interpreter.version} ({order.python})")
    print(f"  {gigabytes(build.fetch_bytes)} to fetch, {gigabytes(build.disk_bytes)} on disk")
    print(f"  {len(build.pins)} packages:")
    for line in folded(" ".join(map(str, build.pins)), 95):
        print(f"    {line}")
    if build.stubbed_bytes:
        print("  stubs are made in the place of CUDA's libraries")
    if (extension := recipe.extension) and (isa := order.isa):
        print(f"  {extension.package} {extension.version} is compiled here, for {isa.name}:")
        print(f"    {extension.url}")


def _remove(name: str, environment: Mapping[str, str], data: Path) -> int:
    if name not in DRIVERS:
        recipe_of(name)  # says what there is
    using = users_of(HostRoot(), home_of(name, data))
    wished = asyncio.run(wishing(name, using, environment))
    freed = remove(name, data, root=HostRoot(), wished_by=wished)
    if freed:
        print(f"{name} is removed, {gigabytes(freed)} are free again")
    else:
        print(f"{name} was not installed")
    return 0
