"""A package index that is a folder, for installs by a real pip without a network."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.engines.install import Done, Installer, InstallOrder
from engine.engines.recipes import Build, Recipe, parse_pins
from tests.tiny_wheels import make_wheel

PYTHON = sys.version_info[:2]


class Notes:
    """What an install said."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.on_step: Callable[[str], None] = lambda step: None

    def begin(self, step: str) -> None:
        self.steps.append(step)
        self.on_step(step)

    def now(self, detail: str) -> None:
        self.on_step(detail)

    def end(self, detail: str) -> None:
        self.steps.append(detail)


class Index:
    """A package index that is a folder, and the installer that knows no other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "index"
        self.data = folder / "data" / "slotdeck"
        self.notes = Notes()
        self.environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder),
            "PIP_CONFIG_FILE": os.devnull,
        }
        for name, version in (("torch", "1.0+cpu"), ("tiny-one", "1.0"), ("tiny-two", "2.0")):
            make_wheel(self.folder, name, version)

    def recipe(self, *pins: str, **changes: Any) -> Recipe:
        words = pins or ("torch==1.0+cpu", "tiny-one==1.0", "tiny-two==2.0")
        build = Build(parse_pins("\n".join(words)), fetch_bytes=1000, disk_bytes=1000)
        own = Recipe(
            name="ipex",
            title="A tiny engine",
            package="tiny-one",
            builds={"cpu": build},
            pythons=(PYTHON, PYTHON),
            modules=("torch", "tiny_one"),
            machines=(os.uname().machine,),
        )
        return dataclasses.replace(own, **changes)

    def install(self, recipe: Recipe | None = None, **more: Any) -> Done:
        installer = Installer(
            self.data,
            self.environment,
            clock=time.monotonic,
            today=lambda: datetime(2026, 1, 2, tzinfo=UTC),
            progress=self.notes,
        )
        order = InstallOrder(recipe or self.recipe(), Path(sys.executable), **more)
        return installer.install(order)

    @property
    def home(self) -> Path:
        return self.data / "engines" / "ipex"

    def folders(self) -> set[str]:
        return {one.name for one in self.home.iterdir() if one.is_dir() and not one.is_symlink()}


def run_module(python: Path, program: str) -> str:
    done = subprocess.run(
        [str(python), "-I", "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
