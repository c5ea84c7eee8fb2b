"""What drivers write and read, against what real engines say of themselves."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.command import is_secret
from engine.core.layout import FLAG, Instance, parse_layout
from engine.core.metrics import first_of, parse_metrics, quantile
from engine.drivers.driver import VLLM_METRICS
from engine.drivers.registry import DRIVERS
from engine.drivers.vllm import REFUSED_ARGS, REFUSED_BY_NEW, REFUSED_ON_CPU
from tests.drivers.orders import A770, B60, order
from tests.shared import needs

CAPTURES = Path(__file__).parent.parent / "captures"
LENGTHS = {"max-model-len": 8, "max-num-batched-tokens": 16, "max-num-seqs": 2}


def cut_flags(name: str) -> dict[str, bool]:
    """Flag -> whether it takes a value."""
    lines = (CAPTURES / name).read_text().splitlines()
    return {line.split()[0]: " " in line for line in lines}


def help_flags(text: str) -> dict[str, bool]:
    """The same from the text of `vllm serve --help=all`."""
    found: dict[str, bool] = {}
    for line in text.splitlines():
        if re.match(r"  -\S", line):
            for one in re.split(r", (?=-)", re.split(r"\s{2,}", line.strip())[0]):
                flag, _, value = one.partition(" ")
                found[flag] = bool(value)
    return found


def written_flags() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every flag that the drivers of the vLLM family write, with the words that follow it."""
    for engine in ("vllm-cpu", "vllm-xpu", "ipex-llm"):
        driver = DRIVERS[engine]
        for weight_only in driver.weight_only:
            for cards in ((), (A770,), (B60, B60)):
                if (driver.device == "cpu" and cards) or (driver.device == "gpu" and not cards):
                    continue
                ranks = {} if cards else {"tensor-parallel-size": 2}
                wish = Instance(
                    name="a",
                    engine=engine,
                    weight_only=weight_only,
                    trust_remote_code=True,
                    args={**LENGTHS, **ranks},
                )
                argv = driver.command(order(wish, cards=cards)).argv
                starts = [at for at, word in enumerate(argv) if word.startswith("--")]
                for at, end in zip(starts, [*starts[1:], len(argv)], strict=True):
                    yield engine, argv[at:end]


def check(known: dict[str, bool], engines: set[str]) -> int:
    count = 0
    for engine, (flag, *values) in written_flags():
        if engine in engines:
            count += 1
            assert flag in known, flag
            assert bool(values) == known[flag], flag
            assert len(values) <= 1, flag
    return count


def test_vllm_knows_the_flags_that_are_written_for_it() -> None:
    assert check(cut_flags("vllm-0.32-serve.flags.txt"), {"vllm-cpu", "vllm-xpu"}) > 80


def test_ipex_llm_knows_the_flags_that_are_written_for_it() -> None:
    assert check(cut_flags("ipex-llm-2.2.0-vllm-0.6.6.flags.txt"), {"ipex-llm"}) > 100


def test_the_whole_help_of_vllm_agrees_with_the_cut() -> None:
    known = help_flags(needs("captures/vllm-0.32-serve-help.txt").read_text())
    assert check(known, {"vllm-cpu", "vllm-xpu"}) > 80
    cut = cut_flags("vllm-0.32-serve.flags.txt")
    assert {flag: known.get(flag) for flag in cut} == cut
    gone = set(REFUSED_BY_NEW) - set(REFUSED_ARGS)
    gone = {name for name in gone if "does not know it" in REFUSED_BY_NEW[name].why}
    assert len(gone) == 5
    assert not gone & {flag.removeprefix("--") for flag in known}


def test_llama_cpps_server_knows_the_flags_of_the_shipped_layout() -> None:
    path = Path(__file__).parents[2] / "layouts/command-llama-cpp.toml"
    wish = parse_layout(path.read_text(), name=path.name).instances[0]
    known = cut_flags("llama-server-0.5.0.flags.txt")
    argv = DRIVERS["command"].command(order(wish)).argv
    written = [word for word in argv if word.startswith("--")]
    assert len(written) == 9
    for flag in written:
        follower = argv[argv.index(flag) + 1 : argv.index(flag) + 2]
        assert known[flag] == bool(follower and not follower[0].startswith("--")), flag


def test_the_metrics_of_llama_cpps_server_are_read() -> None:
    names = DRIVERS["command"].metric_names
    text = (CAPTURES / "llama-cpp-0.5.0.metrics.txt").read_text()
    scrape = parse_metrics(text, names, at=1.0)
    assert first_of(scrape, names.prompt_tokens) == 353.0
    assert first_of(scrape, names.output_tokens) == 225.0
    assert first_of(scrape, names.running) == 0.0
    assert first_of(scrape, names.waiting) == 0.0
    assert first_of(scrape, names.kv_cache_used) is None  # it does not tell


def test_what_is_refused_exists() -> None:
    names = set(REFUSED_BY_NEW) | set(REFUSED_ON_CPU)
    known = cut_flags("vllm-0.32-serve.flags.txt") | cut_flags(
        "ipex-llm-2.2.0-vllm-0.6.6.flags.txt"
    )
    assert {f"--{name}" for name in names} <= set(known)


@pytest.mark.parametrize(
    ("name", "output_tokens", "gaps"),
    [
        ("vllm-0.32-cpu.metrics.txt", 608.0, "vllm:inter_token_latency_seconds"),
        (
            "ipex-llm-2.2.0-vllm-0.6.6-cpu.metrics.txt",
            154.0,
            "vllm:time_per_output_token_seconds",
        ),
    ],
)
def test_both_generations_metrics_are_read(name: str, output_tokens: float, gaps: str) -> None:
    names = DRIVERS["vllm-cpu"].metric_names
    assert all(DRIVERS[engine].metric_names == VLLM_METRICS for engine in ("vllm-xpu", "ipex-llm"))
    scrape = parse_metrics((CAPTURES / name).read_text(), names, at=1.0)
    assert first_of(scrape, names.output_tokens) == output_tokens
    for wanted in (names.prompt_tokens, names.running, names.waiting, names.kv_cache_used):
        assert first_of(scrape, wanted) is not None
    assert quantile(None, scrape, names.ttft_s, 0.5) is not None
    assert gaps in scrape.buckets
    assert quantile(None, scrape, names.itl_s, 0.5) is not None


names = st.sampled_from(
    [
        *("max-model-len", "max_model_len", "tp", "tensor-parallel-size", "enforce-eager"),
        *("no-enforce-eager", "gpu-memory-util", "gpu-memory-utilization", "q", "quantization"),
        *("block-size", "dtype", "load-in-low-bit", "threads", "grace-s", "weight-only"),
    ]
) | st.from_regex(rf"\A{FLAG}\Z").filter(lambda name: not is_secret(name))


@given(
    st.sampled_from([name for name in DRIVERS if name != "command"]),
    st.dictionaries(names, st.booleans() | st.integers(1, 4) | st.text(max_size=3), max_size=5),
    st.booleans(),
)
def test_no_flag_twice_no_secret_and_an_environment_of_strings(
    engine: str, args: dict[str, str | int | float | bool], on_gpus: bool
) -> None:
    driver = DRIVERS[engine]
    free = {
        name: value
        for name, value in args.items()
        if name.replace("_", "-").removeprefix("no-") not in driver.refused_args
        and not (name in ("tp", "tensor-parallel-size") and value not in (1, 2, 4))
    }
    cards = (B60, B60) if on_gpus and driver.device != "cpu" else ()
    wish = Instance(name="a", engine=engine, args=free, env={"VLLM_API_KEY": "sk-1"})
    command = driver.command(order(wish, cards=cards))
    flags = [word.partition("=")[0] for word in command.argv if word.startswith("--")]
    assert len(flags) == len(set(flags))
    assert not any("sk-1" in word for word in command.argv)
    assert all(isinstance(setting.value, str) for setting in command.env.values())
    assert len(command.argv_sources) == len(command.argv)
