"""`slotdeck bench --offline`: words for what cannot be, and the real worker on its slot."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundled_model import bundled_model
from tests.cli.conftest import ROOT, Said
from tests.processes import eventually

Say = Callable[..., Said]


def layout(folder: Path, *lines: str, engine: str = "torch", slot: str = "pu:0") -> str:
    path = folder / "l.toml"
    common = [f'slot = "{slot}"', f'engine = "{engine}"', *lines]
    head = ["schema = 1", 'name = "offline"', "[[instance]]", 'name = "a"']
    path.write_text("\n".join([*head, *common]))
    return str(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--offline", "--concurrency", "4"], "--concurrency is for load over HTTP only"),
        (["--offline", "--duration", "4"], "Leave --duration out"),
        (["--batch-size", "4"], "or add --offline"),
        (["--offline", "--batch-size", "one"], "a list looks like 1,4"),
        (["--offline", "--batch-size", "0"], "must be at least 1"),
        (["--offline", "--num-iter", "0"], "must be at least 1"),
    ],
)
def test_options_that_do_not_go_together(say: Say, words: list[str], said: str) -> None:
    answer = say("bench", "l.toml", *words)
    assert answer.code == 2
    assert said in answer.err


def test_engines_that_have_no_such_mode(say: Say, tmp_path: Path) -> None:
    target = layout(tmp_path, 'command = ["sleep", "{port}"]', engine="command")
    answer = say("bench", "--offline", target)
    assert answer.code == 2
    assert "its engine is command" in answer.err
    assert "slotdeck bench NAME" in answer.err


def test_a_name_that_the_layout_does_not_have(say: Say, tmp_path: Path) -> None:
    target = layout(tmp_path, 'command = ["sleep", "{port}"]', engine="command")
    answer = say("bench", "--offline", f"{target}:b")
    assert answer.code == 2
    assert "it has: a" in answer.err


def test_a_slot_that_is_not_there(say: Say, tmp_path: Path) -> None:
    target = layout(tmp_path, 'model = "m"', slot="pu:9999")
    answer = say("bench", "--offline", target)
    assert answer.code in (2, 3)
    assert "9999" in answer.err


@pytest.mark.torch
def test_the_worker_is_measured_on_its_slot(say: Say, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model, pu = bundled_model(), max(os.sched_getaffinity(0))
    target = layout(
        tmp_path,
        f'model = "{model}"',
        'weight_only = "int8"',
        "args = { max-model-len = 128 }",
        slot=f"pu:{pu}",
    )
    words = ["--batch-size", "1,2", "--output-len", "11", "--num-iter", "5", "--num-warmup", "1"]
    answer = say("bench", "--offline", f"{target}:a", *words, "--json")
    assert answer.code == 0, answer.err
    made = json.loads(answer.out)
    assert made["schema"] == "slotdeck.offline/1"
    (one,) = made["instances"]
    assert (one["name"], one["pus"]) == ("a", str(pu))
    assert one["manifest"]["engine"]["affinity"] == str(pu)
    assert one["manifest"]["engine"]["weight_only"] == "int8"
    assert [batch["batch_size"] for batch in one["batches"]] == [1, 2]
    for batch in one["batches"]:
        assert batch["next_token_ms"]["count"] == 50
        assert batch["next_token_ms"]["p90"] >= batch["next_token_ms"]["p50"] > 0
        assert batch["first_token_ms"]["p90"] is None
        assert batch["output_tokens_per_s"] > 0


@pytest.mark.torch
def test_a_worker_that_cannot_measure_says_why(say: Say, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    target = layout(tmp_path, f'model = "{bundled_model()}"', "args = { max-model-len = 16 }")
    answer = say("bench", "--offline", target)
    assert answer.code == 1
    assert "the context is 16 tokens" in answer.err
    assert "Start it by hand" in answer.err


@pytest.mark.torch
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_stays_behind_when_it_is_interrupted(
    home: Path, tmp_path: Path, number: signal.Signals
) -> None:
    pytest.importorskip("torch")
    target = layout(tmp_path, f'model = "{bundled_model()}"')
    program = "import sys; from engine.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "bench", "--offline", target, "--num-iter", "9999"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # noqa: TID251 -- a test's own
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wanted = f"--offline\0{tempfile.gettempdir()}".encode()

    def workers() -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes()
                if wanted in words and str(bundled_model()).encode() in words:
                    found.append(int(folder.name))
        return found

    eventually(workers)
    process.send_signal(number)
    assert process.wait(timeout=30) == 130
    eventually(lambda: not workers())
