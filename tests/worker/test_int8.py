"""Weight-only INT8: close to float32, alone and over HTTP."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.worker_process import Worker

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("means", ["parts", "parts, widened", "bytes"])
@pytest.mark.parametrize("rows", [1, 3, 12, 13, 40, 70])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (100, 7), (1536, 2000)])
def test_a_layer_is_close_to_its_float_self(
    means: str, rows: int, inputs: int, outputs: int
) -> None:
    torch = pytest.importorskip("torch")
    from engine.worker.int8 import Int8Linear, Means

    widen_from = {torch.float32: 13} if means.endswith("widened") else {}
    how = Means(means.partition(",")[0], widen_from, second_copy=bool(widen_from))

    torch.manual_seed(rows)
    linear = torch.nn.Linear(inputs, outputs, bias=outputs % 2 == 1)
    states = torch.randn(2, rows, inputs)[:1]
    with torch.inference_mode():
        layer = Int8Linear(linear.weight, linear.bias, how)
        wanted, got = linear(states), layer(states)
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    assert float((got - wanted).norm() / wanted.norm()) < 0.02


def test_the_parts_of_a_row_are_much_nearer_than_bfloat16(model: Path) -> None:
    """Also where one value is far larger than all others, and where all are zero."""
    torch = pytest.importorskip("torch")
    from engine.worker.int8 import Int8Linear, Means

    torch.manual_seed(0)
    weight = torch.randn(300, 576)
    states = torch.randn(5, 576)
    states[1, 7], states[2] = 40.0, 0.0
    with torch.inference_mode():
        scale = weight.abs().amax(dim=1) / 127
        levels = (weight / scale[:, None]).round()
        wanted = (states.double() @ levels.double().T * scale.double()).float()
        far = {
            name: (Int8Linear(weight, None, Means(name, {}))(states) - wanted).norm(dim=1)
            / wanted.norm(dim=1).clamp(min=1e-9)
            for name in ("parts", "bytes")
        }
    assert float(far["parts"].max()) < 0.002
    assert float(far["parts"].max()) < float(far["bytes"].max()) / 2
    assert not torch.isnan(far["parts"]).any()


def test_the_means_are_found_by_measuring() -> None:
    pytest.importorskip("torch")
    from engine.worker.int8 import measured_means

    found = measured_means(second_copy=False)
    assert found.name in ("parts", "bytes")
    assert "widened" not in str(found)


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

    from engine.worker.int8 import Means, quantise

    module = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32).eval()
    ids = torch.arange(1000, 1020).unsqueeze(0)
    with torch.inference_mode():
        wanted = module(input_ids=ids).logits
        assert quantise(module, Means("parts", {})) == 30 * 7 + 1
        got = module(input_ids=ids).logits
    assert float((got - wanted).norm() / wanted.norm()) < 0.05
    chances, changed = wanted.softmax(-1), got.log_softmax(-1)
    divergence = (chances * (wanted.log_softmax(-1) - changed)).sum(-1)
    assert float(divergence.mean()) < 0.05
