"""What slotdeck says and does about memory that goes wrong, on a kernel with two NUMA nodes.

One guest plays one story (`troubles_story.py`), in one or two minutes. A file's pages lie where it
was first read, whatever is bound later: the guest's disk holds "weights" that node 0 has read.
"""

import json
from typing import Any

import pytest

from tests.numa.booted import PYTHON, ROOT, booted
from tests.numa.guest import Shape
from tests.numa.story import MIB as MIB_OF_AN_ENGINE

MIB = 80
PAGES = MIB * 256
Told = dict[str, Any]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder, disk = tmp_path_factory.mktemp("story"), tmp_path_factory.mktemp("disk")
    (disk / "weights.bin").write_bytes(bytes(range(256)) * (MIB << 12))
    booted(
        # The counters count a huge page as one.
        Shape(cards=(), boot="transparent_hugepage=never"),
        f"cd {ROOT} && {PYTHON} -m tests.numa.troubles_story {folder}/told.json",
        work=folder,
        within_s=900,
        disk=disk,
    )
    read: Told = json.loads((folder / "told.json").read_text())
    return read


def test_counters_tell_local_memory_from_remote(told: Told) -> None:
    counted = told["counted"]
    assert set(counted["pages"]) == {"1"}
    own = MIB_OF_AN_ENGINE * 256
    # Programs around it take memory too, but far less.
    assert counted["bound"]["local_node"] >= own
    assert counted["bound"]["other_node"] < own / 4
    # Bound across, all comes from where it was asked (hits), and none of it is local.
    assert counted["across"]["other_node"] >= own
    assert counted["across"]["numa_miss"] < own / 4
    local, hits = counted["shown"]
    assert local < 0.5
    assert hits > 0.9


@pytest.mark.parametrize(
    ("chapter", "was", "asked"), [("mapped by 1", "0", "1"), ("mapped by 2", "1", "0")]
)
def test_mapped_weights_on_the_wrong_node_are_found_and_moved(
    told: Told, chapter: str, was: str, asked: str
) -> None:
    before, after = told[chapter]["before"], told[chapter]["after"]
    # Bound or not, they stay where they were read first.
    assert before["pages"] == {was: PAGES}
    assert not before["verified"]
    ((what, got, do),) = before["differences"]
    assert what == "file pages"
    assert got.startswith(f"NUMA node {was} has ")
    assert "--repair` moves them" in do
    assert after["pages"] == {asked: PAGES}
    assert (after["verified"], after["differences"]) == (True, [])


def test_weights_that_another_program_has_mapped_stay_until_it_ends(told: Told) -> None:
    shared, alone = told["shared"]["shared"], told["shared"]["alone"]
    assert shared["pages"] == {"0": PAGES}
    ((what, _, do),) = shared["differences"]
    assert what == "file pages"
    assert f"(pid {told['shared']['stranger']}) mapped the same" in do
    assert "give each NUMA node a copy of its own" in do
    assert any("stayed: other programs have them" in words for words in shared["repaired"])
    assert alone["pages"] == {"1": PAGES}
    assert alone["verified"]


def test_an_engine_larger_than_its_node_ends_with_the_cause_in_words(told: Told) -> None:
    why = told["too large"]["why"]
    assert why.startswith("ended by signal 9: memory ran out: the kernel ended ")
    assert "because the NUMA nodes of its memory policy were full. Choose" in why


def test_a_cpuset_that_became_narrow_voids_the_plan_and_narrows_the_next(told: Told) -> None:
    narrowed = told["narrowed"]
    assert narrowed["said"].startswith("This offer is no longer good: the machine or")
    assert (narrowed["pus"], narrowed["asked"]) == ("[2]", "2")
    assert narrowed["verified"]
