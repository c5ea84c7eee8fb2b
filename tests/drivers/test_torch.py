"""The command lines of our worker's two engines."""

from dataclasses import replace
from typing import Any

import pytest

from engine.core.layout import Instance
from engine.drivers.driver import Order
from engine.drivers.ipex import IpexDriver
from engine.drivers.torch import TorchDriver
from engine.drivers.troubles import troubles
from engine.worker.options import parse
from tests.drivers.orders import order


def wish(engine: str, **keys: Any) -> Instance:
    return Instance(name="a", engine=engine, **keys)


def flag(one: Order, name: str) -> str | None:
    argv = TorchDriver().command(one).argv
    return argv[argv.index(name) + 1] if name in argv else None


def test_the_cache_is_as_large_as_planned_where_the_sequences_are_told() -> None:
    told = order(wish("torch", args={"max-num-seqs": 4, "max-model-len": 512}))
    told = replace(told, kv_bytes=123_456_789)
    assert flag(told, "--kv-cache-memory-bytes") == "123456789"
    assert parse(list(TorchDriver().command(told).argv[3:]), api_key=None).kv_cache_bytes == (
        123_456_789
    )
    untold = replace(order(wish("torch")), kv_bytes=123_456_789)
    assert flag(untold, "--kv-cache-memory-bytes") is None
    unknown = order(wish("torch", args={"max-num-seqs": 4}))
    assert flag(unknown, "--kv-cache-memory-bytes") is None


def test_the_layouts_own_cache_counts() -> None:
    args = {"max-num-seqs": 4, "kv-cache-memory-bytes": 1000}
    one = replace(order(wish("torch", args=args)), kv_bytes=123_456_789)
    assert flag(one, "--kv-cache-memory-bytes") == "1000"
    assert TorchDriver().command(one).argv.count("--kv-cache-memory-bytes") == 1


@pytest.mark.parametrize("driver", [TorchDriver(), IpexDriver()])
def test_every_form_that_is_declared_is_one_that_the_worker_takes(driver: TorchDriver) -> None:
    for form in driver.weight_only:
        one = order(wish(driver.name, weight_only=form))
        asked = parse(list(driver.command(one).argv[3:]), api_key=None)
        assert (asked.engine, asked.weight_only) == (driver.name, form)


def test_int8_with_ipex_needs_no_avx512() -> None:
    """The worker takes torch's own kernel where IPEX's is slow; INT4 has no other."""
    plain = replace(order(wish("ipex", weight_only="int8")), cpu_flags=frozenset({"avx2"}))
    assert troubles(plain) == ((), ())
    small = replace(order(wish("ipex", weight_only="int4")), cpu_flags=frozenset({"avx2"}))
    assert "7 times slower" in troubles(small)[0][0]
