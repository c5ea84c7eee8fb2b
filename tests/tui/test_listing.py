"""Which instances are listed in which order; layouts, commands and checks as lines."""

from pathlib import Path

import pytest

from engine.control import CommandLine, Difference, Verified
from engine.core.command import Explained
from engine.core.status import State
from engine.layout_folders import found_layouts, shipped_folder
from tests.tui.scripted_control import instance
from tui.present.checks_text import checks_lines
from tui.present.command_text import command_lines
from tui.present.glyphs import ASCII, UNICODE
from tui.present.ink import line_width, plain
from tui.present.layout_list import file_lines, layout_head, layout_rows
from tui.present.listing import Listing, matches

ROWS = (
    instance("a10", "numa:1", "1", rss_bytes=5, model="qwen"),
    instance("a2", "numa:0", "0", rss_bytes=None, state=State.FAILED),
    instance("b", "numa:0", "0", rss_bytes=7),
)


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        (Listing(), ["a10", "a2", "b"]),
        (Listing(descending=True), ["b", "a2", "a10"]),
        (Listing(sorted_by="name"), ["a2", "a10", "b"]),
        (Listing(sorted_by="rss"), ["a10", "b", "a2"]),
        (Listing(sorted_by="rss", descending=True), ["b", "a10", "a2"]),
        (Listing(sorted_by="no such column"), ["a10", "a2", "b"]),
        (Listing("numa:0"), ["a2", "b"]),
        (Listing("NUMA:0 !failed"), ["b"]),
        (Listing("qwen"), ["a10"]),
        (Listing("nothing has this"), []),
    ],
)
def test_listing(listing: Listing, names: list[str]) -> None:
    assert [each.name for each in listing.of(ROWS)] == names


def test_words() -> None:
    assert matches("anything", "")
    assert matches("a ! b", "!")
    assert not matches("abc", "!b")


@pytest.mark.parametrize("width", [20, 76, 190])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_a_command_line_has_its_sources_beside_it(width: int, glyphs: object) -> None:
    told = CommandLine(
        "OMP_NUM_THREADS=8 numactl -C 0-7 -m 0 vllm serve",
        (
            Explained("program", "", "vllm serve \x1b[31m", "driver: vllm-cpu"),
            Explained("flag", "--max-model-len", "2048 " * 30, "layout"),
            Explained("variable", "HF_TOKEN", "(redacted)", "layout"),
        ),
    )
    lines = command_lines(told, width, glyphs)  # type: ignore[arg-type]
    text = "\n".join(plain(line) for line in lines)
    assert "\x1b" not in text
    if width >= 76:
        for words in ("numactl", "--max-model-len", "HF_TOKEN", "(redacted)"):
            assert words in text
        assert all(line_width(line) <= width for line in lines)
        assert "driver: vllm-cpu" in text


def test_checks_say_what_differs_and_what_to_do() -> None:
    each = instance("a", "core:1", "1")
    found = Verified(
        "a", False, (Difference("affinity", "PU 1", "PU 0", "Run `verify --repair`"),)
    )
    text = "\n".join(plain(line) for line in checks_lines(each, found, 70, UNICODE))
    for words in ("affinity", "asked", "PU 1", "got", "PU 0", "Run `verify --repair`"):
        assert words in text
    fine = checks_lines(each, Verified("a", True), 76, UNICODE)
    assert "all as asked for" in "\n".join(plain(line) for line in fine)
    assert "looking at" in "\n".join(plain(line) for line in checks_lines(each, None, 70, UNICODE))


def test_layouts_of_the_user_come_first(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("# Two lines\n# of comment.\nschema = 1\nname = 'Mine'\n")
    (tmp_path / "broken.toml").write_text("name = [\n")
    (tmp_path / "notes.txt").write_text("no layout")
    opened = tmp_path / "sub" / "opened.toml"
    opened.parent.mkdir()
    opened.write_text("schema = 1\n")
    found = found_layouts(tmp_path, [opened, tmp_path / "gone.toml"])
    own = [each for each in found if each.is_own]
    assert [each.path.name for each in own] == ["broken.toml", "mine.toml", "opened.toml"]
    assert (own[1].name, own[1].idea) == ("Mine", "Two lines of comment.")
    assert "it is not TOML" in own[0].problem
    shipped = [each for each in found if not each.is_own]
    assert len(shipped) == len(list(shipped_folder().glob("*.toml"))) > 10
    assert all(each.idea and not each.problem for each in shipped)
    rows = layout_rows(found, 76, UNICODE, running=str(opened), selected=1)
    text = [plain(row) for row in rows]
    assert text[1].startswith("▌")
    assert "● " in text[2]
    assert "yours" in text[0]
    assert "cannot be read" in text[0]
    assert all(line_width(row) == 76 for row in rows)
    assert "of comment." in "\n".join(plain(line) for line in layout_head(own[1], 60, UNICODE))
    assert plain(file_lines(own[1].text, 60, UNICODE)[3]) == "name = 'Mine'"


def test_a_folder_that_is_not_there() -> None:
    assert found_layouts(Path("/no/such/folder")) == found_layouts(None)
