"""Write the placement of a layout for other tools: bash, systemd, compose or haproxy.

What is written starts the same commands on the same cores, memory and GPUs, without slotdeck.
"""

import argparse
import asyncio
import contextlib
import os
import pwd
import shlex
import shutil
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from engine import __version__
from engine.cli import sources
from engine.cli.held import held_here
from engine.cli.layouts import checked, read_layout
from engine.core.command import Command
from engine.core.errors import ControlError, PlacementRefused, UsageError
from engine.core.exports.bash import bash_script
from engine.core.exports.common import Export, Subject, export_of
from engine.core.exports.compose import compose_file
from engine.core.exports.haproxy import FIRST_PORT, CannotBeProxied, haproxy_config
from engine.core.exports.systemd import TARGET, systemd_units
from engine.core.layout import Instance, Layout
from engine.core.layout_text.mistakes import nearest
from engine.core.placement import Refusal
from engine.drivers.registry import driver_of
from engine.host.models import find_model
from engine.host.paths import Paths
from engine.service.orders import WORKER, Planned, Surroundings, served_name
from engine.service.planning import plan_layout


@dataclass(frozen=True, slots=True)
class Written:
    """A file to be."""

    name: str
    text: str
    mode: int = 0o644
    """Before the umask."""


FORMS = {
    "bash": "slotdeck.sh",
    "systemd": TARGET,
    "compose": "compose.yaml",
    "haproxy": "haproxy.cfg",
}
"""What may be written, and the name of its file where --output is a folder."""
_NEXT = {
    "bash": "Start it: {file}",
    "systemd": "Copy the files to /etc/systemd/system; the first lines of {file} tell how",
    "compose": "Start it: docker compose -f {file} up",
    "haproxy": "Check it: haproxy -c -f {file}",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("layout", metavar="LAYOUT", help="a layout file")
    parser.add_argument("--to", metavar="FORM", required=True, help=", ".join(FORMS))
    sources.arguments(parser)
    parser.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        help="the file to write, or a folder for it (systemd: the units' folder); else it is "
        "printed",
    )
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        help=f"haproxy: the first model's port ({FIRST_PORT}); each further one gets the next",
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print or write the export; nothing is written when a placement is refused."""
    form = asked.to
    if form not in FORMS:
        raise UsageError(
            what=f"slotdeck cannot export to {form!r}",
            why=f"it writes: {', '.join(FORMS)}",
            do=f"{nearest(form, FORMS)}Write --to with one of them",
        )
    if asked.port is not None and (form != "haproxy" or not 1 <= asked.port <= 65535):
        raise UsageError(
            what=f"--port {asked.port} was not understood",
            why="it is haproxy's own first port, 1 to 65535",
            do="Leave it out; the instances' ports are the layout's",
        )
    files = _files(form, _export(asked, form, environment), asked.port or FIRST_PORT)
    if asked.output is None or str(asked.output) == "-":
        _print(files)
        return 0
    paths = _write(form, files, asked.output, force=asked.force)
    for path in paths:
        print(f"wrote {path}")
    print(_NEXT[form].format(file=shlex.quote(os.path.join(".", paths[0]))))  # noqa: PTH118 - a Path drops the "./" that a shell needs
    return 0


def _export(asked: argparse.Namespace, form: str, environment: Mapping[str, str]) -> Export:
    """The plan, as every writer takes it. Raises PlacementRefused."""
    change = read_layout(asked.layout)
    layout = checked(change)
    machine = sources.machine(asked)
    around = Surroundings(environment, Paths.of(environment).models)
    held = asyncio.run(held_here(layout, machine, environment))
    # What runs in a container need not be installed here.
    there = replace(machine, live=False) if form == "compose" else machine
    plan = plan_layout(there, layout, around, base=change.base, held=held)
    if plan.refusals:
        raise _refused(asked.layout, plan.refusals)
    commands = {one.wish.name: one.command for one in plan.planned}
    if form == "compose":
        inside = plan_layout(there, _contained(layout), around, base=change.base, held=held)
        commands |= {one.wish.name: one.command for one in inside.planned}
    elif form == "systemd" and machine.live:
        commands = {name: _found(command) for name, command in commands.items()}
    subjects: list[Subject] = []
    for one in plan.planned:
        driver = driver_of(one.wish.engine)
        grace_s = one.wish.stop_grace_s
        command = commands[one.wish.name]
        needed = machine.live and driver.needs_model
        subjects.append(
            Subject(
                wish=one.wish,
                placement=one.placement,
                command=command,
                served_name=served_name(one.wish.model),
                health_path=driver.health_path,
                stop_grace_s=driver.stop_grace_s if grace_s is None else grace_s,
                folders=(
                    _folders(one, command, change.base, around.bundled_models, needed=needed)
                    if form == "compose"
                    else ()
                ),
            )
        )
    return export_of(subjects, machine, layout=layout.name, version=__version__)


def _refused(layout: str, refusals: tuple[Refusal, ...]) -> PlacementRefused:
    return PlacementRefused(
        what=f"{layout} is refused, nothing was written",
        why="; ".join(f"{one.instance}: {one.why}" for one in refusals),
        do="; ".join(dict.fromkeys(one.do for one in refusals)),
    )


def _contained(layout: Layout) -> Layout:
    """The same wishes inside containers: open to the published port, with the image's Python."""

    def inside(wish: Instance) -> Instance:
        return msgspec.structs.replace(wish, host="0.0.0.0", python="python3")

    wishes = tuple(inside(wish) for wish in layout.instances)
    return msgspec.structs.replace(layout, instances=wishes)


def _found(command: Command) -> Command:
    """With the program's whole path, because systemd does not look where a shell does."""
    program = command.argv[0]
    path = shutil.which(program, path=command.plain_env().get("PATH", os.defpath))
    if path is None:
        return command
    return replace(command, argv=(str(Path(path).absolute()), *command.argv[1:]))


def _folders(
    one: Planned, command: Command, base: str, bundled: Path, *, needed: bool
) -> tuple[str, ...]:
    """What a container must be shown of this machine: the model, and our worker's program."""
    folders = [str(WORKER.parent)] if str(WORKER) in command.argv else []
    try:
        model = find_model(one.wish.model, base=Path(base), bundled=bundled).path
    except ControlError as error:
        if needed:
            raise PlacementRefused(what=error.what, why=error.why, do=error.do) from None
        model = None
    if model is not None:
        cache = model.parent.parent
        if model.parent.name == "snapshots" and (cache / "blobs").is_dir():
            model = cache  # a snapshot's files are links to the blobs beside it
        folders.append(str(model))
    return tuple(folders)


def _files(form: str, export: Export, first_port: int) -> list[Written]:
    match form:
        case "bash":
            return [Written(FORMS[form], bash_script(export), 0o755)]
        case "systemd":
            units = systemd_units(export, account=_account())
            return [Written(name, text) for name, text in units.items()]
        case "compose":
            return [Written(FORMS[form], compose_file(export))]
        case _:
            pass
    try:
        return [Written(FORMS[form], haproxy_config(export, first_port=first_port))]
    except CannotBeProxied as reason:
        raise ControlError(
            what="haproxy cannot be put before this layout",
            why=str(reason),
            do="Correct the instance's host, or name another --port",
        ) from None


def _account() -> str:
    """Who plans; nobody for root, as whom no engine should run."""
    if os.geteuid() == 0:
        return ""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _print(files: list[Written]) -> None:
    several = len(files) > 1
    for file in files:
        head = f"# file: {file.name}\n" if several else ""
        tail = "\n" if several and file is not files[-1] else ""
        sys.stdout.flush()
        sys.stdout.buffer.write(_bytes(f"{head}{file.text}{tail}"))


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ControlError(
            what="The export cannot be written",
            why="a path in it is not UTF-8 text",
            do="Rename that file or folder",
        ) from None


def _write(form: str, files: list[Written], output: Path, *, force: bool) -> list[Path]:
    """All files or none; each is whole as soon as it is there."""
    try:
        if form == "systemd":
            output.mkdir(parents=True, exist_ok=True)
        inside = output.is_dir()
        targets = [output / file.name if inside else output for file in files]
        for target in targets:
            _check(target, force=force)
        made: list[tuple[Path, Path]] = []
        try:
            for target, file in zip(targets, files, strict=True):
                made.append((_draft(target, file), target))
            for draft, target in made:
                draft.replace(target)
        finally:
            for draft, _ in made:
                with contextlib.suppress(FileNotFoundError):
                    draft.unlink()
    except OSError as error:
        raise ControlError(
            what=f"{error.filename or output} cannot be written",
            why=error.strerror or str(error),
            do="Name a folder that you may write to",
        ) from None
    return targets


def _check(target: Path, *, force: bool) -> None:
    try:
        kind = target.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind):
        raise ControlError(
            what=f"{target} is left as it is",
            why="it is there, and not a plain file",
            do="Name another --output",
        )
    if not force:
        raise ControlError(
            what=f"{target} is left as it is",
            why="there is a file of that name already",
            do="Name another --output, or write over it with --force",
        )


def _draft(target: Path, file: Written) -> Path:
    """The whole text on disk under another name."""
    data = _bytes(file.text)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file.mode)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(descriptor)
    except BaseException:
        draft.unlink()
        raise
    return draft
