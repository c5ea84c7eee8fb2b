"""Commands typed here for the service of another machine: nothing of it runs here."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from engine.cli.main import THERE, VERBS
from engine.core.errors import UsageError
from engine.reach import Reach
from tests.faraway import Faraway
from tests.processes import FAKE_ENGINE, ROOT, a_home, eventually


@pytest.fixture
def far() -> Iterator[Faraway]:
    with a_home() as here, a_home() as there:
        yield Faraway(here, there)
        assert not here.processes(), "something was started here"


def test_a_layout_of_here_runs_there(far: Faraway) -> None:
    up = far.ask("up", far.layout({"name": "a", "slot": "core:0"}), "--timeout", "60", "--json")
    assert up.returncode == 0, up.stderr
    (one,) = json.loads(up.stdout)["instances"]
    assert (one["name"], one["state"]) == ("a", "ready")
    assert far.there.engines()
    assert not far.here.paths.socket.exists()

    status = json.loads(far.ask("status", "--json").stdout)
    assert [each["pid"] for each in status["instances"]] == [one["pid"]]
    assert "no instances" in far.run("status").stdout  # here, that is
    assert far.ask("logs", "a").returncode == 0
    assert "a: as asked" in far.ask("verify").stdout
    moved = far.ask("move", "a", "core:0", "--restart")
    assert moved.returncode == 0, moved.stderr
    topo = json.loads(far.ask("topo", "--json").stdout)
    assert topo["schema"] == "slotdeck.topo/1"
    assert topo["cores"] == json.loads(far.run("topo", "--json").stdout)["cores"]

    saved = far.here.folder / "saved.toml"
    assert far.ask("save", str(saved)).returncode == 0
    assert 'name = "a"' in saved.read_text()
    refused = far.run("--readonly", "--host", "me@there", "down", "a")
    assert refused.returncode == 1
    assert "this connection is read-only" in refused.stderr
    down = far.ask("down", "--all")
    assert (down.returncode, down.stdout) == (0, "stopped: a\n")
    eventually(lambda: not far.links())


def test_relative_paths_begin_at_the_home_there(far: Faraway) -> None:
    program = far.there.folder / "home" / "bin" / "engine"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE_ENGINE} "$@"\n')
    program.chmod(0o755)
    layout = far.layout({"name": "a", "command": ["bin/engine", "--port", "{port}"]})
    up = far.ask("up", layout, "--timeout", "60")
    assert up.returncode == 0, up.stderr
    # Saved here and sent again, it means the same.
    before = far.here.folder.joinpath("here.toml").read_text()
    assert far.ask("save", layout).returncode == 0
    assert '"bin/engine"' in far.here.folder.joinpath("here.toml").read_text()
    assert '"bin/engine"' in before
    again = far.ask("up", layout)
    assert "keeping a" in again.stderr, again.stderr
    mistake = far.layout({"name": "a", "slot": "core:9999"})
    refused = far.ask("up", mistake)
    assert refused.returncode in (2, 3)


def test_a_layout_of_there_is_saved_here_with_whole_paths(far: Faraway) -> None:
    program = far.there.folder / "bin" / "engine"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE_ENGINE} "$@"\n')
    program.chmod(0o755)
    there = far.there.folder / "there.toml"
    command = {"name": "a", "command": ["bin/engine", "--port", "{port}"]}
    there.write_text(far.there.layout(command, name="there").text)
    up = far.run("up", str(there), "--timeout", "60", **far.there.environment)
    assert up.returncode == 0, up.stderr
    saved = far.here.folder / "saved.toml"
    assert far.ask("save", str(saved)).returncode == 0
    assert f'"{program}"' in saved.read_text()
    assert far.ask("up", str(saved), "--timeout", "60").returncode == 0


def test_one_link_carries_all_calls_of_a_command(far: Faraway) -> None:
    assert (
        far.ask("up", far.layout({"name": "a", "flags": ["--ready-after", "1"]})).returncode == 0
    )
    (call,) = far.calls.read_text().splitlines()
    assert call.endswith("-- me@there slotdeck relay")
    assert " -T " in call
    assert "BatchMode=yes" in call


def test_the_remote_program_can_be_named(far: Faraway) -> None:
    (far.there.folder / "home" / "my bin").mkdir()
    (far.there.folder / "home" / "my bin" / "deck").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m engine.cli.main "$@"\n'
    )
    (far.there.folder / "home" / "my bin" / "deck").chmod(0o755)
    said = far.run("--host=me@there", "--remote", "~/my bin/deck", "status")
    assert said.returncode == 0, said.stderr
    assert far.run("--host", "me@there", "status", SLOTDECK_REMOTE="~/my bin/deck").returncode == 0
    assert far.calls.read_text().count("~/'my bin/deck' relay") == 2


@pytest.mark.parametrize("verb", sorted(set(VERBS) - THERE))
def test_verbs_that_belong_there_say_so(far: Faraway, verb: str) -> None:
    said = far.ask(verb, "x y")
    assert said.returncode == 2
    assert f"{verb} does not work with --host" in said.stderr
    assert f"`ssh me@there slotdeck {verb} 'x y'`" in said.stderr
    assert not far.calls.exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--host", "refused", "status"], 1, ["refused cannot be reached", "Permission denied"]),
        (["--host", "refused", "up", "LAYOUT"], 1, ["without a password"]),
        (["--host", "me@changed", "status"], 1, ["`ssh-keygen -R changed`", "somebody else"]),
        (["--host", "unknown", "status"], 1, ["key is not known here"]),
        (["--host", "nowhere", "status"], 1, ["Correct the name"]),
        (["--host", "down", "status"], 1, ["Is it on"]),
        (["--host", "empty", "down", "--all"], 1, ["empty has no slotdeck", "--remote"]),
        (["--host", "old", "status"], 1, ["too old for --host"]),
        (["--host", "chatty", "status"], 1, ["'Welcome to chatty!'", ".bashrc"]),
        (
            ["--host", "h", "--ssh", "/no/ssh", "status"],
            1,
            ["/no/ssh cannot be run", "SLOTDECK_S"],
        ),
        (["--host", "h", "--ssh", "a 'b", "status"], 2, ["cannot be run"]),
        (["--host", "-oProxyCommand=x", "status"], 2, ["cannot be a host"]),
        (["--host=-oProxyCommand=x"], 2, ["cannot be a host"]),
        (["--host", "a;b", "status"], 2, ["cannot be a host"]),
        (["--host", "me@-x", "status"], 2, ["cannot be a host"]),
        (["--host"], 2, ["--host says nothing"]),
        (["--ssh", "x", "status"], 2, ["No host was named"]),
        (["status", "--host", "h"], 2, ["--host stands before the verb"]),
        (["--host", "there", "topo", "--synthetic", "core:2"], 2, ["Two machines were named"]),
        (["--readonly", "engines"], 2, ["engines cannot be read-only"]),
    ],
)
def test_what_goes_wrong_is_said(
    far: Faraway, words: list[str], code: int, told: list[str]
) -> None:
    layout = far.layout({"name": "a"})
    said = far.run(*(layout if word == "LAYOUT" else word for word in words))
    assert said.returncode == code, said.stderr
    for part in ("  why: ", "  do:  ", *told):
        assert part in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    "host", ["me@server", "server", "ssh://me@h:22", "[::1]", "10.0.0.1", "a_b"]
)
def test_hosts_as_ssh_takes_them(host: str) -> None:
    argv = Reach(host).argv()
    assert argv[-3:] == ["--", host, "slotdeck relay"]


@pytest.mark.parametrize("host", ["-x", "a b", "a\nb", "$(x)", "@-x", "a'b", "é", "a\0"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(UsageError, match="cannot be a host"):
        Reach(host)


def test_a_cut_link_is_made_again_while_somebody_waits(far: Faraway) -> None:
    assert far.ask("up", far.layout({"name": "a"}), "--timeout", "60").returncode == 0
    argv = far.argv("--host", "me@there", "status", "--watch")
    with subprocess.Popen(
        argv, env=far.environment, cwd=ROOT, stdout=-1, stderr=-1, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert watching.stdout.readline().startswith("NAME")
        assert far.cut() == 1
        told = watching.stderr.readline()
        assert told.startswith("The link to me@there was cut: ")
        assert "ended by signal 9; trying again for 60 s" in told
        assert watching.stderr.readline() == "me@there answers again\n"
        while not watching.stdout.readline().startswith("NAME"):
            pass
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    assert json.loads(far.ask("status", "--json").stdout)["instances"][0]["state"] == "ready"


def test_a_service_that_ends_there_is_told(far: Faraway) -> None:
    assert far.ask("status").returncode == 0
    argv = far.argv("--host", "me@there", "status", "--watch")
    with subprocess.Popen(
        argv, env=far.environment, cwd=ROOT, stdout=-1, stderr=-1, text=True
    ) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        (link,) = far.links()
        far.run("service", "stop", **far.there.environment)
        _, told = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert "its service closed the connection" in told
    eventually(lambda: link not in far.links())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind_when_a_command_is_ended(
    far: Faraway, number: signal.Signals
) -> None:
    argv = far.argv("--host", "me@there", "status", "--watch")
    with subprocess.Popen(argv, env=far.environment, cwd=ROOT, stdout=-1, stderr=-1) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        time.sleep(0.1)
        watching.send_signal(number)
        watching.communicate(timeout=60)
    eventually(lambda: not far.links())
