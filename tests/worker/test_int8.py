"""Weight-only INT8: close to float32, alone and over HTTP."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.worker_process import Worker

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("rows", [1, 3, 12, 13, 40])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (100, 7), (1536, 2000)])
def test_a_layer_is_close_to_its_float_self(rows: int, inputs: int, outputs: int) -> None:
    torch = pytest.importorskip("torch")
    from engine.worker.int8 import Int8Linear

    torch.manual_seed(rows)
    linear = torch.nn.Linear(inputs, outputs, bias=outputs % 2 == 1)
    states = torch.randn(2, rows, inputs)[:1]
    with torch.inference_mode():
        wanted, got = linear(states), Int8Linear(linear)(states)
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    assert float((got - wanted).norm() / wanted.norm()) < 0.02


def test_the_whole_model_answers_and_weighs_a_quarter(start: Callable[..., Worker]) -> None:
    started = start("--dtype", "float32", "--weight-only", "int8")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    status, made = started.post(
        "/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 40}
    )
    assert status == 200
    assert "Paris" in made["choices"][0]["message"]["content"]
    metrics = started.metrics()
    # The embedding stays in float32, its twin at the end has bytes of its own.
    assert metrics["slotdeck:token_read_bytes"] < 140e6
    together = started.complete(["The sun", "Water boils at"] * 2, max_tokens=8)
    texts = [choice["text"] for choice in together["choices"]]
    assert texts[:2] == texts[2:]


def test_logits_are_close_to_float32(model: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    from engine.worker.int8 import quantise

    module = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32).eval()
    ids = torch.arange(1000, 1020).unsqueeze(0)
    with torch.inference_mode():
        wanted = module(input_ids=ids).logits
        assert quantise(module) == 30 * 7 + 1
        got = module(input_ids=ids).logits
    assert float((got - wanted).norm() / wanted.norm()) < 0.05
    chances, changed = wanted.softmax(-1), got.log_softmax(-1)
    divergence = (chances * (wanted.log_softmax(-1) - changed)).sum(-1)
    assert float(divergence.mean()) < 0.05
