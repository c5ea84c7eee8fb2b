"""Installs an engine: a virtual environment of its own, whole or not at all."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine.core.errors import ControlError
from engine.engines.building import Builder
from engine.engines.compiler import Compiler, find_compiler, require
from engine.engines.environments import (
    DOWNLOADS,
    LOG,
    Installed,
    current,
    delete,
    inside,
    locked,
    make_current,
    make_home,
    marker_of,
    read_marker,
    remains,
    site_packages,
    size_of,
    write_marker,
)
from engine.engines.extension import Isa, isa_of
from engine.engines.fetching import NEW, Fetcher
from engine.engines.interpreter import Interpreter, check_interpreter, read_interpreter
from engine.engines.pip import Pip, PipFailed, pip_for
from engine.engines.probing import import_errors, probe
from engine.engines.programs import own_environment, run_program
from engine.engines.progress import Progress
from engine.engines.recipes import Build, Recipe, TorchBuild
from engine.engines.removal import drop_unused
from engine.engines.words import gigabytes

_SLACK = 1.1
"""How much more room is asked for than was measured."""
_PROBE_WITHIN_S = 900.0


@dataclass(frozen=True, slots=True)
class InstallOrder:
    """What to install and from where."""

    recipe: Recipe
    python: Path
    """The interpreter that the environment is made from."""
    torch_build: TorchBuild = "cpu"
    torch_index: str | None = None
    """Index URL or directory for torch alone; None: the user's indexes, then PyTorch's own."""
    processor: frozenset[str] | None = None
    """Flags of /proc/cpuinfo, for what is compiled."""

    @property
    def build(self) -> Build:
        return self.recipe.builds[self.torch_build]

    @property
    def isa(self) -> Isa | None:
        """What its extension is compiled for; None where it has none. Raises ControlError."""
        if self.recipe.extension is None:
            return None
        if isa := isa_of(self.processor):
            return isa
        raise ControlError(
            what=f"{self.recipe.name} cannot be compiled for this processor",
            why="it needs AVX2, which /proc/cpuinfo does not tell of",
            do="Choose another engine: `slotdeck engines` lists them",
        )

    def key(self, release: tuple[int, int]) -> str:
        """The name of the folder for it."""
        return self.recipe.key(self.torch_build, release, self.isa)


@dataclass(frozen=True, slots=True)
class Done:
    """An engine that is installed now."""

    marker: Installed
    folder: Path
    was_there: bool


class Installer:
    """One user's engines; time and environment are given."""

    def __init__(
        self,
        data: Path,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float],
        today: Callable[[], datetime],
        progress: Progress,
    ) -> None:
        self._data = data
        self._environment = own_environment(environment)
        self._clock = clock
        self._today = today
        self._progress = progress

    def install(self, order: InstallOrder) -> Done:
        """Make the environment unless exactly it is there. Raises ControlError, and then, or when
        interrupted, leaves what was installed before as it was, and what was fetched."""
        recipe = order.recipe
        interpreter = read_interpreter(order.python, self._environment)
        check_interpreter(recipe, interpreter, order.python)
        key = order.key(interpreter.release)
        home = make_home(recipe.name, self._data)
        with locked(home) as lock:
            folder = home / key
            marker = read_marker(folder)
            if marker is None:
                for one in remains(recipe.name, self._data):
                    if read_marker(one) is None:  # an install or removal that was killed
                        delete(one)
                began = self._clock()
                try:
                    self._make(order, interpreter, folder, lock)
                    marker = self._marked(order, interpreter, folder, began)
                except OSError as error:
                    raise ControlError(
                        what=f"{recipe.name} could not be installed",
                        why=f"{error.filename or home}: {error.strerror or error}",
                        do="Free some space, or name another place in XDG_DATA_HOME",
                    ) from None
                finally:
                    if marker is None:
                        delete(folder)
                was_there = False
            else:
                was_there = current(recipe.name, self._data) == folder
            make_current(folder)
            delete(home / DOWNLOADS)
            drop_unused(recipe.name, self._data)
        return Done(marker, folder, was_there)

    def _make(
        self, order: InstallOrder, interpreter: Interpreter, folder: Path, lock: int
    ) -> None:
        home = folder.parent
        downloads = home / DOWNLOADS / folder.name
        compiler = self._compiler(order, interpreter)
        self._require_room(order, home, downloads)
        log = home / LOG
        log.unlink(missing_ok=True)
        log.touch(mode=0o600)
        self._progress.begin(f"making an environment of Python {interpreter.version}")
        self._program(
            (str(order.python), "-m", "venv", "--without-pip", str(folder)),
            log,
            lock,
            failed=ControlError(
                what=f"{order.recipe.name} could not be installed",
                why=f"{order.python} makes no virtual environment",
                do=f"See {log}; on Debian and Ubuntu it needs the package python3-venv",
            ),
        )
        self._progress.end(str(folder))
        # Other keys' downloads would only be in the way.
        for one in inside(home / DOWNLOADS):
            if one != downloads:
                delete(one)
        downloads.mkdir(parents=True, exist_ok=True)
        python = folder / "bin" / "python"
        pip = pip_for(python, self._environment, log=log, tick=self._quiet, keep_open=(lock,))
        try:
            fetcher = Fetcher(pip, downloads, clock=self._clock, progress=self._progress)
            fetcher.fetch(order.build, order.torch_index)
            self._unpack(order, pip, downloads, folder)
            if compiler is not None:
                builder = Builder(
                    *(compiler, folder, downloads, log, self._clock, self._progress),
                    keep_open=(lock,),
                )
                self._build(order, builder, pip, interpreter.include)
        except PipFailed as error:
            raise self._pip_failed(order, error, log) from None
        for name, version in order.recipe.aliases.items():
            write_alias(site_packages(folder), name, version)

    def _compiler(self, order: InstallOrder, interpreter: Interpreter) -> Compiler | None:
        """None where nothing is compiled. Raises ControlError for what is missing, before
        anything is fetched."""
        extension = order.recipe.extension
        if extension is None and not order.build.stubbed_bytes:
            return None
        why = f"a part of {order.recipe.name} is compiled for this machine"
        compiler = find_compiler(self._environment, why=why)
        if extension is not None:
            require(compiler, extension.library, interpreter.include / "Python.h", why=why)
        return compiler

    def _build(self, order: InstallOrder, builder: Builder, pip: Pip, include: Path) -> None:
        if order.build.stubbed_bytes:
            builder.stub_cuda()
        extension, isa = order.recipe.extension, order.isa
        if extension is not None and isa is not None:
            builder.extend(extension, isa, pip, include)

    def _require_room(self, order: InstallOrder, home: Path, downloads: Path) -> None:
        there = sum(file.stat().st_size for file in inside(downloads) if file.is_file())
        build = order.build
        needed = build.disk_bytes + build.stubbed_bytes + max(0, build.fetch_bytes - there)
        needed = round(needed * _SLACK)
        free = shutil.disk_usage(home).free
        if free < needed:
            raise ControlError(
                what=f"There is no room for {order.recipe.name}",
                why=f"it needs {gigabytes(needed)} while it is installed and "
                f"{gigabytes(order.build.disk_bytes)} after, and {home} has "
                f"{gigabytes(free)} left",
                do="Free some space, or name another place in XDG_DATA_HOME",
            )

    def _unpack(self, order: InstallOrder, pip: Pip, downloads: Path, folder: Path) -> None:
        pins = order.build.pins
        self._progress.begin(
            f"installing {len(pins)} packages, {gigabytes(order.build.disk_bytes)}"
        )
        began = self._clock()
        scratch = downloads / NEW
        delete(scratch)
        scratch.mkdir()

        def tick() -> None:
            self._progress.now(f"{self._clock() - began:.0f} s")

        # By the wheels' own names: a torch of the user's own choice has another version.
        wheels = [str(file) for file in inside(downloads) if file.suffix == ".whl"]
        try:
            pip.install(wheels, downloads, temporary=scratch, tick=tick)
        finally:
            delete(scratch)
        self._progress.end(f"{self._clock() - began:.0f} s")

    def _marked(
        self, order: InstallOrder, interpreter: Interpreter, folder: Path, began: float
    ) -> Installed:
        self._progress.begin(f"importing {', '.join(order.recipe.modules)}")
        imported_from = self._clock()
        found = probe(
            folder / "bin" / "python",
            order.recipe.modules,
            self._environment,
            tick=self._until(imported_from + _PROBE_WITHIN_S, order.recipe.name),
        )
        problems = import_errors(found)
        if problems:
            raise ControlError(
                what=f"{order.recipe.name} was installed, but does not work",
                why="; ".join(problems),
                do="Report this with the output of `slotdeck engines check`; what was installed "
                "before is untouched",
            )
        self._progress.end(f"{self._clock() - imported_from:.0f} s")
        marker = marker_of(
            order.recipe.name,
            folder.name,
            torch_build=order.torch_build,
            python_version=interpreter.version,
            packages=dict(sorted(found["packages"].items())),
            size_bytes=size_of(folder),
            seconds=self._clock() - began,
            installed_at=self._today().isoformat(timespec="seconds"),
        )
        write_marker(folder, marker)
        return marker

    def _until(self, deadline: float, engine: str) -> Callable[[], None]:
        def tick() -> None:
            if self._clock() > deadline:
                raise ControlError(
                    what=f"{engine} was installed, but does not work",
                    why=f"its modules were not imported within {_PROBE_WITHIN_S:g} s",
                    do="Try again when the machine is less busy",
                )
            self._progress.now(f"{self._clock() + _PROBE_WITHIN_S - deadline:.0f} s")

        return tick

    def _program(self, argv: Sequence[str], log: Path, lock: int, *, failed: ControlError) -> None:
        with log.open("ab") as said:
            run_program(
                argv,
                environment=self._environment,
                output=said.fileno(),
                tick=self._quiet,
                failed=lambda: failed,
                keep_open=(lock,),
            )

    def _quiet(self) -> None:
        """A step so short that there is nothing to tell of how far it is."""
        self._progress.now("")

    def _pip_failed(self, order: InstallOrder, error: PipFailed, log: Path) -> ControlError:
        do = f"Look into {log}, and run the same again: what was fetched is kept"
        if "No space left" in error.said:
            do = "Free some space and run the same again: what was fetched is kept"
        elif re.search(r"\btorch(vision)?==", error.said) and error.has_none:
            do = "Name where a build of torch for CPUs is: --torch-index URL or a directory"
            if "cuda" in order.recipe.builds and order.torch_build == "cpu":
                more = order.recipe.builds["cuda"].fetch_bytes - order.build.fetch_bytes
                do += (
                    f"; or take the CUDA build, {gigabytes(more)} more to fetch: "
                    "--torch-build cuda"
                )
        return ControlError(
            what=f"{order.recipe.name} could not be installed", why=error.said, do=do
        )


def write_alias(folder: Path, name: str, version: str) -> None:
    """The least that makes Python's metadata answer for a distribution of that name."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("slotdeck\n")
    (info / "RECORD").write_text("")
