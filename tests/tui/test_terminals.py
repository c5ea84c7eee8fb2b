"""The panel on terminals of several kinds: colours on the wire, tmux, ssh, mouse and clipboard."""

import base64
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_real_ssh import SSHD, Server, below
from tests.faraway import Faraway
from tests.processes import a_home, alive, eventually
from tests.tui.terminal import ENVIRONMENT, ROOT, Terminal, mouse

PANEL = "tests/tui/scripted_panel.py"
FIRST = "ready on http://127.0.0.1:8001"
TMUX = shutil.which("tmux")
PATIENTLY = 60.0


def colours(raw: bytes) -> set[str]:
    """Which kinds of colour were asked for: 24 bits, 256, 16 (the bright ones apart)."""
    kinds = set()
    for codes in re.findall(rb"\x1b\[([\d;]*)m", raw):
        parts = codes.split(b";")
        if b"38;2;" in codes or b"48;2;" in codes:
            kinds.add("24 bits")
        elif b"38;5;" in codes or b"48;5;" in codes:
            kinds.add("256")
        elif any(re.fullmatch(rb"[349][0-7]", part) for part in parts):
            kinds.add("16")
        elif any(re.fullmatch(rb"10[0-7]", part) for part in parts):
            kinds.add("16 bright")
    return kinds


@pytest.mark.parametrize(
    ("environment", "kinds"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, {"24 bits"}),
        ({"TERM": "xterm-256color", "COLORTERM": ""}, {"256"}),
        ({"TERM": "linux", "COLORTERM": ""}, {"16"}),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, set()),
    ],
    ids=["true", "256", "linux", "NO_COLOR"],
)
def test_colours_on_the_wire(environment: dict[str, str], kinds: set[str]) -> None:
    with Terminal(PANEL, "--machine", "server", size=(100, 30), **environment) as terminal:
        terminal.until(FIRST, PATIENTLY)
        terminal.write(b"x")
        terminal.until("enter apply", PATIENTLY)
        terminal.write(b"\x1b")
        terminal.until(lambda: "enter apply" not in terminal.text, PATIENTLY)
        terminal.write(b"d")
        terminal.until("KV cache", PATIENTLY)
        found = colours(terminal.raw)
        # The few that have no nearest one but these are 16-colour codes in any palette.
        assert found - {"16"} == kinds - {"16"}
        assert ("16" in found) >= ("16" in kinds)
        if not kinds:
            assert found == set()
        words = ("ready", "failed", "● live")
        terminal.write(b"\x1b")
        terminal.until(lambda: all(each in terminal.text for each in words), PATIENTLY)


def test_the_mouse_is_let_go_and_taken_back() -> None:
    with Terminal(PANEL) as terminal:
        terminal.until(FIRST, PATIENTLY)
        before = len(terminal.raw)
        terminal.write(b"M")
        terminal.until("mouse is the terminal's", PATIENTLY)
        terminal.until(lambda: b"\x1b[?1003l" in terminal.raw[before:], PATIENTLY)
        before = len(terminal.raw)
        terminal.write(b"M")
        terminal.until(lambda: b"\x1b[?1003h" in terminal.raw[before:], PATIENTLY)
        # The footer has said whose the mouse was; only without that its keys are where they stay.
        terminal.until(lambda: "the terminal's" not in terminal.text, PATIENTLY)
        x, y = terminal.find("? Help")
        terminal.write(mouse(0, x + 2, y) + mouse(0, x + 2, y, up=True))
        terminal.until("up/down scroll", PATIENTLY)


def test_a_command_line_reaches_the_clipboard() -> None:
    with Terminal(PANEL, size=(120, 30)) as terminal:
        terminal.until(FIRST, PATIENTLY)
        terminal.write(b"d")
        terminal.until("1 history", PATIENTLY)
        terminal.write(b"3")
        terminal.until("numactl -C 0", PATIENTLY)
        terminal.write(b"y")
        terminal.until(lambda: b"\x1b]52;c;" in terminal.raw, PATIENTLY)
        found = re.search(rb"\x1b\]52;c;([\w+/=]*)\x07", terminal.raw)
        assert found is not None
        copied = base64.b64decode(found[1]).decode()
        assert copied == "OMP_NUM_THREADS=1 numactl -C 0 -m 0 python -m worker --port 8001"


def test_a_storm_of_resizes_on_a_page() -> None:
    with Terminal(PANEL, "--every", "0.1") as terminal:
        terminal.until(FIRST, PATIENTLY)
        terminal.write(b"d")
        terminal.until("1 history", PATIENTLY)
        for size in ((40, 10), (1, 1), (200, 60), (10, 3), (141, 40), (2, 2)) * 3:
            terminal.resize(*size)
            terminal.read(0.01)
        terminal.resize(80, 24)
        terminal.until(lambda: "esc Back" in terminal.text, PATIENTLY)
        terminal.until("output 41.3 tokens/s", PATIENTLY)


def test_a_mistake_in_the_settings_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "slotdeck").mkdir()
    (tmp_path / "slotdeck/config.toml").write_text('[keys]\n\nstop = "R"\n')
    with Terminal("-m", "tui", XDG_CONFIG_HOME=str(tmp_path), size=(200, 24)) as terminal:
        terminal.until(terminal.ended, PATIENTLY)
        assert terminal.status == 2
        assert b"config.toml, line 3 has a mistake: R would be the key of stop" in terminal.raw
        assert b"\x1b[?1049h" not in terminal.raw


@pytest.fixture
def in_tmux(tmp_path: Path) -> Iterator[Terminal]:
    if TMUX is None:
        pytest.skip("tmux is not installed")
    panel = shlex.join([sys.executable, str(ROOT / PANEL), "--machine", "server"])
    argv = [TMUX, "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
    environment = {**ENVIRONMENT, "HOME": str(tmp_path)}
    start = [*argv, "new-session", panel, ";", "set", "-g", "mouse", "on"]
    with Terminal.started(start, size=(120, 40), env=environment) as terminal:
        yield terminal
    subprocess.run([*argv, "kill-server"], check=False, capture_output=True)


def test_in_tmux_by_mouse_and_keys(in_tmux: Terminal) -> None:
    in_tmux.until(FIRST, PATIENTLY)
    in_tmux.until("x Stop", PATIENTLY)
    x, y = in_tmux.find("draft     ")
    in_tmux.write(mouse(0, x, y) + mouse(0, x, y, up=True))
    in_tmux.until("model file not found", PATIENTLY)
    x, y = in_tmux.find("coder     ")
    to_x, to_y = in_tmux.find("NUMA 1")
    in_tmux.write(
        mouse(0, x, y)
        + mouse(32, x + 3, y - 1)
        + mouse(32, to_x, to_y)
        + mouse(0, to_x, to_y, up=True)
    )
    in_tmux.until("Move coder to numa:1", PATIENTLY)
    in_tmux.write(b"\x1b")
    in_tmux.until(lambda: "Move coder" not in in_tmux.text, PATIENTLY)
    in_tmux.resize(80, 24)
    in_tmux.until("x Stop", PATIENTLY)
    in_tmux.write(b"e")
    in_tmux.until("all events", PATIENTLY)
    in_tmux.write(b"qq")
    in_tmux.until(in_tmux.ended, PATIENTLY)


@pytest.fixture
def far() -> Iterator[Server]:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("sshd or ssh is not installed")
    with a_home() as here, a_home() as there:
        made = Server(Faraway(here, there))
        yield made
        made.close()


def test_at_the_far_end_of_ssh(far: Server) -> None:
    """The mouse works through it, and a panel does not outlive its connection."""
    panel = shlex.join([sys.executable, str(ROOT / PANEL), "--machine", "server"])
    argv = [*shlex.split(far.ssh("key")), "-tt", far.host, panel]
    argv[0] = str(shutil.which("ssh"))
    with Terminal.started(argv, size=(100, 30), env=ENVIRONMENT) as terminal:
        terminal.until(FIRST, PATIENTLY)
        terminal.until("x Stop", PATIENTLY)
        assert colours(terminal.raw) >= {"256"}  # COLORTERM does not come along
        x, y = terminal.find("? Help")
        terminal.write(mouse(0, x + 2, y) + mouse(0, x + 2, y, up=True))
        terminal.until("up/down scroll", PATIENTLY)
        there = below(far.sshd.pid)
        assert there
        terminal.hang_up()
        os.kill(terminal.pid, signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in there))
