"""Imports run one way: the headless half loads no screen and no model library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("textual", "rich", "torch", "transformers", "tui")
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "engine").rglob("*.py")
    if "worker" not in path.parts and path.name != "__main__.py"
)


@pytest.fixture
def poisoned(tmp_path: Path) -> dict[str, str]:
    """An environment in which a heavy library raises as soon as it is imported."""
    for name in HEAVY:
        (tmp_path / "poison" / name).mkdir(parents=True)
        (tmp_path / "poison" / name / "__init__.py").write_text(
            f"raise AssertionError('{name} was imported')\n"
        )
    (tmp_path / "run").mkdir()
    return {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PYTHONPATH": f"{tmp_path / 'poison'}:{ROOT}",
        "COLUMNS": "80",
    }


def python(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", *words],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_no_headless_module_loads_a_screen_or_a_model_library(poisoned: dict[str, str]) -> None:
    program = f"""
import importlib, sys
for name in {MODULES!r}:
    importlib.import_module(name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = python(poisoned, "-c", program)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert len(MODULES) > 50


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["topo"], ["status"], ["status", "--json"]),
        *(["plan", "--help"], ["down", "--all"], ["models"]),
        ["plan", "--root", "recorded", str(ROOT / "layouts/demo.toml")],
    ],
    ids=" ".join,
)
def test_the_command_line_works_without_them(
    poisoned: dict[str, str], tmp_path: Path, words: list[str]
) -> None:
    if "--root" in words:
        topology = tmp_path / "recorded/sys/devices/system/cpu/cpu0/topology"
        for pu in (0, 1):
            folder = topology.parent.parent / f"cpu{pu}/topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{pu}\n")
        words = [str(tmp_path / word) if word == "recorded" else word for word in words]
    done = python(poisoned, "-m", "engine.cli.main", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_help_text_loads_little(poisoned: dict[str, str]) -> None:
    done = python(
        poisoned,
        *("-c", "import sys; from engine.cli.main import main; main(['--help'])\n"),
    )
    assert done.returncode == 0
    program = "import sys, engine.cli.main; print('msgspec' in sys.modules)"
    assert python(poisoned, "-c", program).stdout == "False\n"


def test_a_measurement_begins_without_what_only_layouts_need(poisoned: dict[str, str]) -> None:
    """From its start to its first request it takes a fifth of a second, nearly all of it this."""
    names = ("engine.service", "engine.drivers.registry", "engine.core.placing", "tomlkit")
    program = f"import sys, engine.cli.bench; print([n for n in {names!r} if n in sys.modules])"
    assert python(poisoned, "-c", program).stdout == "[]\n"


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([str(linter)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_the_console_script_answers(word: str, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("slotdeck")
    if not script.exists():
        pytest.skip("slotdeck is not installed here")
    done = subprocess.run(
        [str(script), word],
        env={"HOME": str(tmp_path), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "slotdeck" in done.stdout
