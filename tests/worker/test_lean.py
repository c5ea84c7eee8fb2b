"""The lean path against transformers' own, for each kind of model that it knows."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from engine.worker.kv_cache import LeanCache  # noqa: E402
from engine.worker.lean import LeanModel, NotKnown, why_not  # noqa: E402
from engine.worker.linear import quick_product  # noqa: E402

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {}),
    ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    ("Mistral", {"sliding_window": None}),
    ("Qwen2", {}),
    ("Qwen3", {"head_dim": 16}),
]


def made(kind: str, more: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **more})
    module = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.1)
    return module


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_logits_are_those_of_transformers(kind: str, more: dict[str, Any]) -> None:
    """A prompt in pieces, then token by token; then rows of different lengths together."""
    module = made(kind, more)
    tokens = torch.randint(300, (1, 20))
    with torch.inference_mode():
        wanted = module(input_ids=tokens).logits[0]
        lean = LeanModel(module, module.config, max_length=64, make=quick_product)
        assert lean.why_not_compiled is None
        cache = LeanCache(max_rows=2, max_length=64)
        cache.add_row()
        begin = 0
        for count in (9, 6, 1, 1, 1):
            end = begin + count
            seen = torch.arange(end) <= torch.arange(begin, end).unsqueeze(1)
            mask = torch.zeros(seen.shape).masked_fill_(~seen, -1e30)[None, None]
            cache.aim(0, 1, count)
            got = lean.logits(
                tokens[:, begin:end],
                torch.arange(begin, end).unsqueeze(0),
                mask if begin and count > 1 else None,
                cache,
            )
            cache.advance()
            assert torch.allclose(got[0], wanted[end - 1], rtol=1e-4, atol=1e-3)
            begin = end
        cache.add_row()
        cache.aim(1, 2, 4)
        lean.logits(tokens[:, :4], torch.arange(4).unsqueeze(0), None, cache)
        cache.advance()
        lengths = torch.tensor([[18], [4]])
        seen = torch.arange(19) <= lengths
        mask = torch.zeros(seen.shape).masked_fill_(~seen, -1e30)[:, None, None]
        cache.aim(0, 2, 1)
        got = lean.logits(tokens[0, lengths], lengths, mask, cache)
        assert torch.allclose(got, wanted[[18, 4]], rtol=1e-4, atol=1e-3)


def test_many_prompts_of_one_length_go_together() -> None:
    module = made("Llama", {})
    tokens = torch.randint(300, (3, 7))
    with torch.inference_mode():
        wanted = module(input_ids=tokens).logits[:, -1]
        lean = LeanModel(module, module.config, max_length=64, make=quick_product)
        cache = LeanCache(max_rows=3, max_length=64)
        for _ in range(3):
            cache.add_row()
        cache.aim(0, 3, 7)
        got = lean.logits(tokens, torch.arange(7).expand(3, 7), None, cache)
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("GPT2", {}, "GPT2LMHeadModel is not one of"),
        ("Llama", {"hidden_act": "gelu"}, "its activation is gelu"),
        (
            "Llama",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rotary embedding is of the kind dynamic",
        ),
    ],
)
def test_what_is_not_known_is_told(kind: str, more: dict[str, Any], reason: str) -> None:
    config = getattr(transformers, f"{kind}Config")(**({**SIZES, **more} if more else {}))
    name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    with torch.device("meta"):
        module = getattr(transformers, name)(config)
    assert reason in (why_not(module, config) or "")
    with pytest.raises(NotKnown, match=reason):
        LeanModel(module, config, max_length=64, make=quick_product)


def test_the_bundled_model_says_the_same_words(model: Path) -> None:
    """Greedy, in float32, as transformers' own generate."""
    module = transformers.AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    prompt = torch.arange(1000, 1020).unsqueeze(0)
    with torch.inference_mode():
        wanted = module.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=24,
            min_new_tokens=24,
        )[0, 20:].tolist()
        lean = LeanModel(module, module.config, max_length=64, make=quick_product)
        cache = LeanCache(max_rows=1, max_length=64)
        cache.add_row()
        tokens, places = prompt, torch.arange(20).unsqueeze(0)
        got = []
        for number in range(24):
            cache.aim(0, 1, tokens.shape[1])
            logits = lean.logits(tokens, places, None, cache)
            logits[:, [0, 1, 2]] = -torch.inf  # min_new_tokens keeps the end away
            tokens = logits.argmax(dim=-1, keepdim=True)
            cache.advance()
            places = torch.tensor([[20 + number]])
            got.append(int(tokens))
    assert got == wanted
