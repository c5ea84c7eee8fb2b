"""Saving what runs: into the file that it came from, a new one, another one, and never half."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.control import HeldLayout, HeldWish
from engine.core.errors import ControlError, LayoutError
from engine.core.layout import Instance, parse_layout
from engine.core.likeness.fingerprint import fingerprint
from engine.layout_files import NotSaved, Saving, read_layout, saving, write
from tests.cli.conftest import ROOT, Run
from tests.machines_by_hand import server

TEXT = """\
# ours
schema = 1
name = "Ours"

[[instance]]
name = "a"
model = "./models/x"   # beside us
slot = "numa:0"
"""


def held(folder: Path, *wishes: Instance, **values: Any) -> HeldLayout:
    return HeldLayout(tuple(HeldWish(one, str(folder)) for one in wishes), **values)


def a(**values: Any) -> Instance:
    return Instance(**{"name": "a", "model": "./models/x", "slot": "numa:0", **values})


def saved(path: Path, what: HeldLayout, **options: Any) -> Saving:
    made = saving(str(path), what, server(), **options)
    write(made)
    return made


def test_the_file_that_it_came_from_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "l.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    made = saved(
        path, held(tmp_path, a(slot="numa:1"), path=str(path), text=TEXT), with_expect=False
    )
    assert made.is_own
    assert path.read_text() == TEXT.replace("numa:0", "numa:1")
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_the_machine_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "l.toml"
    path.write_text(TEXT)
    saved(path, held(tmp_path, a()))
    assert parse_layout(path.read_text(), name="l").expect == fingerprint(server())
    saved(path, held(tmp_path, a()), with_expect=False)
    assert path.read_text() == TEXT


def test_it_is_edited_as_it_stands_now(tmp_path: Path) -> None:
    path = tmp_path / "l.toml"
    path.write_text(TEXT + "# written meanwhile\n")
    saved(path, held(tmp_path, a(slot="numa:1"), path=str(path), text=TEXT), with_expect=False)
    assert path.read_text().endswith('slot = "numa:1"\n# written meanwhile\n')


def test_a_new_file_begins_as_the_one_that_was_applied(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "new.toml"
    saved(path, held(tmp_path, a(), path=str(tmp_path / "l.toml"), text=TEXT), with_expect=False)
    assert path.read_text() == TEXT.replace("./models", "../models")


def test_from_nothing(tmp_path: Path) -> None:
    saved(tmp_path / "new.toml", held(tmp_path, a(), name="Ours"), with_expect=False)
    assert (tmp_path / "new.toml").read_text() == (
        'schema = 1\nname = "Ours"\n\n[[instance]]\nname = "a"\nengine = "torch"\n'
        'model = "./models/x"\nslot = "numa:0"\n'
    )


def test_paths_lead_where_they_led(tmp_path: Path) -> None:
    (tmp_path / "owner/model").mkdir(parents=True)
    (tmp_path / "deep").mkdir()
    wishes = [
        a(),
        a(name="b", model="owner/model", engine="command", command=("./run", "./x")),
        a(name="c", model="some/hub-id", engine="command", command=("python3",)),
        a(name="d", model="bundled:smollm2-135m"),
        a(name="e", model="/models/x"),
        a(name="f", model="~/models/x"),
        a(name="g", model="folder"),
    ]
    path = tmp_path / "deep/new.toml"
    saved(path, held(tmp_path, *wishes))
    found = {one.name: one for one in parse_layout(path.read_text(), name="l").instances}
    assert [found[name].model for name in "abcdefg"] == [
        "../models/x",
        "../owner/model",
        "some/hub-id",
        "bundled:smollm2-135m",
        "/models/x",
        "~/models/x",
        "../folder",
    ]
    assert found["b"].command == ("../run", "./x")
    assert found["c"].command == ("python3",)
    back = tmp_path / "back.toml"
    saved(back, held(path.parent, *found.values()))
    again = {one.name: one for one in parse_layout(back.read_text(), name="l").instances}
    assert again["a"].model == "./models/x"
    assert again["b"].command == ("./run", "./x")


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real/l.toml", tmp_path / "link.toml"
    real.write_text(TEXT)
    link.symlink_to(real)
    made = saved(link, held(real.parent, a(slot="numa:1"), path=str(link), text=TEXT))
    assert made.is_own
    assert link.is_symlink()
    assert "numa:1" in real.read_text()


def test_a_byte_order_mark_and_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "l.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    saved(path, held(tmp_path, a(slot="numa:1")))
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf# ours\r\n")
    assert data.count(b"\n") == data.count(b"\r\n")


def test_secrets_stay_out_and_files_that_hold_some_are_private(tmp_path: Path) -> None:
    secret = a(env={"HF_TOKEN": "hf_x"})
    made = saved(tmp_path / "new.toml", held(tmp_path, secret))
    assert "hf_x" not in made.after
    assert made.notes == ("a: HF_TOKEN is a secret that this file does not hold: not written",)
    text = TEXT + 'env = { HF_TOKEN = "hf_x" }\n'
    made = saved(tmp_path / "copy.toml", held(tmp_path, secret, text=text, path="/gone/l.toml"))
    assert (made.notes, "hf_x" in made.after) == ((), True)
    assert (tmp_path / "copy.toml").stat().st_mode & 0o077 == 0


def test_another_layout_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "l.toml"
    path.write_text(TEXT)
    assert saving(str(path), held(tmp_path, a(), name="Ours"), server()).is_own
    assert not saving(str(path), held(tmp_path, a(), name="Theirs"), server()).is_own
    other = held(tmp_path, a(), name="Ours", path=str(tmp_path / "other.toml"))
    assert not saving(str(path), other, server()).is_own


def refused(path: Path | str, what: HeldLayout, kind: type[ControlError], why: str) -> None:
    with pytest.raises(kind) as error:
        saving(str(path), what, server())
    assert why in str(error.value)


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    what = held(tmp_path, a())
    refused(tmp_path / "l.toml", held(tmp_path), NotSaved, "the service has no instance")
    refused(tmp_path, what, NotSaved, "it is a folder")
    refused("/dev/null", what, NotSaved, "it is no ordinary file")
    refused(tmp_path / "no/such/l.toml", what, NotSaved, "there is no folder")
    refused(tmp_path / ("l" * 300), what, NotSaved, "too long")
    refused("~nobody-here/l.toml", what, NotSaved, "home")
    refused("a\0b", what, NotSaved, "null byte")
    (tmp_path / "torn.toml").write_text("[[instance")
    refused(tmp_path / "torn.toml", what, LayoutError, "is not TOML")
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    refused(loop, what, NotSaved, "loop")


def test_a_file_that_changed_since_it_was_looked_at_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "l.toml"
    made = saving(str(path), held(tmp_path, a()), server())
    path.write_text("mine")
    with pytest.raises(NotSaved, match="changed since"):
        write(made)
    assert path.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    made = saving(str(tmp_path / "l.toml"), held(tmp_path, a()), server())
    tmp_path.chmod(0o500)
    with pytest.raises(NotSaved, match="Permission denied"):
        write(made)


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.toml"
    path.write_text(TEXT)
    made = saving(str(path), held(tmp_path, a(slot="numa:1")), server())

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotSaved, match="No space left"):
        write(made)
    assert (path.read_text(), list(tmp_path.iterdir())) == (TEXT, [path])


def test_reading_takes_marks_and_refuses_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "l.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read_layout(str(path)).text == TEXT
    assert read_layout(str(path)).base == str(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LayoutError, match="not UTF-8"):
        read_layout(str(path))
    path.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(LayoutError, match="larger than 1 MiB"):
        read_layout(str(path))


# The command line


@pytest.fixture
def running(spawn: Run, home: Path) -> Iterator[Path]:
    """A layout of one engine, applied."""
    path = home / "one.toml"
    path.write_text(
        f"""\
schema = 1
name = "One"
[defaults]
engine = "command"
command = ["{sys.executable}", "{ROOT / "tests/fake_engine.py"}", "--port", "{{port}}"]
[[instance]]
name = "a"
slot = "core:0"   # the first
env = {{ HF_TOKEN = "hf_secret" }}
[ports]
first = 18531
last = 18599
"""
    )
    up = spawn("up", str(path), "--timeout", "60")
    assert up.returncode == 0, up.stderr
    yield path
    spawn("down", "--all")
    spawn("service", "stop")
    deadline = time.monotonic() + 60
    while (home / "run/slotdeck/control.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_running_layout_is_saved_and_replayed(spawn: Run, running: Path, home: Path) -> None:
    before = running.read_text()
    assert spawn("move", "a", "core:1", "--timeout", "60").returncode == 0
    done = spawn("save", str(running))
    assert (done.returncode, done.stdout) == (0, f"{running}: 1 instance saved\n"), done.stderr
    after = running.read_text()
    assert after.startswith(before.replace('"core:0"   # the first', '"core:1"   # the first'))
    assert "[expect]\npackages = " in after
    assert spawn("save", str(running)).stdout == f"{running} says what runs already\n"
    again = spawn("up", str(running), "--timeout", "60")
    assert (again.returncode, "keeping a" in again.stderr) == (0, True), again.stderr

    other = home / "other.toml"
    other.write_text(before.replace("One", "Other"))
    refused = spawn("save", str(other))
    assert (refused.returncode, other.read_text()) == (1, before.replace("One", "Other"))
    assert "what runs did not come from it" in refused.stderr
    assert spawn("save", str(other), "--force", "--no-expect").returncode == 0
    assert other.read_text() == before.replace("One", "Other").replace("core:0", "core:1")

    # The next service knows the layout by its name only.
    assert spawn("service", "stop").returncode == 0
    new = home / "new.toml"
    done = spawn("save", str(new))
    assert done.returncode == 0, done.stderr
    assert "a: HF_TOKEN is a secret" in done.stderr
    assert "hf_secret" not in new.read_text()
    assert parse_layout(new.read_text(), name="new").name == "One"
    assert spawn("save", str(running)).stdout == f"{running} says what runs already\n"


def test_with_no_service_there_is_nothing_to_save(say: Callable[..., Any], home: Path) -> None:
    said = say("save", "new.toml")
    assert (said.code, (home / "new.toml").exists()) == (1, False)
    assert "There is nothing to save" in said.err
