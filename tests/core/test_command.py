"""Command lines for eyes and for a shell: secrets redacted, and every word quoted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.command import (
    PINNING,
    SHELL,
    Command,
    Explained,
    Setting,
    engine_variables,
    explain,
    is_secret,
    merged,
    shell_line,
    shown_argv,
    shown_env,
)
from engine.core.cpuset import CpuSet
from engine.core.status import MemoryBinding

SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY", "API_KEYS"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "PGPASSWORD", "DB_PASSWORD", "PASSWD"),
        *("MY_SECRET", "CLIENT_SECRETS", "AZURE_CREDENTIALS", "hf_token", "api-key", "HFTOKEN"),
        *("TOKEN", "GITHUB_AUTH_TOKEN", "hf-token", "api_key"),
    ],
)
def test_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("TOKENIZERS_PARALLELISM", "KMP_BLOCKTIME", "MAX_NUM_BATCHED_TOKENS", "max-tokens"),
        *("OMP_NUM_THREADS", "KEYBOARD", "PATH", "tokenizer", "tokenizer-mode", "MONKEY"),
        *("COMPASS", "PASSES", "api-server-count", "HF_HOME", "skip-special-tokens"),
    ],
)
def test_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_secrets_are_redacted_wherever_a_command_is_shown() -> None:
    command = Command(
        ("server", "--api-key", "sk-1", "--hf-token=hf_2", "--port", "8001", "--api-key", "--x"),
        {"HF_TOKEN": Setting("hf_3", "layout"), "OMP_NUM_THREADS": Setting("4", "driver: torch")},
    )
    assert shown_env(command) == {"HF_TOKEN": "(redacted)", "OMP_NUM_THREADS": "4"}
    assert shown_argv(command) == (
        *("server", "--api-key", "(redacted)", "--hf-token=(redacted)", "--port", "8001"),
        *("--api-key", "--x"),
    )
    line = shell_line(command, CpuSet([0]), MemoryBinding("bind", "0"))
    assert "HF_TOKEN='(redacted)'" in line
    assert not any(secret in line for secret in ("sk-1", "hf_2", "hf_3"))
    assert command.plain_env()["HF_TOKEN"] == "hf_3"


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (MemoryBinding("bind", "0-1"), "numactl -C 0-3,8 -m 0-1 server"),
        (MemoryBinding("preferred", "1"), "numactl -C 0-3,8 -p 1 server"),
        (MemoryBinding("interleave", "0,2"), "numactl -C 0-3,8 -i 0,2 server"),
        (MemoryBinding("local", ""), "numactl -C 0-3,8 -l server"),
    ],
)
def test_the_numactl_line(memory: MemoryBinding, words: str) -> None:
    command = Command(("server",), {"HOME": Setting("/home/u", SHELL)})
    assert shell_line(command, CpuSet.parse("0-3,8"), memory) == words


@pytest.fixture(scope="module")
def fake_numactl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    fake = folder / "numactl"
    # -C LIST -m LIST, then the command
    fake.write_text('#!/bin/sh\nshift 4\nexec "$@"\n')
    fake.chmod(0o755)
    return folder


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
variables = st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,8}\Z").filter(
    lambda name: not is_secret(name) and name not in ("PATH", "_", "PWD", "SHLVL", "OLDPWD", "IFS")
)


@given(st.lists(words, max_size=4), st.dictionaries(variables, words, max_size=3))
@settings(max_examples=15)
def test_a_real_shell_gives_back_the_same_words(
    fake_numactl: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    command = Command(
        (sys.executable, "-I", "-S", "-c", SHOW, *arguments),
        {f"X_{name}": Setting(value, "layout") for name, value in variables.items()},
    )
    line = shell_line(command, CpuSet([0]), MemoryBinding("bind", "0"))
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        env={"PATH": f"{fake_numactl}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    argv, env = json.loads(done.stdout)
    assert argv == arguments
    assert {name: env[f"X_{name}"] for name in variables} == variables


def test_every_part_of_a_command_is_explained_once() -> None:
    command = Command(
        ("/bin/vllm", "serve", "m", "--port", "8001", "--eager", "--hf-token=t", "--x", "a", "b"),
        {"Z": Setting("1", "profile: p"), "API_KEY": Setting("k", "layout")},
        ("driver", "driver", "layout", *("placement",) * 2, "driver", *("layout",) * 4),
    )
    assert explain(command) == [
        Explained("program", "", "/bin/vllm serve", "driver"),
        Explained("program", "", "m", "layout"),
        Explained("flag", "--port", "8001", "placement"),
        Explained("flag", "--eager", "", "driver"),
        Explained("flag", "--hf-token", "(redacted)", "layout"),
        Explained("flag", "--x", "a b", "layout"),
        Explained("variable", "API_KEY", "(redacted)", "layout"),
        Explained("variable", "Z", "1", "profile: p"),
    ]


def test_a_command_without_sources_says_so() -> None:
    assert explain(Command(("server",))) == [Explained("program", "", "server", "not told")]
    assert explain(Command(())) == []


@given(st.lists(st.sampled_from(["a", "--b", "--c=d", "-1", ""]), max_size=8))
def test_no_word_is_lost(words: list[str]) -> None:
    rows = explain(Command(tuple(words), argv_sources=("layout",) * len(words)))
    told = " ".join(
        " ".join(filter(None, (row.name, row.value))) if row.name else row.value for row in rows
    )
    assert told.replace("=", " ").split() == " ".join(words).replace("=", " ").split()


def test_what_of_the_shell_is_for_engines() -> None:
    shell = {
        "OMP_NUM_THREADS": "64",
        "CCL_ROOT": "/opt",
        "MALLOC_CONF": "x",
        "USE_XETLA": "ON",
        "I_MPI_ROOT": "/mpi",
        "HF_HOME": "/hf",
        "VLLM_CPU_KVCACHE_SPACE": "9",
        "PATH": "/bin",
        "HOME": "/root",
        "PS1": "$",
        "FIREFOX": "1",
        "URL": "x",
        "ZED": "x",
        "HF_TOKEN": "hf_1",
        "VLLM_API_KEY": "sk-1",
    }
    assert set(engine_variables(shell)) == {
        *("OMP_NUM_THREADS", "CCL_ROOT", "MALLOC_CONF", "USE_XETLA"),
        *("I_MPI_ROOT", "HF_HOME", "VLLM_CPU_KVCACHE_SPACE"),
    }
    assert all(engine_variables({name: "1"}) for name in PINNING)


def test_who_wins_and_what_is_told() -> None:
    driver = {
        "OMP_NUM_THREADS": Setting("8", "driver: torch"),
        "CCL_WORKER_COUNT": Setting("2", "profile: p"),
        "CCL_ATL_SHM": Setting("1", "profile: p"),
        "PATH": Setting("/venv/bin:/bin", "driver: ipex-llm"),
        "KEPT": Setting("1", "driver: torch"),
    }
    shell = {
        "OMP_NUM_THREADS": "64",
        "KMP_AFFINITY": "compact",
        "CCL_WORKER_COUNT": "4",
        "CCL_ATL_SHM": "1",
        "KMP_BLOCKTIME": "1",
        "PATH": "/bin",
        "HOME": "/root",
    }
    env, notes = merged(shell, driver, {"KMP_BLOCKTIME": "0", "KEPT": "2", "HOME": "/h"})
    assert {name: (setting.value, setting.source) for name, setting in env.items()} == {
        "OMP_NUM_THREADS": ("8", "driver: torch"),
        "CCL_WORKER_COUNT": ("4", SHELL),
        "CCL_ATL_SHM": ("1", "profile: p"),
        "PATH": ("/venv/bin:/bin", "driver: ipex-llm"),
        "KEPT": ("2", "layout"),
        "KMP_BLOCKTIME": ("0", "layout"),
        "HOME": ("/h", "layout"),
    }
    told = "; to insist, write it under env in the layout"
    assert notes == (
        "OMP_NUM_THREADS=64 of the user's shell is not used but 8 (driver: torch): it must agree "
        f"with the slot{told}",
        "KMP_AFFINITY=compact of the user's shell is not used but unset: it must agree with the "
        f"slot{told}",
        "CCL_WORKER_COUNT=4 of the user's shell replaces 2 (profile: p)",
        "KEPT=2 of layout replaces 1 (driver: torch)",
    )


def test_a_secret_that_gives_way_is_not_told() -> None:
    _, notes = merged({}, {"VLLM_API_KEY": Setting("sk-1", "driver")}, {"VLLM_API_KEY": "sk-2"})
    assert notes == ("VLLM_API_KEY=(redacted) of layout replaces (redacted) (driver)",)


settings_of = st.dictionaries(st.sampled_from(["OMP_NUM_THREADS", "CCL_A", "PATH", "X"]), words)


@given(settings_of, settings_of, settings_of)
def test_the_layout_always_wins_and_the_shell_never_moves_threads(
    shell: dict[str, str], driver: dict[str, str], layout: dict[str, str]
) -> None:
    ours = {name: Setting(value, "driver") for name, value in driver.items()}
    env, _ = merged(shell, ours, layout)
    values = {name: setting.value for name, setting in env.items()}
    assert values.items() >= layout.items()
    assert env.keys() >= ours.keys()
    if "OMP_NUM_THREADS" not in layout:
        assert values.get("OMP_NUM_THREADS") == driver.get("OMP_NUM_THREADS")
