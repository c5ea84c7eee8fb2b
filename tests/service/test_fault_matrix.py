"""The fault matrix: what may befall, at each stage of an engine's life, and what comes of it.

A cell is one fault that strikes while an engine starts, is ready with a stream, or stops, beside a
ready one with a stream. In every cell: no engine is lost and none is there twice, no stranger is
signalled, the journal is whole, and streams of engines that nothing has befallen go on without a
gap. The three cells of a row are played at once, each in a home of its own.
"""

import ast
import asyncio
from pathlib import Path

import pytest

from tests.service import faults
from tests.service.scenes import STAGES

SAME = "goes on, the same process"
MATRIX = {
    # fault                                      what comes of the engine
    faults.the_service_is_killed: SAME,
    faults.the_service_runs_out_of_memory: SAME,
    faults.several_services_start_at_once: SAME,
    faults.the_panel_is_killed: SAME,
    faults.the_terminal_is_closed: SAME,
    faults.the_link_is_cut: SAME,
    faults.the_engine_is_killed: "failed, or stopped where it was to stop",
    faults.the_engine_is_paused: SAME,
    faults.the_disk_of_the_log_is_full: SAME,
    faults.the_disk_of_the_journal_is_full: SAME,
    faults.the_disk_of_the_socket_is_full: SAME,
    faults.the_disk_fails_while_the_journal_is_written: SAME,
    faults.the_clock_jumps: SAME,
    faults.the_machine_was_restarted: "stopped, nobody is signalled",
    faults.its_number_becomes_a_strangers: "failed or stopped, the stranger lives",
}

ELSEWHERE = {
    # In files of their own: what cuts a stage short, and what it comes to at the end.
    "test_survival.py": (
        "a_start_cut_anywhere_ends_with_one_engine",
        "the_next_service_finishes_a_stop",
        "an_exit_that_nobody_saw_is_learned_from_the_shim",
        "without_its_shim_an_engine_goes_on_and_its_exit_is_unknown",
        "a_journal_that_cannot_be_read_is_kept_aside",
        "the_journal_of_another_host_is_left_alone",
        "a_deleted_lock_makes_no_second_service",
        "a_deleted_socket_is_made_again",
        "after_the_last_logout_engines_are_still_looked_after",
    ),
    "test_bad_engines.py": (
        "a_ready_engine_that_crashes_comes_back",
        "one_that_never_gets_ready_fails",
        "a_stopped_engine_ends_too",
        "a_port_that_is_taken_during_a_back_off_is_waited_for",
    ),
    "test_full_disk.py": (
        "a_start_on_a_full_disk_is_refused_and_leaves_nothing",
        "a_stop_needs_no_room_on_the_disk",
    ),
}

Played = dict[str, dict[str, BaseException | None]]


@pytest.fixture(scope="module")
def played() -> Played:
    return {}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", MATRIX, ids=lambda fault: fault.__name__)
def test_cell(fault: faults.Fault, stage: str, played: Played) -> None:
    if (name := fault.__name__) not in played:
        played[name] = asyncio.run(faults.play(fault))
    if (error := played[name][stage]) is not None:
        raise error


def test_every_fault_has_a_row_and_every_test_that_is_named_is_there() -> None:
    folder = Path(__file__).parent
    tree = ast.parse((folder / "faults.py").read_text())
    written = {
        one.name
        for one in tree.body
        if isinstance(one, ast.AsyncFunctionDef) and [a.arg for a in one.args.args][-1] == "stage"
    }
    assert written == {fault.__name__ for fault in MATRIX}
    for file, names in ELSEWHERE.items():
        text = (folder / file).read_text()
        assert not [name for name in names if f"def test_{name}(" not in text]
