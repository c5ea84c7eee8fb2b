"""Real engines through the real service: pinned, ready, asked, verified, and wholly gone."""

import asyncio
import json
import shutil
import sys

import pytest

from engine.drivers.openai_api import post_json
from tests.bundled_model import bundled_model
from tests.engines.real import (
    PUS,
    WITHIN_S,
    answer_of,
    bring_up,
    installed_python,
    layout_of,
    slotdeck,
    statuses,
    take_down,
    threads_of,
)
from tests.processes import Home, eventually

needs_two_pus = pytest.mark.skipif(len(PUS) < 2, reason="two instances need a PU each")


@pytest.mark.parametrize(
    ("engine", "keys"),
    [
        ("vllm-cpu", {"dtype": "bfloat16"}),
        ("vllm-cpu", {"dtype": "float32"}),
        ("ipex", {"dtype": "bfloat16"}),
        ("ipex", {"dtype": "float32"}),
        ("ipex-llm", {"weight_only": "sym_int4"}),
        ("ipex-llm", {"dtype": "bfloat16"}),
        ("torch", {"dtype": "bfloat16"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()),
)
async def test_an_engine_runs_pinned_answers_and_leaves_nothing(
    home: Home, engine: str, keys: dict[str, str]
) -> None:
    file, ports = layout_of(home, engine, PUS[-1:], **keys)
    one = bring_up(home, file)["i0"]
    assert threads_of(one["pid"]) == {str(PUS[-1])}
    # Its own names for metrics are understood. What comes after a first look stands in the status.
    eventually(lambda: statuses(home)["i0"]["kv_cache_used"] is not None, within_s=60)
    text, end = await answer_of(home, "i0", max_tokens=48)
    assert text.strip()
    assert end.output_tokens > 0
    eventually(lambda: statuses(home)["i0"]["itl_ms"]["p50"], within_s=60)
    take_down(home, [one["pid"]], ports)


async def test_made_up_weights_in_the_shape_of_a_config_generate(home: Home) -> None:
    bare = home.folder / "only-a-config"
    bare.mkdir()
    shutil.copy(bundled_model() / "config.json", bare)
    file, ports = layout_of(
        *(home, "vllm-cpu", PUS[-1:]), weights="dummy", model=str(bare), dtype="bfloat16"
    )
    one = bring_up(home, file)["i0"]
    # Without a tokenizer prompts and answers are numbers.
    asked = {"model": "only-a-config", "prompt": [1, 2, 3], "max_tokens": 8, "ignore_eos": True}
    answer = await post_json(f"{one['url']}/v1/completions", asked, timeout_s=WITHIN_S)
    assert answer.status == 200, answer.body
    assert answer.json()["usage"]["completion_tokens"] == 8
    take_down(home, [one["pid"]], ports)


@needs_two_pus
async def test_two_of_vllm_side_by_side_outlive_their_service(home: Home) -> None:
    file, ports = layout_of(home, "vllm-cpu", PUS[:2], dtype="bfloat16")
    before = bring_up(home, file)
    pids = [before[name]["pid"] for name in ("i0", "i1")]
    assert [threads_of(pid) for pid in pids] == [{str(pu)} for pu in PUS[:2]]
    answers = await asyncio.gather(answer_of(home, "i0"), answer_of(home, "i1"))
    assert all(text.strip() for text, _ in answers)

    bench = slotdeck(home, "bench", "i0", "i1", "--requests", "4", "--output-len", "16", "--json")
    assert bench.returncode == 0, bench.stderr
    targets = json.loads(bench.stdout)["targets"]
    assert [one["errors"] for one in targets] == [0, 0]
    assert all(one["output_tokens_per_s"] > 1 for one in targets), targets
    sys.stderr.write(f"{[one['output_tokens_per_s'] for one in targets]} tokens/s\n")

    refused = slotdeck(home, "engines", "remove", "vllm-cpu")
    assert refused.returncode == 1
    assert "vllm-cpu is in use" in refused.stderr
    assert "instance i0, i1" in refused.stderr

    await home.kill_service()
    again = slotdeck(home, "up", str(file))
    assert again.returncode == 0, again.stderr
    after = statuses(home)
    assert [after[name]["pid"] for name in ("i0", "i1")] == pids
    assert all(one["state"] == "ready" for one in after.values())
    take_down(home, pids, ports)


@pytest.mark.parametrize("engine", ["vllm-cpu", "ipex", "ipex-llm", "torch"])
def test_a_check_starts_the_engine_and_asks_a_token(home: Home, engine: str) -> None:
    python = installed_python(engine)
    check = slotdeck(home, "engines", "check", engine, "--json")
    assert check.returncode == 0, check.stderr
    report = json.loads(check.stdout)
    assert report["ok"]
    assert report["python"] == str(python)
    assert report["instructions"].startswith("AVX")
    assert report["trial"]["text"].strip()
    sys.stderr.write(f"{report['trial']}\n")
    assert home.engines() == []
    eventually(lambda: not home.processes())
