"""Command lines for eyes and for a shell: secrets redacted, and every word quoted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.command import (
    SHELL,
    Command,
    Setting,
    is_secret,
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
