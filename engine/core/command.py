"""A command line with its environment, and the same as a shell line to read or copy."""

import re
import shlex
from dataclasses import dataclass, field

from engine.core.cpuset import CpuSet
from engine.core.status import MemoryBinding

SHELL = "the user's shell"
"""Source of a setting that was inherited."""
_SECRET = re.compile(
    # Words that are a secret wherever they stand, and words that are one as the last of a name:
    # HF_TOKEN is, MAX_NUM_BATCHED_TOKENS and TOKENIZERS_PARALLELISM are not.
    r"passw(or)?d|secret|credential|api[-_]?keys?([-_]|$)|access[-_]?key"
    r"|(^|[-_])(key|(auth|api|access|hf|hub)?token|passphrase|auth)$",
    re.IGNORECASE,
)
_REDACTED = "(redacted)"
_NUMACTL = {"bind": "-m", "preferred": "-p", "interleave": "-i"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable and who asked for it."""

    value: str
    source: str
    """layout, driver: …, or the user's shell."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is executed for an instance: no shell, an environment built from nothing."""

    argv: tuple[str, ...]
    env: dict[str, Setting] = field(default_factory=dict)

    def plain_env(self) -> dict[str, str]:
        """The environment as the kernel gets it."""
        return {name: setting.value for name, setting in self.env.items()}


def is_secret(name: str) -> bool:
    """Whether the name of a variable or flag says that its value must not be shown."""
    return _SECRET.search(name) is not None


def shown_env(command: Command) -> dict[str, str]:
    """The environment for eyes and files: secrets redacted."""
    return {
        name: _REDACTED if is_secret(name) else setting.value
        for name, setting in command.env.items()
    }


def shown_argv(command: Command) -> tuple[str, ...]:
    """The words for eyes and files: what follows a flag such as `--api-key` is redacted."""
    shown: list[str] = []
    secret_next = False
    for word in command.argv:
        flag, equals, _ = word.partition("=")
        secret = flag.startswith("-") and is_secret(flag.lstrip("-"))
        if secret_next and not word.startswith("--"):
            shown.append(_REDACTED)
        elif secret and equals:
            shown.append(f"{flag}={_REDACTED}")
        else:
            shown.append(word)
        secret_next = secret and not equals
    return tuple(shown)


def shell_words(command: Command, pus: CpuSet, memory: MemoryBinding) -> list[str]:
    """The equivalent line, word by word and quoted: variables, `numactl …`, then the command.

    What came from the user's shell is left out: the one who types it has it.
    """
    words = [
        f"{name}={shlex.quote(value)}"
        for name, value in shown_env(command).items()
        if command.env[name].source != SHELL
    ]
    words += ["numactl", "-C", str(pus)]
    if memory.policy in _NUMACTL:
        words += [_NUMACTL[memory.policy], memory.nodes]
    elif memory.policy == "local":
        words.append("-l")
    return words + [shlex.quote(word) for word in shown_argv(command)]


def shell_line(command: Command, pus: CpuSet, memory: MemoryBinding) -> str:
    """The equivalent line to type by hand."""
    return " ".join(shell_words(command, pus, memory))
