"""A user with folders of its own, so that no test meets a service of this machine's user."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.host.paths import Paths
from tests.cli.package_index import Index

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's home; the environment names folders in it. Nothing may be left running."""
    folders = {
        "HOME": tmp_path,
        "XDG_RUNTIME_DIR": tmp_path / "run",
        "XDG_STATE_HOME": tmp_path / "state",
        "XDG_CACHE_HOME": tmp_path / "cache",
    }
    for name, folder in folders.items():
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not Paths.of({name: str(folder) for name, folder in folders.items()}).socket.exists()


class Said:
    """What one command line answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def say(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process."""

    def run(*words: str) -> Said:
        try:
            code = main(list(words))
        except SystemExit as left:  # argparse's way to end --help
            code = int(left.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def spawn(home: Path) -> Run:
    """Run a command line as a program of its own."""

    def run(*words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "engine.cli.main", *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
        )

    return run


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)
