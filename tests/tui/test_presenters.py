"""Presenters: aligned columns, honest dashes, reasons in words; no name can break them."""

from dataclasses import replace

import pytest

from engine.control import (
    AnswerEnd,
    ApplyLayout,
    Change,
    MoveInstance,
    Offer,
    StartInstances,
    StartLoad,
    StopInstances,
    StopLoad,
)
from engine.core.placement import Refusal
from engine.core.status import (
    GpuUse,
    Happening,
    InstanceStatus,
    Latency,
    LoadStatus,
    MemoryBinding,
    State,
    TokenRates,
)
from tests.tui.machines import GIB, SERVER, SMALL
from tests.tui.scripted_control import AT, REFUSED, instance, placement, snapshot, two_instances
from tui.present.answer import measured, progress
from tui.present.badges import Badge, badges
from tui.present.details import long_details, short_details
from tui.present.farewell import farewell
from tui.present.footer import footer_line
from tui.present.glyphs import ASCII, UNICODE, Glyphs
from tui.present.happenings import Event, chosen_events, event_lines, fresh
from tui.present.header import header_line
from tui.present.help_text import help_lines
from tui.present.ink import Span, cut, line_width, plain
from tui.present.instance_row import (
    ALL_COLUMNS,
    COLUMNS,
    DROP_ORDER,
    Column,
    fitting,
    head_row,
    instance_row,
)
from tui.present.offer_text import change_title, is_empty, offer_lines
from tui.view import Connection, View

BLANK = InstanceStatus(
    name="",
    engine="",
    model="",
    slot="",
    state=State.STARTING,
    why="",
    pid=None,
    port=None,
    url=None,
    started_at=None,
    restarts=0,
    pus="",
    memory=MemoryBinding("", ""),
)
WILD = replace(
    BLANK,
    name="\x1b[31m模型\u202e[bold]x" * 9,
    slot="core:" + ",".join(str(at) for at in range(200)),
    why="line\nbreak \x1b]0;x\x07 [red]not markup[/] " * 9,
    pus="0-\x1b[1m",
    tokens_per_s=TokenRates(1e300, float("nan")),
    ttft_ms=Latency(1e12, float("inf")),
    rss_bytes=1 << 62,
    restarts=10**12,
    cpu_cores_used=-1.0,
    pages_local=17.0,
    unknown={"\x1b[2J": "\x1b[2J", "itl_ms": "one\ntwo"},
    url="http://\x1b[31m",
)
ODD_ONES = (BLANK, WILD, *two_instances())
BADGE = Badge("c", 0)


def live(*instances: InstanceStatus, **changes: object) -> View:
    moment = snapshot(SMALL, instances or two_instances(), **changes)
    selected = moment.instances[0].name if moment.instances else None
    return View(SMALL, moment, Connection.LIVE, arrived_at=100.0, selected=selected)


def is_safe(text: str) -> bool:
    return not any(ord(char) < 32 or 127 <= ord(char) < 160 or char == "\u202e" for char in text)


# The table


@pytest.mark.parametrize("width", [1, 8, 12, 24, 40, 76, 120, 196])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_rows_stand_under_their_heads(width: int, glyphs: Glyphs) -> None:
    columns = fitting(ODD_ONES, width)
    head = head_row(columns)
    for each in ODD_ONES:
        row = instance_row(each, columns, BADGE, glyphs, selected=False)
        assert line_width(row) == line_width(head)
        assert is_safe(plain(row))


@pytest.mark.parametrize("columns", [COLUMNS, ALL_COLUMNS], ids=["board", "all"])
def test_columns_go_in_a_fixed_order(columns: tuple[Column, ...]) -> None:
    there_are = {column.id for column in columns}
    order = [each for each in (*DROP_ORDER, "state") if each in there_are]
    for width in range(260, 10, -1):
        shown = {column.id for column in fitting(two_instances(), width, columns).shown}
        gone = there_are - shown
        assert gone == set(order[: len(gone)])
    assert shown == {"name"}


def test_unknown_is_a_dash_and_its_reason_is_told() -> None:
    failed = two_instances()[1]
    row = plain(instance_row(failed, fitting([failed], 160), BADGE, UNICODE, selected=False))
    assert "–" in row
    assert "nan" not in row
    lines = [plain(line) for line in short_details(failed, BADGE, 100, UNICODE)]
    assert "model file not found" in lines[0]
    assert "local %: its process is gone" in lines[1]
    everything = "\n".join(plain(line) for line in long_details(failed, BADGE, 60, UNICODE))
    assert "no requests in 30 s" in everything


def test_what_it_takes_of_each_gpu() -> None:
    card = instance(
        "card",
        "gpu:0,1",
        "0",
        gpus=(0, 1),
        gpu_use=(
            GpuUse(0, 5 * GIB, 0.6, {"copy": 0.004, "compute": 0.6}),
            GpuUse(1, why="none of its processes has it open"),
        ),
    )
    lines = [plain(line) for line in long_details(card, BADGE, 90, UNICODE)]
    at = next(at for at, line in enumerate(lines) if "GPUs" in line)
    assert lines[at].endswith("gpu 0: 5.0 GiB · busy 60 % (compute 60 %)")
    assert lines[at + 1].endswith("gpu 1: – · busy –: none of its processes has it open")


def test_a_difference_comes_before_what_is_unknown() -> None:
    each = instance("a", "core:0", "0", verified=False, unknown={"itl_ms": "no requests"})
    lines = [plain(line) for line in short_details(each, BADGE, 100, UNICODE)]
    assert "differs from what was asked" in lines[1]


@pytest.mark.parametrize("width", [0, 1, 10, 40, 80, 200])
@pytest.mark.parametrize("each", ODD_ONES, ids=["blank", "wild", "ready", "failed"])
def test_details_survive_anything(each: InstanceStatus, width: int) -> None:
    for line in (
        *short_details(each, BADGE, width, UNICODE),
        *long_details(each, BADGE, width, UNICODE),
    ):
        assert is_safe(plain(line))
    for line in long_details(each, BADGE, width, ASCII):
        assert plain(line).isascii()


def test_nothing_selected() -> None:
    assert "nothing selected" in plain(short_details(None, None, 40, UNICODE)[0])
    assert "nothing selected" in plain(long_details(None, None, 40, UNICODE)[0])


def test_badges_are_unlike_and_speak_of_the_name() -> None:
    made = badges(["chat", "coder", "a", "b1", "c", "模型"])
    letters = [badge.letter for badge in made.values()]
    assert len(set(letters)) == len(letters)
    assert (made["a"].letter, made["c"].letter, made["chat"].letter) == ("a", "c", "h")
    many = badges(f"i{at}" for at in range(70))
    assert many["i69"].letter == "#"


# Header and footer


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
def test_header_fits(width: int) -> None:
    view = live(load=LoadStatus(("a", "b"), 4, 1, 30.0))
    text = plain(header_line(view, width, 101.0, UNICODE))
    if width >= 80:
        assert len(text) == width
        assert "load on: 8 streams, 30 s left" in text
        assert "live" in text
    assert plain(header_line(view, width, 101.0, ASCII)).isascii()


def test_header_tells_age_and_loss() -> None:
    assert "live, but 7 s old" in plain(header_line(live(), 120, 107.0, UNICODE))
    gone = replace(live(), connection=Connection.GONE)
    assert "service gone — reconnecting" in plain(header_line(gone, 120, 107.0, UNICODE))
    assert "read-only" in plain(header_line(replace(live(), readonly=True), 120, 100.0, UNICODE))
    assert "connecting" in plain(header_line(View(), 120, 0.0, UNICODE))


def test_footer_keeps_stop_apart_and_clicks_land() -> None:
    line, keys = footer_line(live(), 80)
    text = plain(line)
    assert len(text) == 80
    assert text.rstrip().endswith("x Stop")
    for key in keys:
        assert text[key.x : key.x + key.width].strip()
    stop = next(key for key in keys if key.action == "stop")
    before = max(key.x + key.width for key in keys if key.action != "stop")
    assert stop.x - before > 5
    assert footer_line(live(), 80, carrying=True)[1] == ()
    assert line_width(footer_line(live(), 30)[0]) <= 40


# Offers

CHANGES: list[tuple[Change, str]] = [
    (ApplyLayout("two.toml", "", "/"), "Apply the layout two.toml"),
    (StartInstances(("a", "b")), "Start a, b"),
    (StopInstances(("a",)), "Stop a"),
    (StopInstances(("a",), forget=True), "Forget a"),
    (MoveInstance("a", "numa:1"), "Move a to numa:1"),
    (StartLoad(("a",)), "Send load to a"),
    (StopLoad(), "End the load"),
    (MoveInstance("\x1b[31ma", "\x07x"), "Move a to x"),
]


@pytest.mark.parametrize(("change", "title"), CHANGES)
def test_titles(change: Change, title: str) -> None:
    assert change_title(change) == title


def test_an_offer_says_all_its_parts() -> None:
    offer = Offer(
        "1",
        starts=(placement("new", "numa:0", SMALL),),
        stops=("old",),
        moves=(replace(placement("chat", "core:1", SMALL), gpus=(0, 1), warnings=("far",)),),
        keeps=("rest",),
        consequences=("chat: 2 requests in flight have 30 s to finish",),
    )
    text = "\n".join(plain(line) for line in offer_lines(StopLoad(), offer, 70, UNICODE))
    for part in (
        "starts  new on numa:0 → PUs 0-1",
        "because the slot asks for it",
        "moves  chat on core:1",
        "GPUs 0,1",
        "warning  far",
        "stops  old",
        "keeps  rest as they are",
        "2 requests in flight",
    ):
        assert part in text, part
    assert not is_empty(offer)


def test_an_empty_offer_and_a_refused_one() -> None:
    empty = "\n".join(plain(line) for line in offer_lines(StopLoad(), Offer("1"), 60, UNICODE))
    assert "Nothing would change" in empty
    assert is_empty(Offer("1"))
    lines = offer_lines(MoveInstance("chat", "core:1"), REFUSED, 60, UNICODE)
    assert "refused  chat: 2 GiB more memory needed" in plain(lines[0])
    load = offer_lines(StartLoad(("chat",)), Offer("1"), 80, UNICODE)
    assert "32 tokens in, 96 out" in plain(load[0])


@pytest.mark.parametrize("width", [16, 40, 90])
def test_offers_survive_wild_words(width: int) -> None:
    wild = replace(placement(WILD.name, WILD.slot, SMALL), reasons=(WILD.why,))
    offer = Offer("1", starts=(wild,), refusals=(Refusal(WILD.name, WILD.why, ""),))
    for line in offer_lines(StopLoad(), offer, width, ASCII):
        assert is_safe(plain(line))
        assert plain(line).isascii()


# Answers, events, help, farewell


def test_measured_answers() -> None:
    assert measured(AnswerEnd(61.0, 24.1, 64, 41.5, "length")) == (
        "TTFT 61 ms · ITL 24.1 ms mean · 41.5 tokens/s · 64 tokens · ended: length"
    )
    assert measured(AnswerEnd(None, None, 1, None, None)) == (
        "TTFT – · ITL – · – tokens/s · 1 token · ended: not told"
    )
    assert progress(1, 1500.0) == "1 token after 1.5 s"


def test_two_equal_happenings_are_two() -> None:
    one = Happening(AT, "error", "chat crashed")
    other = Happening(AT, "warning", "backoff")
    assert fresh([one], [one, one, other]) == (one, other)
    assert fresh([one, other], [other]) == ()


def test_events_are_newest_first_and_safe() -> None:
    rows = [
        Event(AT, "error", "first \x1b[31m"),
        Event("2026-01-03T00:00:00Z", "odd", "second " * 30, "panel"),
    ]
    shown = chosen_events(rows, words="", least="information")
    lines = [plain(line) for line in event_lines(shown, 60, UNICODE)]
    assert "2026-01-03 UTC" in lines[0]
    assert "panel" in lines[1]
    assert "03:04:05 error    service first" in lines[-1]
    assert all(is_safe(line) for line in lines)
    assert "Nothing of the kind" in plain(event_lines((), 60, UNICODE)[0])


@pytest.mark.parametrize(
    ("words", "least", "texts"),
    [
        ("", "information", ["late", "warn", "early"]),
        ("", "warning", ["late", "warn"]),
        ("", "error", ["late"]),
        ("!late", "information", ["warn", "early"]),
        ("panel", "information", ["warn"]),
        ("EAR", "information", ["early"]),
    ],
)
def test_events_are_chosen_by_words_and_severity(words: str, least: str, texts: list[str]) -> None:
    events = [
        Event("2026-01-01T00:00:01", "information", "early"),
        Event("2026-01-01T00:00:03", "error", "late"),
        Event("2026-01-01T00:00:02", "warning", "warn", "panel"),
    ]
    assert [each.text for each in chosen_events(events, words=words, least=least)] == texts


def test_help_says_why_a_key_does_not_work() -> None:
    text = "\n".join(plain(line) for line in help_lines(live(), 70, UNICODE))
    assert "not now: chat is already ready" in text
    assert "Shift+drag" in text
    assert all(plain(line).isascii() for line in help_lines(View(), 70, ASCII))


def test_farewell() -> None:
    assert farewell(None).startswith("Nothing keeps running")
    text = farewell(snapshot(SMALL, two_instances()))
    assert text == (
        "1 engine keeps running: chat (ready, http://127.0.0.1:8001).\n"
        "`slotdeck` opens this again, `slotdeck down --all` stops them."
    )
    many = tuple(instance(f"i{at}", "core:0", "0") for at in range(12))
    assert "and 4 more" in farewell(snapshot(SERVER, many))
    assert "12 engines keep running" in farewell(snapshot(SERVER, many))


def test_cut_lines() -> None:
    line = (Span("abc"), Span("def", "x"))
    assert plain(cut(line, 6, "…")) == "abcdef"
    assert plain(cut(line, 5, "…")) == "abcd…"
    assert cut(line, 0, "…") == ()
