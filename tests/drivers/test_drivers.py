"""Drivers: the exact command lines that they write."""

from dataclasses import replace

import pytest

from engine.core.cpuset import CpuSet
from engine.core.errors import LayoutError
from engine.core.layout import Instance
from engine.drivers.driver import DTYPES
from engine.drivers.registry import DRIVERS, driver_of
from tests.drivers.orders import order


def pairs(argv: tuple[str, ...]) -> dict[str, str]:
    return {
        word: following
        for word, following in zip(argv, (*argv[1:], ""), strict=True)
        if word.startswith("--")
    }


@pytest.mark.parametrize("engine", ["torch", "ipex"])
def test_the_worker_is_told_its_place(engine: str) -> None:
    wish = Instance(
        name="a",
        engine=engine,
        dtype="bfloat16",
        stop_grace_s=7,
        trust_remote_code=True,
        args={"max-model-len": 2048},
    )
    command = driver_of(engine).command(order(wish))
    assert command.argv[:3] == ("/opt/bin/python", "-u", "/lib/worker.py")
    told = pairs(command.argv)
    assert (told["--model"], told["--port"], told["--threads"]) == ("/models/m", "8002", "4")
    assert (told["--engine"], told["--host"], told["--dtype"]) == (engine, "127.0.0.1", "bfloat16")
    assert (told["--grace-s"], told["--max-model-len"]) == ("5", "2048")
    assert "--trust-remote-code" in command.argv
    assert command.env["OMP_NUM_THREADS"].value == "4"
    assert all(setting.source.startswith("driver: ") for setting in command.env.values())


def test_vllm_leaves_the_reserved_core_to_its_api_process() -> None:
    asked = order(Instance(name="a", engine="vllm-cpu"))
    placement = replace(asked.placement, reserved=CpuSet.parse("11"))
    command = driver_of("vllm-cpu").command(replace(asked, placement=placement))
    assert command.env["VLLM_CPU_OMP_THREADS_BIND"].value == "8-10"


@pytest.mark.parametrize("engine", ["torch", "ipex", "vllm-cpu", "vllm-xpu"])
def test_dummy_weights_are_asked_for_by_those_that_have_them(engine: str) -> None:
    gpus = (0,) if engine == "vllm-xpu" else ()
    wish = Instance(name="a", engine=engine, weights="dummy")
    told = pairs(driver_of(engine).command(order(wish, gpus=gpus)).argv)
    assert told["--load-format"] == "dummy"
    assert "--skip-tokenizer-init" not in told
    stored = order(Instance(name="a", engine=engine), gpus=gpus)
    assert "--load-format" not in driver_of(engine).command(stored).argv


def test_vllm_is_told_where_a_made_up_model_has_no_tokenizer() -> None:
    asked = order(Instance(name="a", engine="vllm-cpu", weights="dummy"))
    command = driver_of("vllm-cpu").command(replace(asked, has_tokenizer=False))
    assert "--skip-tokenizer-init" in command.argv


@pytest.mark.parametrize("engine", ["command", "ipex-llm"])
def test_others_say_that_they_have_no_dummy_weights(engine: str) -> None:
    wish = Instance(name="a", engine=engine, weights="dummy", command=("server",))
    with pytest.raises(LayoutError, match='cannot have weights = "dummy"'):
        driver_of(engine).command(order(wish))


def test_remote_code_is_off_unless_asked_for() -> None:
    command = driver_of("torch").command(order(Instance(name="a", stop_grace_s=1)))
    assert "--trust-remote-code" not in command.argv
    assert pairs(command.argv)["--grace-s"] == "0"


def test_a_template_is_filled_once_and_word_by_word() -> None:
    wish = Instance(
        name="a",
        engine="command",
        command=(
            "srv",
            "{model}:{port}",
            "--cpus={cpus}",
            "{gpus}",
            "{tp}{threads}",
            '{"json": 1}',
            "{x}",
        ),
        args={"verbose": True},
    )
    command = driver_of("command").command(order(wish, model="{port} $(ls)", gpus=(0, 1)))
    assert command.argv_sources[0] == command.argv_sources[-1] == "layout"
    assert command.argv_sources[1] == "layout, its places filled from the slot"
    assert command.argv == (
        *("srv", "{port} $(ls):8002", "--cpus=8-11", "0,1", "24", '{"json": 1}', "{x}"),
        "--verbose",
    )


def test_without_a_template_there_is_nothing_to_start() -> None:
    with pytest.raises(LayoutError, match="has no command"):
        driver_of("command").command(order(Instance(name="a", engine="command")))


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(LayoutError) as caught:
        driver_of("pytorch")
    assert "Did you mean 'torch'?" in caught.value.do
    assert "torch, ipex, vllm-cpu, vllm-xpu, ipex-llm, command" in caught.value.why


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_every_driver_says_what_it_needs(name: str) -> None:
    driver = DRIVERS[name]
    assert driver.name == name
    assert "none" in driver.weight_only
    assert driver.device in ("cpu", "gpu", "any")
    assert set(driver.dtypes) <= set(DTYPES)
    assert driver.memory_share is None or 0 < driver.memory_share < 1
    for conflict in (*driver.refused_args.values(), *driver.refused_env.values()):
        assert conflict.why
        assert conflict.do
    assert driver.ready_timeout_s > 0
    assert driver.stop_grace_s > 0
    assert driver.reserve_cores >= 0
    assert driver.health_path.startswith("/")
