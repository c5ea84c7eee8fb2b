"""Where slotdeck writes, and where models are found."""

import json
import os
from pathlib import Path

import pytest

from engine.core.errors import ControlError
from engine.host.models import BUNDLED, find_model
from engine.host.paths import Paths
from engine.host.root import HostRoot
from engine.host.whose import Here
from tests.kernel_files import tree


def test_the_xdg_variables_are_followed() -> None:
    told = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}
    paths = Paths.of(
        {**told, "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c", "XDG_DATA_HOME": "/d"}
    )
    assert (str(paths.runtime), str(paths.state), str(paths.cache), str(paths.data)) == (
        *("/run/user/7/slotdeck", "/s/slotdeck"),
        *("/c/slotdeck", "/d/slotdeck"),
    )
    assert paths.socket.parent == paths.lock.parent == paths.runtime
    assert paths.instance("a").is_relative_to(paths.state)


def test_without_them_the_home_is_used_and_relative_ones_are_ignored() -> None:
    plain = Paths.of({"HOME": "/home/u"})
    assert str(plain.runtime) == f"/tmp/slotdeck-{os.getuid()}"
    assert (str(plain.state), str(plain.cache), str(plain.data)) == (
        *("/home/u/.local/state/slotdeck", "/home/u/.cache/slotdeck"),
        "/home/u/.local/share/slotdeck",
    )
    odd = {
        "HOME": "/home/u",
        "XDG_RUNTIME_DIR": "run",
        "XDG_STATE_HOME": "",
        "XDG_CACHE_HOME": ".",
        "XDG_DATA_HOME": "data",
    }
    assert Paths.of(odd) == plain
    assert Paths.of({}).state.is_absolute()


def a_host(folder: Path, name: str, machine: str, boot: str) -> HostRoot:
    root = tree(
        folder / f"{name}-{machine}-{boot}",
        {
            "proc/sys/kernel/hostname": f"{name}\n",
            "proc/sys/kernel/random/boot_id": f"{boot}\n",
            "etc/machine-id": f"{machine}\n",
        },
    )
    (root.path / "proc/self/ns").mkdir(parents=True)
    (root.path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    return root


def journal_of(root: HostRoot) -> str:
    here = Here.of(root)
    return json.dumps({"boot_id": here.boot, "pids": here.pids, "host": here.host})


@pytest.mark.parametrize(
    ("name", "machine", "boot", "is_ours"),
    [
        ("node1", "aaaa", "boot1", True),
        ("node1", "aaaa", "boot2", True),  # it was restarted
        ("renamed", "aaaa", "boot1", True),  # while engines run
        ("node2", "bbbb", "boot2", False),
        ("node2", "aaaa", "boot2", False),  # a clone
        ("node1", "bbbb", "boot2", False),  # many a machine is called localhost
    ],
)
def test_hosts_that_share_a_home_have_a_journal_each(
    tmp_path: Path, name: str, machine: str, boot: str, is_ours: bool
) -> None:
    first = a_host(tmp_path, "node1", "aaaa", "boot1")
    told = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    base = Paths.of(told, first)
    assert base.state == base.shared
    base.prepare()
    base.journal.write_text(journal_of(first))
    root = first if (name, machine, boot) == ("node1", "aaaa", "boot1") else None
    paths = Paths.of(told, root or a_host(tmp_path, name, machine, boot))
    assert (paths.state == base.state) == is_ours
    assert paths.shared == base.shared
    assert paths.shared_with == ("" if is_ours else Here.of(first).host)
    if not is_ours:
        assert paths.state.parent == base.state / "hosts"
        paths.prepare()
        paths.journal.write_text("{}")
        base.journal.unlink()  # its own stays its own
        assert Paths.of(told, a_host(tmp_path / "2", name, machine, boot)).state == paths.state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"boot_id": "another"}'])
def test_a_journal_that_does_not_say_whose_it_is_is_ours(tmp_path: Path, text: str) -> None:
    paths = paths_in(tmp_path)
    paths.prepare()
    paths.journal.write_text(text)
    assert paths_in(tmp_path) == paths


def paths_in(folder: Path) -> Paths:
    return Paths.of(
        {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")},
    )


def test_folders_are_made_private(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths.prepare()
    paths.runtime.chmod(0o755)
    paths.prepare()
    for folder in (paths.runtime, paths.state):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run/slotdeck").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ControlError, match="is not safe: it is a link"):
        paths_in(tmp_path).prepare()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a foreign folder")
def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run/slotdeck").mkdir(parents=True)
    os.chown(tmp_path / "run/slotdeck", 65534, 65534)
    with pytest.raises(ControlError, match="belongs to somebody else"):
        paths_in(tmp_path).prepare()


@pytest.mark.parametrize("name", ["run", "run/slotdeck"])
def test_a_file_in_the_way_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(ControlError, match="cannot be used"):
        paths_in(tmp_path).prepare()


def model_in(folder: Path, config: str = '{"num_hidden_layers": 2}') -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"x" * 10)
    (folder / "more.safetensors").write_bytes(b"x" * 5)
    return folder


def test_a_directory_relative_to_the_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_in(tmp_path / "layouts/models/m")
    model_in(tmp_path / "elsewhere/only-here")
    monkeypatch.chdir(tmp_path / "elsewhere")
    base = tmp_path / "layouts"
    model = find_model("models/m", base=base, bundled=tmp_path)
    assert model.path == tmp_path / "layouts/models/m"
    assert model.argument == str(model.path)
    assert model.config == {"num_hidden_layers": 2}
    assert model.weights_bytes == 15
    assert model.stored is not None
    assert "model.safetensors cannot be used: 10 bytes end before" in model.stored.notes[0]
    # What stands in the caller's own directory means nothing to a service elsewhere.
    with pytest.raises(ControlError, match="was not found"):
        find_model("./only-here", base=base, bundled=tmp_path)


def test_a_bundled_model(tmp_path: Path) -> None:
    name = next(iter(BUNDLED))
    with pytest.raises(ControlError, match=f"slotdeck models prepare {name}"):
        find_model(f"bundled:{name}", base=tmp_path, bundled=tmp_path)
    model_in(tmp_path / name)
    assert find_model(f"bundled:{name}", base=tmp_path, bundled=tmp_path).path == tmp_path / name
    with pytest.raises(ControlError, match="There is no bundled model 'nope'"):
        find_model("bundled:nope", base=tmp_path, bundled=tmp_path)


def test_a_hub_id_is_left_to_the_engine(tmp_path: Path) -> None:
    model = find_model("owner/name", base=tmp_path, bundled=tmp_path)
    assert (model.argument, model.path, model.config) == ("owner/name", None, None)
    assert model.stored is None


@pytest.mark.parametrize(
    "wished",
    [
        *("", "nope", "./nope", "/nope/at/all", "~/nope", "~nobody-of-that-name/x", "a/b/c"),
        *("x" * 5000, "a\0b", "bundled:", "/dev/null"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, wished: str) -> None:
    with pytest.raises(ControlError) as caught:
        find_model(wished, base=tmp_path, bundled=tmp_path)
    assert caught.value.why
    assert caught.value.do


def test_a_directory_without_a_config_or_with_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ControlError, match=r"has no config\.json"):
        find_model("empty", base=tmp_path, bundled=tmp_path)
    for number, config in enumerate(("{", "[1]", "[" * 100_000, "\xff")):
        model_in(tmp_path / f"broken-{number}", config)
        assert find_model(f"broken-{number}", base=tmp_path, bundled=tmp_path).config is None
