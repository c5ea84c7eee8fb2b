"""Weight-only INT8: close to float32, alone and over HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.sizes import agreed, needs_of
from tests.worker.worker_process import Worker

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["onednn", "fbgemm", "bytes"])
@pytest.mark.parametrize("rows", [1, 3, 12, 13, 70])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (100, 7), (1536, 2000)])
def test_a_product_is_close_to_its_float_self(
    name: str, rows: int, inputs: int, outputs: int
) -> None:
    torch = pytest.importorskip("torch")
    from engine.worker.int8 import PRODUCTS, BytesProduct

    if name == "onednn" and "vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no VNNI, and narrower sums overflow")
    torch.manual_seed(rows)
    linear = torch.nn.Linear(inputs, outputs, bias=outputs % 2 == 1)
    states = torch.randn(rows, inputs)
    with torch.inference_mode():
        product = {**PRODUCTS, "bytes": BytesProduct}[name](linear.weight, linear.bias)
        wanted, got = linear(states), product(states)
    assert got.shape == wanted.shape
    assert float((got - wanted).norm() / wanted.norm()) < 0.02
    assert product.nbytes == inputs * outputs


def test_the_parts_of_a_row_are_much_nearer_than_bfloat16() -> None:
    """Also where one value is far larger than all others, and where all are zero."""
    torch = pytest.importorskip("torch")
    from engine.worker.int8 import PRODUCTS, BytesProduct, best_product

    torch.manual_seed(0)
    weight = torch.randn(300, 576)
    states = torch.randn(5, 576)
    states[1, 7], states[2] = 40.0, 0.0
    best = best_product(PRODUCTS)
    assert best is not None
    with torch.inference_mode():
        scale = weight.abs().amax(dim=1) / 127
        levels = (weight / scale[:, None]).round()
        wanted = (states.double() @ levels.double().T * scale.double()).float()
        length = wanted.norm(dim=1).clamp(min=1e-9)
        far = {
            name: (make(weight, None)(states) - wanted).norm(dim=1) / length
            for name, make in (*PRODUCTS.items(), ("bytes", BytesProduct))
        }
    for name in {"fbgemm", best}:  # oneDNN's is right only where the CPU has VNNI
        assert float(far[name].max()) < 0.002
        assert float(far[name].max()) < float(far["bytes"].max()) / 2
        assert not torch.isnan(far[name]).any()


def test_the_quickest_product_that_is_right_is_taken() -> None:
    torch = pytest.importorskip("torch")
    from engine.worker.int8 import best_product
    from engine.worker.linear import PlainProduct

    ticks = iter(range(1_000_000))
    factor = {"slow": 3, "quick": 1, "wrong": 0}
    now = 0.0

    class Timed(PlainProduct):
        """Each product of it takes as long as its name says."""

        name = ""

        def forward(self, rows: Any) -> Any:
            nonlocal now
            now += factor[self.name] + next(ticks) * 1e-9
            made = super().forward(rows)
            return made * 2 if self.name == "wrong" else made

    def named(name: str) -> Any:
        return type(name, (Timed,), {"name": name})

    def absent(weight: Any, bias: Any) -> Any:
        raise NotImplementedError

    candidates = {name: named(name) for name in ("slow", "quick", "wrong")}
    with torch.inference_mode():
        found = best_product({**candidates, "absent": absent}, clock=lambda: now)
        assert found == "quick"
        assert best_product({"absent": absent}, clock=lambda: now) is None


def test_the_whole_model_answers_and_takes_what_was_planned(
    start: Callable[..., Worker], model: Path
) -> None:
    """Weights and cache to the byte (but for the scales), the whole process within a seventh."""
    needs = needs_of(model, weight_only="int8", context=512, sequences=2)
    started = start(
        *("--dtype", "float32", "--weight-only", "int8", "--max-model-len", "512"),
        *("--max-num-seqs", "2", "--kv-cache-memory-bytes", str(needs.kv_bytes)),
    )
    weights, kv_bytes = agreed(started, needs)
    assert weights < 0.5 * 4 * 134e6  # the embedding stays in float32, a quarter of all
    assert kv_bytes == needs.kv_bytes
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

    from engine.worker.int8 import FbgemmProduct
    from engine.worker.packing import pack

    module = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32).eval()
    ids = torch.arange(1000, 1020).unsqueeze(0)
    with torch.inference_mode():
        wanted = module(input_ids=ids).logits
        assert pack(module, FbgemmProduct) == 30 * 7 + 1
        got = module(input_ids=ids).logits
    assert float((got - wanted).norm() / wanted.norm()) < 0.05
    chances, changed = wanted.softmax(-1), got.log_softmax(-1)
    divergence = (chances * (wanted.log_softmax(-1) - changed)).sum(-1)
    assert float(divergence.mean()) < 0.05


MIXTURE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe", "GptOss"])
def test_the_experts_are_packed_too(kind: str) -> None:
    """Stacked plainly, with a gate of another form, and transposed with biases; two of four
    experts a token, and what is left unpacked is no matrix but the embedding and the routers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from engine.core.model.quantization import FORMS
    from engine.core.model.shape import read_shape
    from engine.worker.int8 import FbgemmProduct
    from engine.worker.packing import pack, packed_bytes

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**MIXTURE, tie_word_embeddings=False)
    module = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    tokens = torch.randint(300, (1, 12))
    with torch.inference_mode():
        for parameter in module.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.1)
        wanted = module(input_ids=tokens).logits
        assert pack(module, FbgemmProduct) == 2 * (4 + 1) + 1
        got = module(input_ids=tokens).logits
    assert float((got - wanted).norm() / wanted.norm()) < 0.05
    counted = read_shape(config.to_dict()).parameters
    assert counted is not None
    packed = counted.linear + counted.experts + counted.head
    assert packed_bytes(module) == FORMS["int8"].bytes_of(packed)
    left = sum(parameter.numel() for parameter in module.parameters())
    assert left <= counted.embedding + counted.kept
