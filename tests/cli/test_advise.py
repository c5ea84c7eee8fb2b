"""What `slotdeck plan --advise` prints and writes, with which exit code."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.layout import parse_layout
from tests.cli.conftest import Said
from tests.core.model_configs import LLAMA_31_8B, SMOLLM2_135M

Say = Callable[..., Said]
CARDS = "pack:1 core:16 pu:2 mem:128GiB gpu:2*16GiB"
NODES = "pack:2 numa:2 core:16 pu:2 mem:64GiB"


@pytest.fixture
def model(home: Path) -> str:
    return with_config(home / "some" / "llama-8b", LLAMA_31_8B)


def with_config(folder: Path, config: dict[str, Any]) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def advised(say: Say, *words: str) -> dict[str, Any]:
    said = say("plan", *words, "--json")
    assert said.err == ""
    answer: dict[str, Any] = json.loads(said.out)
    assert said.code == (0 if answer["advice"] else 3)
    return answer


def refused(said: Said, *words: str) -> None:
    assert (said.code, said.out) == (2, "")
    for word in ("why:", "do:", *words):
        assert word in said.err


def test_the_text_fits_80_columns_and_may_be_copied(say: Say, model: str) -> None:
    for goal in ("throughput", "latency"):
        for machine in (CARDS, NODES):
            said = say("plan", "--advise", model, "--goal", goal, "--synthetic", machine)
            assert (said.code, said.err) == (0, "")
            lines = said.out.splitlines()
            assert max(len(line) for line in lines if model not in line) <= 80
            start = lines.index(next(line for line in lines if line.startswith("1. ")))
            copied = []
            for line in lines[start + 1 :]:
                if line.startswith("   because "):
                    break
                copied.append(line)
            layout = parse_layout("\n".join(copied), name="copied")
            assert layout.name in lines[start]
            for word in ("because ", "not known: nothing was measured", "next: ", "cores"):
                assert word in said.out


def test_json(say: Say, model: str) -> None:
    answer = advised(say, "--advise", model, "--synthetic", CARDS)
    assert answer["schema"] == "slotdeck.advice/1"
    assert (answer["model"], answer["goal"]) == (model, "throughput")
    assert "2 GPUs of 16.0 GiB" in answer["machine"]
    best = answer["advice"][0]
    assert set(best) == {
        *("title", "layout", "reasons", "warnings", "replicas", "fits", "per_replica"),
    }
    assert best["title"] == "One replica per card, FP8 weights"
    assert best["replicas"] == 2
    assert best["fits"] is True
    each = best["per_replica"]
    assert (each["cores"], each["cards"], each["card_bytes"]) == (8, 1, 16 << 30)
    assert each["needs_bytes"] <= 0.9 * each["card_bytes"]
    assert each["memory_bytes"] is None
    assert tomllib.loads(best["layout"])["instance"][0]["model"] == model
    assert answer["unknown"]
    assert answer == advised(say, "--advise", model, "--synthetic", CARDS)


def test_a_model_too_large_is_words_with_numbers_and_exit_code_3(say: Say, model: str) -> None:
    small = "pack:1 core:4 mem:4GiB"
    said = say("plan", "--advise", model, "--synthetic", small)
    assert (said.code, said.err) == (3, "")
    assert "not: One instance on all cores, INT8 weights: needs 9.1 GiB" in said.out
    assert "nothing fits this machine" in said.out
    answer = advised(say, "--advise", model, "--synthetic", small)
    assert [set(one) for one in answer["rejected"]] == [{"title", "why", "do"}]


def test_every_proposal_plans_and_can_be_written(say: Say, model: str, home: Path) -> None:
    answer = advised(say, "--advise", model, "--goal", "latency", "--synthetic", CARDS)
    for number, one in enumerate(answer["advice"], 1):
        file = home / f"{number}.toml"
        said = say(
            *("plan", "--advise", model, "--goal", "latency", "--synthetic", CARDS),
            *("--write", str(number), str(file)),
        )
        assert (said.code, said.err) == (0, "")
        assert said.out.startswith(f"{file}: {one['title']}")
        text = file.read_text()
        assert text.startswith(f"# {one['title']}, proposed by")
        assert max(map(len, (line for line in text.splitlines() if model not in line))) <= 99
        plan = say("plan", str(file), "--synthetic", CARDS, "--json")
        assert plan.code == 0
        assert len(json.loads(plan.out)["placements"]) == one["replicas"]


def test_a_file_that_is_there_is_kept_unless_forced(say: Say, model: str, home: Path) -> None:
    file = home / "mine.toml"
    file.write_text("# mine\n")
    words = ("plan", "--advise", model, "--synthetic", CARDS, "--write", "1", str(file))
    said = say(*words)
    assert (said.code, said.out) == (1, "")
    assert "--force" in said.err
    assert file.read_text() == "# mine\n"
    assert say(*words, "--force").code == 0
    assert "[[instance]]" in file.read_text()


def test_what_cannot_be_written(say: Say, model: str, home: Path) -> None:
    words = ("plan", "--advise", model, "--synthetic", CARDS, "--write")
    for number in ("0", "9", "-1", "one", "²"):
        refused(say(*words, number, str(home / "n.toml")), "1 to 3")
    said = say(*words, "1", str(home / "nowhere" / "n.toml"))
    assert said.code == 1
    assert "was not written" in said.err
    small = ("plan", "--advise", model, "--synthetic", "pack:1 core:4 mem:4GiB")
    said = say(*small, "--write", "1", str(home / "n.toml"))
    assert (said.code, said.out) == (3, "")
    assert "9.1 GiB" in said.err
    assert not list(home.glob("*.toml"))


def test_a_relative_model_is_found_from_any_file(say: Say, model: str, home: Path) -> None:
    answer = advised(say, "--advise", "./some/llama-8b", "--synthetic", CARDS)
    assert answer["model"] == model


def test_usage(say: Say, model: str) -> None:
    refused(say("plan"), "neither a layout file nor --advise")
    refused(say("plan", "l.toml", "--advise", model), "Leave one of them out")
    refused(say("plan", "l.toml", "--goal", "latency"), "--goal belongs to --advise")
    refused(say("plan", "l.toml", "--write", "1", "f"), "--write belongs to --advise")
    refused(say("plan", "--advise", model, "--goal", "fame"), "fame")
    refused(say("plan", "--advise", model, "--context", "0"), "--context")
    refused(say("plan", "--advise", model, "--sequences", "many"), "--sequences")
    refused(say("plan", "--advise", model, "--engine", "tourch"), "Did you mean 'torch'?")
    refused(say("plan", "--advise", model, "--engine", "command"), "nothing is known")


def test_models_that_are_not_here(say: Say) -> None:
    answer = advised(say, "--advise", "owner/name", "--synthetic", CARDS)
    assert answer["advice"][0]["fits"] is None
    assert any("size" in line for line in answer["unknown"])
    # For another machine a directory need not be here either; for this one it must be.
    elsewhere = advised(say, "--advise", "/models/m", "--synthetic", NODES)
    assert 'engine = "torch"' in elsewhere["advice"][0]["layout"]
    assert advised(say, "--advise", "bundled:smollm2-135m", "--synthetic", NODES)["advice"]
    said = say("plan", "--advise", "/models/m")
    assert (said.code, said.out) == (1, "")


def test_what_an_engine_only_tells_itself_is_told_too(say: Say, model: str) -> None:
    answer = advised(
        say,
        *("--advise", model, "--engine", "vllm-xpu", "--context", "100000"),
        *("--synthetic", "pack:1 core:8 gpu:1*16GiB mem:64GiB"),
    )
    assert any("INT4" in one["title"] for one in answer["advice"]) or answer["rejected"]
    pair = advised(
        say, "--advise", model, "--goal", "latency", "--engine", "vllm-cpu", "--synthetic", NODES
    )
    split = next(one for one in pair["advice"] if "(TP2)" in one["title"])
    assert "tensor-parallel-size = 2" in split["layout"]


def test_on_this_machine(say: Say, home: Path) -> None:
    """Whatever it is: something is answered, and a written file names the machine."""
    tiny = with_config(home / "tiny", SMOLLM2_135M)
    answer = advised(say, "--advise", tiny)
    assert answer["advice"] or answer["rejected"]
    if answer["advice"]:
        assert say("plan", "--advise", tiny, "--write", "1", "here.toml").code == 0
        assert "[expect]" in (home / "here.toml").read_text()
