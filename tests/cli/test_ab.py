"""`slotdeck ab` on real services with fake engines of known speed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, Home, a_home, eventually

# The rule by which a starved client voids a pair is tested elsewhere; here all share few cores.
PROGRAM = (
    "import sys; import engine.bench.health as h; h.RUNQUEUE_LIMIT = h.CPU_LIMIT = 99; "
    "from engine.cli.main import main; sys.exit(main())"
)
SHORT = ("--output-len", "5", "--requests", "3", "--input-len", "2")
QUICK, SLOW = ["--itl-ms", "2"], ["--itl-ms", "10"]
KEYS = {
    *("schema", "metrics", "pairs", "void", "noise_floor", "sentence", "manifest"),
    *("arms", "aa", "break_even", "stop", "paired", "texts"),
}
ROW = {"name", "unit", "better", "a", "b", "ratio", "ci95", "verdict", "smallest_detectable"}


needs_two_pus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="two arms side by side need a PU each"
)


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as one:
        yield one


def file(home: Home, title: str, *instances: dict[str, Any]) -> str:
    path = home.folder / f"{title}.toml"
    path.write_text(home.layout(*instances, name=title).text)
    return str(path)


def slotdeck(home: Home, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=home.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def interrupted(home: Home, *words: str, once: str) -> "subprocess.CompletedProcess[str]":
    """Ctrl-C as soon as it has said that."""
    errors = home.folder / "errors"
    with errors.open("w") as told:
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env=home.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            start_new_session=True,
        )
    try:
        eventually(lambda: once in errors.read_text() or child.poll() is not None)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    finally:
        child.kill()
        child.communicate()
    return subprocess.CompletedProcess(words, child.returncode, out, errors.read_text())


def running(home: Home) -> dict[str, Any]:
    answer = slotdeck(home, "status", "--json")
    return {one["name"]: one for one in json.loads(answer.stdout)["instances"]}


def rows(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in answer["metrics"]}


@needs_two_pus
def test_side_by_side_a_real_difference_is_found_and_nothing_is_left(home: Home) -> None:
    slow = file(home, "slow", {"name": "a", "slot": "core:0", "flags": SLOW})
    quick = file(home, "quick", {"name": "a", "slot": "core:1", "flags": QUICK})
    saved = home.folder / "saved.json"
    words = ("--pairs", "6", "--aa-pairs", "2", *SHORT, "--seed", "1", "--output", str(saved))
    done = slotdeck(home, "ab", slow, quick, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert "fit side by side" in done.stderr
    assert "B (quick): a-b on core:1" in done.stderr, "both are called a"
    assert "load generator on " in done.stderr
    assert ", 6 of 6 valid): TTFT ×" in done.stderr
    assert "done: " in done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == KEYS
    assert all(set(row) >= ROW for row in answer["metrics"])
    assert (answer["schema"], answer["pairs"], answer["void"]) == ("slotdeck.ab/1", 6, [])
    itl = rows(answer)["itl_ms"]
    assert (itl["verdict"], itl["better"], itl["unit"]) == ("better", "lower", "ms")
    assert itl["ratio"] < 0.8
    assert rows(answer)["output_tokens_per_s_per_core"]["unit"] == "tokens/s/core"
    assert "quick" in answer["sentence"]
    assert "faster" in answer["sentence"] or "as fast" in answer["sentence"]
    assert (answer["texts"]["same"], answer["texts"]["differing"]) == (4, 0)
    assert answer["manifest"]["side_by_side"]
    assert answer["manifest"]["served"] == {"a": ["fake"], "b": ["fake"]}
    (wish,) = answer["manifest"]["arm_a"]["wishes"]
    assert (wish["name"], wish["engine"], wish["slot"]) == ("a", "command", "core:0")
    assert running(home) == {}

    blocks = json.loads(saved.read_text())["blocks"]
    assert (len(blocks["aa"]), len(blocks["pairs"])) == (2, 6)
    apart = slotdeck(home, "ab", "--from", str(saved), str(saved), "--json")
    assert apart.returncode == 0, apart.stderr
    again = json.loads(apart.stdout)
    assert again["paired"] is False
    assert rows(again)["itl_ms"]["verdict"] == "better"
    assert "weaker than pairs" in again["sentence"]


def test_replacing_finds_it_too_and_puts_back_what_ran(home: Home) -> None:
    before = file(home, "before", {"name": "x", "slot": "core:0", "flags": ["--itl-ms", "1"]})
    assert slotdeck(home, "up", before).returncode == 0
    was = running(home)["x"]
    quick = file(home, "quick", {"name": "x", "slot": "core:0", "flags": QUICK})
    slow = file(home, "slow", {"name": "x", "slot": "core:0", "flags": SLOW})

    words = ("--pairs", "6", "--aa-pairs", "0", *SHORT, "--metric", "itl_ms")
    refused = slotdeck(home, "ab", quick, slow, *words)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "what belongs to neither arm: x" in refused.stderr
    assert running(home)["x"]["pid"] == was["pid"]

    done = slotdeck(home, "ab", quick, slow, *words, "--yes")
    assert done.returncode == 0, done.stderr
    assert "one replaces the other" in done.stderr
    assert "x is stopped, and started again at the end" in done.stderr
    assert "a start takes " in done.stderr
    assert "itl_ms" in done.stdout
    assert "worse" in done.stdout
    assert "ttft_ms" not in done.stdout
    now = running(home)
    assert set(now) == {"x"}
    assert (now["x"]["state"], now["x"]["slot"]) == ("ready", was["slot"])
    assert now["x"]["pid"] != was["pid"]
    command = Path(f"/proc/{now['x']['pid']}/cmdline").read_bytes().split(b"\0")
    assert command[-3:-1] == [b"--itl-ms", b"1"], "not one of the arms that had its name"


def test_a_layout_against_itself_shows_no_difference(home: Home) -> None:
    """Chance finds one in 5 % of comparisons, so that three in a row would be a fault."""
    same = file(home, "same", {"name": "a", "slot": "core:0", "flags": SLOW})
    told = []
    for seed in ("1", "2", "3"):
        words = ("--pairs", "6", "--aa-pairs", "0", *SHORT, "--metric", "itl_ms")
        done = slotdeck(home, "ab", same, same, *words, "--seed", seed, "--json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["arms"] == {"a": "A", "b": "B"}
        told.append(answer["sentence"])
        if rows(answer)["itl_ms"]["verdict"] not in ("better", "worse"):
            return
    raise AssertionError(told)


@needs_two_pus
def test_ctrl_c_keeps_what_was_measured_and_puts_back_what_ran(home: Home) -> None:
    mine = file(home, "mine", {"name": "a", "slot": "core:0", "flags": SLOW})
    other = file(home, "other", {"name": "b", "slot": "core:1", "flags": QUICK})
    assert slotdeck(home, "up", mine).returncode == 0
    done = interrupted(
        home,
        *("ab", mine, other, "--aa-pairs", "0", *SHORT, "--pairs", "200", "--json"),
        once="pair 2 (",
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    answer = json.loads(done.stdout)
    assert answer["pairs"] >= 2
    assert answer["stop"] == "it was interrupted"
    now = running(home)
    assert set(now) == {"a"}
    assert now["a"]["state"] == "ready"


def test_max_time_ends_it_and_an_arm_that_fails_is_told(home: Home) -> None:
    good = file(home, "good", {"name": "a", "slot": "core:0", "flags": QUICK})
    bad = file(home, "bad", {"name": "b", "slot": "core:0", "flags": ["--die-on-start", "no"]})
    done = slotdeck(home, "ab", good, bad, "--aa-pairs", "0", *SHORT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "b did not start" in done.stderr
    assert running(home) == {}
    assert not (home.paths.state / "before-ab.toml").exists()

    other = file(home, "other", {"name": "b", "slot": "core:0", "flags": QUICK})
    done = slotdeck(home, "ab", good, other, "--aa-pairs", "0", *SHORT, "--max-time", "0.5")
    assert done.returncode == 0, done.stderr
    assert "would not end within the 0.5 s" in done.stdout
    assert "Not enough to tell" in done.stdout
    levels = ("--max-time", "0.001", "--concurrency", "1,2", "--json")
    none = slotdeck(home, "ab", good, other, *SHORT, *levels)
    assert none.returncode == 0, none.stderr
    assert "comparison 2 of 2: good (A), other (B), 2 streams" in none.stderr
    each = json.loads(none.stdout)["comparisons"]
    assert [one["manifest"]["load"]["concurrency"] for one in each] == [1, 2]
    assert all(one["sentence"].startswith("Not enough to tell good from other") for one in each)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("--pairs", "5"), 2, "5 pairs can never exclude luck"),
        (("--metric", "speed"), 2, "there is no metric 'speed'"),
        (("--aa-pairs", "1"), 2, "2 A/A pairs or more"),
        (("--output", "/no/such/folder/x.json"), 2, "there is no folder for"),
        (("--requests", "0"), 2, "requests must be at least 1"),
        (("--concurrency", "1,x"), 2, "--concurrency '1,x' is no list of numbers"),
        (("--concurrency", "8,0"), 2, "concurrency must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    home: Home, words: tuple[str, ...], code: int, why: str
) -> None:
    a = file(home, "a", {"name": "a", "slot": "core:0"})
    done = slotdeck(home, "ab", a, a, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert why in done.stderr
    assert home.processes() == []


def test_a_slot_that_is_not_here_is_3(home: Home) -> None:
    a = file(home, "a", {"name": "a", "slot": "core:0"})
    b = file(home, "b", {"name": "b", "slot": "core:99999"})
    done = slotdeck(home, "ab", a, b)
    assert (done.returncode, done.stdout) == (3, "")
    assert "not core 99999" in done.stderr
    assert running(home) == {}


def test_one_card_or_two_takes_one_layout_and_a_gpu(home: Home) -> None:
    one = file(home, "one", {"name": "x", "slot": "core:0"})
    for words, why in (
        ([one], "--single-dual NAME for one card against two"),
        ([one, one, "--single-dual", "x"], "--single-dual takes one layout"),
        ([one, "--single-dual", "y"], "it has: x"),
        ([one, "--single-dual", "x"], "its slot core:0 is no GPU"),
    ):
        done = slotdeck(home, "ab", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr
    assert running(home) == {}


def test_published_runs_of_one_and_two_cards(home: Home) -> None:
    """Two saved files with three runs each, as `slotdeck bench … --json >>` writes them."""
    figures = {"one card": (100.48, 15.19), "two cards": (69.22, 21.78)}
    paths = []
    for name, (ttft, tpot) in figures.items():
        path = Path(home.folder / f"{name}.json")
        path.write_text("\n".join(bench(ttft * by, tpot * by) for by in (0.998, 1.0, 1.002)))
        paths.append(str(path))
    done = slotdeck(home, "ab", "--from", *paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "Two cards answer 31 % sooner and write 43 % slower; for answers over 5 tokens one card "
        "wins. The runs were measured apart, which is weaker than pairs."
    )
    single = [home.folder / "one.json", home.folder / "two.json"]
    for path, (ttft, tpot) in zip(single, figures.values(), strict=True):
        path.write_text(bench(ttft, tpot))
    done = slotdeck(home, "ab", "--from", *map(str, single))
    assert done.returncode == 0
    assert "one run each: no interval" in done.stdout
    assert "0.689" in done.stdout

    for text, why in (
        ("{", "not JSON"),
        ('{"schema": "x"}', "its schema is 'x'"),
        ("", "no block"),
    ):
        single[0].write_text(text)
        done = slotdeck(home, "ab", "--from", *map(str, single))
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr


def bench(ttft: float, tpot: float) -> str:
    def summary(value: float) -> dict[str, float | None]:
        return {"mean": value, "p50": value, "p90": None, "p99": None}

    target = {
        "name": "a",
        "url": "http://127.0.0.1:8000",
        "concurrency": 1,
        "rate": None,
        "requests": 10,
        "errors": 0,
        "ttft_ms": summary(ttft),
        "itl_ms": summary(tpot),
        "tpot_ms": summary(tpot),
        "e2e_ms": summary(ttft + 99 * tpot),
        "output_tokens_per_s": 100_000 / (ttft + 99 * tpot),
        "total_tokens_per_s": None,
    }
    client = {"cpu_share": 0.01, "runqueue_wait_share": 0.0, "limited": False}
    whole = {"schema": "slotdeck.bench/1", "targets": [target], "client": client, "manifest": {}}
    return json.dumps(whole)
