"""`slotdeck bench`: levels, schedules, prompts of a file, and words for what cannot be."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.fakes import Fake, starting_fakes
from tests.cli.conftest import ROOT, Said
from tests.processes import eventually

Say = Callable[..., Said]


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    with starting_fakes() as start:
        yield start


@pytest.fixture(scope="module")
def url(fake: Fake) -> str:
    return fake().url


QUICK = ("--requests", "3", "--output-len", "3", "--json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rate", "5", "--concurrency", "2"], "--rate and --concurrency do not go together"),
        (["--arrival", "constant"], "Add --rate R"),
        (["--max-in-flight", "4"], "--max-in-flight cannot be used"),
        (["--concurrency", "1,x"], "a list looks like 1,4"),
        (["--concurrency", "0"], "concurrency must be at least 1"),
        (["--rate", "-1"], "the rate must be above 0"),
        (["--ttft-ms", "0"], "--ttft-ms 0 is no limit"),
        (["--prompts", "p.jsonl", "--input-len", "4"], "lengths of their own"),
        (["--prompts", "missing.jsonl"], "No such file"),
        (["--backend-path", "/x"], "Add --backend"),
        (["--backend", "aiperf", "--backend-path", "/x"], "There is no aiperf at /x"),
    ],
)
def test_what_cannot_be_asked(say: Say, words: list[str], said: str) -> None:
    answer = say("bench", "http://127.0.0.1:1", *words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


def test_several_numbers_of_streams_are_measured_in_turn(say: Say, url: str) -> None:
    answer = say("bench", url, "--concurrency", "1,2", *QUICK, "--seed", "3")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert [row["concurrency"] for row in told["targets"]] == [1, 2]
    assert [one["load"]["seed"] for one in told["manifest"]["levels"]] == [3, 4]
    assert "levels" not in json.loads(say("bench", url, *QUICK).out)["manifest"]


def test_a_schedule_with_limits(say: Say, url: str) -> None:
    limits = ("--ttft-ms", "60000", "--tpot-ms", "60000")
    answer = say("bench", url, "--rate", "50", "--arrival", "constant", *limits, *QUICK)
    (row,) = json.loads(answer.out)["targets"]
    assert (row["concurrency"], row["rate"], row["schedule"]["sent"]) == (None, 50.0, 3)
    assert (row["goodput"]["met"], row["goodput"]["of"]) == (3, 3)


def test_prompts_of_a_file(say: Say, url: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Once"}\n{"messages": [{"role": "user", "content": "Who?"}]}\n')
    answer = say("bench", url, "--prompts", str(path), *QUICK)
    told = json.loads(answer.out)["manifest"]["prompts"]
    assert (told["file"], told["prompts"], told["chats"]) == ("prompts.jsonl", 2, 1)
    assert len(told["sha256"]) == 64


def test_an_interrupt_ends_the_tool_that_measures(fake: Fake, home: Path, tmp_path: Path) -> None:
    """With all its processes: its first one here has a second one that nobody waits for."""
    pids = tmp_path / "pids"
    program = tmp_path / "bin" / "aiperf"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN) if os.fork() == 0 else None\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        "time.sleep(600)\n"
    )
    program.chmod(0o755)
    words = ["--backend", "aiperf", "--backend-path", str(tmp_path), "--tokenizer", "/m"]
    program_text = "import sys; from engine.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program_text, "bench", fake().url, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        eventually(lambda: pids.exists() and len(pids.read_text().splitlines()) == 2)
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
        eventually(lambda: not any(alive(int(pid)) for pid in pids.read_text().splitlines()))
    finally:
        process.kill()
        process.communicate()


def alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is none."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
