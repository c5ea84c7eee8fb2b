"""The `ipex-llm` driver on CPUs: what was seen to die is refused, and its KV cache is sized."""

from dataclasses import replace
from typing import Any

import pytest

from engine.core.errors import LayoutError
from engine.core.layout import Instance
from engine.drivers.ipex_llm import IpexLlmDriver, low_bit_of_args
from tests.drivers.orders import A770, order

DRIVER = IpexLlmDriver()
_GIB = 1 << 30


def wish(**keys: Any) -> Instance:
    return Instance(name="a", engine="ipex-llm", model="m", **keys)


def test_float16_weights_are_refused_on_cpus_alone() -> None:
    with pytest.raises(LayoutError, match="dies at the first request"):
        DRIVER.command(order(wish(dtype="float16")))
    for one in (
        order(wish(dtype="float16"), cards=(A770,)),
        order(wish(dtype="float16", weight_only="sym_int4")),
        # Whoever writes the flag itself may have it.
        order(wish(dtype="float16", args={"load_in_low_bit": "fp16"})),
        order(wish()),
    ):
        assert DRIVER.command(one).argv


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, None),
        ({"load-in-low-bit": "fp8"}, "fp8"),
        ({"load_in_low_bit": "sym_int8"}, "sym_int8"),
        ({"max-model-len": 8}, None),
    ],
)
def test_args_win_over_weight_only(args: dict[str, Any], said: str | None) -> None:
    one = wish(weight_only="sym_int4", args=args)
    assert low_bit_of_args(one) == said
    argv = DRIVER.command(order(one)).argv
    assert argv[argv.index("--load-in-low-bit") + 1] == (said or "sym_int4")


@pytest.mark.parametrize(
    ("args", "kv_gib", "space"),
    [
        ({}, None, "4"),
        ({}, 9.5, "10"),
        # It fills all of it with zeros when it starts: four times as much is four times taken.
        ({"max-model-len": 512, "max-num-seqs": 2}, 0.1, "1"),
    ],
)
def test_its_kv_cache_is_as_large_as_it_needs(
    args: dict[str, Any], kv_gib: float | None, space: str
) -> None:
    kv_bytes = None if kv_gib is None else int(kv_gib * _GIB)
    one = replace(order(wish(args=args)), kv_bytes=kv_bytes)
    assert DRIVER.command(one).env["VLLM_CPU_KVCACHE_SPACE"].value == space
