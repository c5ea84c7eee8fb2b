"""slotdeck itself on a kernel with four NUMA nodes: what it verifies, repairs and moves.

One guest plays one story (`story.py`), in two or three minutes; the chapters are looked at here.
"""

import json
from typing import Any

import pytest

from tests.numa.booted import PYTHON, ROOT, booted
from tests.numa.guest import Shape
from tests.numa.story import MIB

PAGES = MIB * 256
"""What the engine has at least; Python's own memory comes on top."""
Told = dict[str, Any]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("story")
    booted(
        Shape(sockets=4, cards=()),
        f"cd {ROOT} && {PYTHON} -m tests.numa.story {folder}/told.json",
        work=folder,
        within_s=900,
    )
    read: Told = json.loads((folder / "told.json").read_text())
    return read


def lies_on(chapter: Told, node: str, *, fresh: int = 0) -> bool:
    """Whether all of its own pages lie on one node, by numa_maps, but for a few `fresh` ones."""
    pages: dict[str, int] = chapter["pages"]
    return pages[node] >= PAGES and sum(pages.values()) - pages[node] <= fresh


def test_bound_memory_lands_on_the_asked_node(told: Told) -> None:
    bound = told["bound"]
    assert lies_on(bound, "1")
    assert (bound["pus"], bound["policies"], bound["verified"]) == ("[2]", ["bind:1"], True)


def test_pages_that_went_elsewhere_are_found_and_brought_back(told: Told) -> None:
    gone, repaired = told["pages gone"], told["pages repaired"]
    # It goes on to serve, and what it allocates comes from where it is bound.
    assert lies_on(gone, "3", fresh=32)
    ((what, got),) = gone["check"]["differences"]
    assert what == "pages"
    assert got.startswith("NUMA node 3 has 100.0%")
    assert repaired["check"]["verified"]
    assert lies_on(repaired, "1")
    assert repaired["pid"] == gone["pid"]


def test_threads_that_went_elsewhere_are_found_and_brought_back(told: Told) -> None:
    gone, repaired = told["threads gone"], told["threads repaired"]
    assert gone["check"]["differences"] == [["affinity", "1 thread may run on PU 0"]]
    assert repaired["check"]["verified"]
    assert repaired["pus"] == "[2]"


def test_a_move_carries_threads_policy_and_pages_and_the_requests_go_on(told: Told) -> None:
    before, after = told["bound"], told["moved"]
    assert (after["pid"], after["slot"], after["verified"]) == (
        *(before["pid"], "numa:2/core:0", True),
    )
    assert lies_on(after, "2")
    assert (after["pus"], after["policies"]) == ("[4]", ["bind:2"])
    how = after["how"]
    assert how["live"] == ["a"]
    assert "its pages move from NUMA node 1 to 2" in how["consequences"][0]
    assert how["tokens"] == 40
    assert "1 thread and" in how["moved"][0]
    # What it allocates later comes from the new node too.
    later = told["had more memory"]
    assert lies_on(later, "2")
    assert later["pages"]["2"] > after["pages"]["2"] + 16 * 256 - 64
    assert later["check"]["verified"]


def test_locked_memory_moves_as_well_and_a_second_time(told: Told) -> None:
    locked = told["locked and moved"]
    assert (locked["slot"], locked["verified"], locked["pus"]) == ("numa:0/core:1", True, "[1]")
    assert lies_on(locked, "0")
    assert locked["policies"] == ["bind:0"]
    assert locked["how"]["tokens"] == 40


def test_a_service_killed_in_the_middle_leaves_what_a_repair_brings_back(told: Told) -> None:
    died, repaired = told["died"], told["died, repaired"]
    assert set(died["middle"]) == {"0", "3"}
    # The journal knows the old place until all is done.
    assert (died["slot"], died["verified"]) == ("numa:0/core:1", False)
    assert {what for what, _ in died["check"]["differences"]} >= {"affinity", "pages"}
    assert (repaired["check"]["verified"], repaired["pus"]) == (True, "[1]")
    assert lies_on(repaired, "0")
    assert repaired["policies"] == ["bind:0"]
    assert repaired["pid"] == told["bound"]["pid"]


def test_the_group_of_a_first_move_goes_with_an_engine_whose_service_died_in_it(
    told: Told,
) -> None:
    died = told["died in its first move"]
    assert set(died["middle"]) == {"1", "2"}
    (group,) = told["its group"]
    assert group.startswith("slotdeck-")
    assert told["its group left"] == []


def test_a_move_that_finds_no_room_goes_back(told: Told) -> None:
    full = told["no room"]
    assert (full["slot"], full["pus"], full["verified"]) == ("numa:0/core:1", "[1]", True)
    assert "not moved to numa:3/core:0: NUMA node 3 has no room for more" in full["why"]
    assert lies_on(full, "0")
    assert full["policies"] == ["bind:0"]
    assert told["groups left"] == []


def test_local_memory_follows_the_threads_and_preferred_needs_a_restart(told: Told) -> None:
    local = told["local moved"]
    assert lies_on(local, "2")
    assert (local["pus"], local["verified"], local["how"]["live"]) == ("[4]", True, ["a"])
    assert told["preferred"]["consequences"][0] == (
        "a: moves by a restart: what it allocates later would still come from NUMA node 1 "
        "(preferred)"
    )
