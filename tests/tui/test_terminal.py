"""The panel as a process on a real terminal: raw mouse bytes, signals, hang-ups, sizes."""

import os
import select
import signal
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pyte.screens import Char

from tests.tui.terminal import RESTORES, Terminal, mouse
from tui.__main__ import main

PANEL = "tests/tui/scripted_panel.py"
FIRST = "ready on http://127.0.0.1:8001"


def is_restored(terminal: Terminal) -> bool:
    return all(code in terminal.raw for code in RESTORES)


def test_keys_quit_and_the_last_words() -> None:
    with Terminal(PANEL) as terminal:
        terminal.until(FIRST)
        terminal.write(b"?")
        terminal.until("Start the selected instance again where it was")
        terminal.until("up/down scroll")
        terminal.write(b"\x1b")
        terminal.until(lambda: "up/down scroll" not in terminal.text)
        terminal.write(b"q")
        terminal.until("1 engine keeps running:")
        terminal.write(b"q")
        terminal.until(terminal.ended)
        assert terminal.status == 0
        assert is_restored(terminal)
        after = terminal.raw.rpartition(b"\x1b[?1049l")[2].decode()
        assert "1 engine keeps running: chat (ready, http://127.0.0.1:8001)." in after
        assert "slotdeck down --all" in after


@pytest.mark.parametrize("pieces", [1, 5], ids=["one write", "piece by piece"])
def test_a_whole_drag_in_one_read(pieces: int) -> None:
    """Over a lagging connection press, moves and release arrive together."""
    with Terminal(PANEL, "--machine", "server") as terminal:
        terminal.until(FIRST)
        x, y = terminal.find("coder     ")
        to_x, to_y = terminal.find("NUMA 1")
        drag = [
            mouse(0, x, y),
            mouse(32, x + 3, y - 1),
            mouse(32, to_x, to_y + 1),
            mouse(32, to_x, to_y),
            mouse(0, to_x, to_y, up=True),
        ]
        if pieces == 1:
            terminal.write(b"".join(drag))
        else:
            for each in drag:
                terminal.write(each)
                terminal.read(0.05)
        terminal.until("Move coder to numa:1")
        terminal.write(b"\r")
        terminal.until("applied move")
        terminal.write(b"qq")
        terminal.until(terminal.ended)
        assert b"applied: ['move']" in terminal.raw


def test_a_model_pulled_out_of_the_palette_in_one_read() -> None:
    """The palette goes while press, moves and release are read: none of them may be lost."""
    with Terminal(PANEL, "--machine", "server") as terminal:
        terminal.until(FIRST)
        to_x, to_y = terminal.find("NUMA 3")
        terminal.write(b"n")
        terminal.until("bundled:")
        terminal.until("choose its place")
        x, y = terminal.find("bundled:")
        terminal.write(
            mouse(0, x, y)
            + mouse(32, x + 1, y)
            + mouse(32, to_x, to_y + 1)
            + mouse(32, to_x, to_y)
            + mouse(0, to_x, to_y, up=True)
        )
        terminal.until("on numa:3")
        terminal.until("enter apply")
        terminal.write(b"\x1b")
        terminal.until(lambda: "enter apply" not in terminal.text)
        terminal.write(b"qq")
        terminal.until(terminal.ended)


def test_an_end_dragged_over_the_map_in_one_read() -> None:
    """Press and release in one widget make a click as well, which must not choose anything."""
    with Terminal(PANEL, "--machine", "server", size=(200, 60)) as terminal:
        terminal.until(FIRST)
        x, y = terminal.find("▸")
        to_x, to_y = terminal.find("c2 ")
        terminal.write(
            mouse(0, x, y)
            + mouse(32, x - 1, y)
            + mouse(32, to_x, to_y)
            + mouse(0, to_x, to_y, up=True)
        )
        terminal.until("Move chat to core:0-2")
        terminal.write(b"\x1b")
        terminal.until(lambda: "Move chat to core:0-2" not in terminal.text)
        assert "▌c  chat" in terminal.text
        terminal.write(b"qq")
        terminal.until(terminal.ended)
        assert b"applied: []" in terminal.raw


def test_a_new_instance_drawn_in_one_read() -> None:
    with Terminal(PANEL, "--machine", "server", size=(200, 60)) as terminal:
        terminal.until(FIRST)
        terminal.write(b"n")
        terminal.until("choose its place on the map")
        terminal.write(b"\r")
        terminal.until("New smollm2-135m")
        x, y = terminal.find("c24 ")
        terminal.write(mouse(0, x, y) + mouse(32, x + 1, y) + mouse(0, x + 1, y + 2, up=True))
        terminal.until("Start new smollm2-135m on core:24-26")
        terminal.write(b"\x1b")
        terminal.until(lambda: "Start new" not in terminal.text)
        terminal.write(b"qq")
        terminal.until(terminal.ended)


def test_a_lost_release_moves_nothing() -> None:
    """A move without a button makes Textual invent the release: it may only ask."""
    with Terminal(PANEL, "--machine", "server") as terminal:
        terminal.until(FIRST)
        x, y = terminal.find("coder     ")
        to_x, to_y = terminal.find("NUMA 1")
        terminal.write(mouse(0, x, y) + mouse(32, to_x, to_y) + mouse(35, to_x + 3, to_y))
        terminal.until("Move coder to numa:1")
        terminal.write(b"\x1b")
        terminal.until(lambda: "Move coder" not in terminal.text)
        terminal.write(mouse(0, x, y) + mouse(32, 200, 90) + mouse(0, 200, 90, up=True))
        terminal.until("no slot of the machine")
        terminal.write(b"qq")
        terminal.until(terminal.ended)
        assert b"applied: []" in terminal.raw


def test_sigterm_restores_the_terminal() -> None:
    with Terminal(PANEL) as terminal:
        terminal.until(FIRST)
        os.kill(terminal.pid, signal.SIGTERM)
        terminal.until(terminal.ended)
        assert terminal.status == 0
        assert is_restored(terminal)


def test_a_closed_terminal_ends_the_process() -> None:
    with Terminal(PANEL) as terminal:
        terminal.until(FIRST)
        terminal.hang_up()
        terminal.until(terminal.ended)


def test_a_closed_terminal_ends_a_process_that_ignores_hangups() -> None:
    """As under nohup: no signal comes, only a dead descriptor that would be read forever."""
    with Terminal(PANEL, "--ignore-hangup") as terminal:
        terminal.until(FIRST)
        terminal.hang_up()
        terminal.until(terminal.ended)


def test_a_closed_terminal_ends_a_process_whose_event_loop_is_blocked() -> None:
    """As when a link dies with frames still queued: writing to it blocks for good."""
    with Terminal(PANEL, "--ignore-hangup", "--stuck") as terminal:
        terminal.until(FIRST)
        terminal.write(b"x")
        terminal.until(lambda: b"stuck" in terminal.raw)
        assert "Stop chat" not in terminal.text
        terminal.hang_up()
        terminal.until(terminal.ended)
        assert terminal.status == 129


def test_a_storm_of_resizes() -> None:
    with Terminal(PANEL, "--machine", "huge", "--every", "0.2") as terminal:
        terminal.until(FIRST)
        for size in ((40, 10), (1, 1), (200, 60), (10, 3), (120, 40), (2, 2)) * 4:
            terminal.resize(*size)
            terminal.read(0.01)
        terminal.resize(80, 24)
        terminal.until(lambda: "slotdeck" in terminal.text and "x Stop" in terminal.text)
        terminal.write(b"qq")
        terminal.until(terminal.ended)
        assert terminal.status == 0


@pytest.mark.parametrize("machine", ["server", "huge"])
def test_cells_written_alone_make_the_same_screen_as_a_full_repaint(machine: str) -> None:
    changes = ("--machine", machine, "--every", "0.05", "--times", "20")
    with Terminal(PANEL, *changes, size=(150, 50)) as terminal:
        terminal.until("load on: 9 streams")
        while terminal.read(0.3) and select.select([terminal.fd], [], [], 0.3)[0]:
            pass  # what follows the header in the same frame
        by_cells = cells(terminal)
        terminal.resize(120, 50)  # cuts the right end off, until it is all painted anew
        terminal.until("x Stop")
        terminal.resize(150, 50)
        terminal.until(lambda: cells(terminal) == by_cells)


def test_an_idle_panel_writes_next_to_nothing() -> None:
    """A map that scrolls must not lay itself out again and again."""
    with Terminal(PANEL, "--machine", "huge", size=(150, 50)) as terminal:
        terminal.until(FIRST)
        terminal.until("old")  # by then nothing has come for three seconds
        before, end = len(terminal.raw), time.monotonic() + 1.5
        while time.monotonic() < end:
            terminal.read()
        assert len(terminal.raw) - before < 4_000


def _row(line: Mapping[int, Char], width: int) -> list[Char]:
    return [line[x] for x in range(width)]


def cells(terminal: Terminal) -> list[list[tuple[str, str, str]]]:
    buffer, size = terminal.screen.buffer, terminal.screen
    return [  # a blank has no ink that anybody sees
        [(c.data, c.fg if c.data != " " else "", c.bg) for c in _row(buffer[y], size.columns)]
        for y in range(1, size.lines)  # the header tells an age
    ]


def test_ascii() -> None:
    with Terminal(PANEL, "--ascii") as terminal:
        terminal.until("* ready")
        shown = [line[1:-1] for line in terminal.screen.display]
        assert any("+- NUMA 0" in line for line in shown)
        terminal.write(b"qq")
        terminal.until(terminal.ended)


def test_a_layout_that_cannot_be_read() -> None:
    with Terminal("-m", "tui", "/no/such/layout.toml") as terminal:
        terminal.until(terminal.ended)
        assert terminal.status == 2
        assert b"/no/such/layout.toml cannot be read: No such file" in terminal.raw


def test_no_panel_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "slotdeck status --watch" in capsys.readouterr().err


def test_no_panel_on_a_dumb_terminal() -> None:
    with Terminal("-m", "tui", TERM="dumb") as terminal:
        terminal.until(terminal.ended)
        assert terminal.status == 1
        assert b"slotdeck status --watch" in terminal.raw
        assert b"\x1b[?1049h" not in terminal.raw


def test_a_fault_ends_it_with_one_plain_message_and_its_details_in_a_file(
    tmp_path: Path,
) -> None:
    with Terminal(PANEL, "--fault", size=(100, 30), HOME=str(tmp_path)) as terminal:
        terminal.until(terminal.ended, 60.0)
        assert terminal.status == 1
        assert is_restored(terminal)
        after = terminal.raw.rpartition(b"\x1b[?1049l")[2].decode()
    (kept,) = (tmp_path / ".local/state/slotdeck/crashes").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "KeyError in tests/tui/scripted_panel.py line" in after
    assert str(kept) in after.replace("\r\n", "")
    assert "1 engine keeps running: chat" in after
    assert "Traceback" not in after
    assert "in handler" in kept.read_text()
    for told in (after, kept.read_text()):
        assert "sk-very-secret" not in told
