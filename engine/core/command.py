"""A command line with its environment, and the same as a shell line to read or copy."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from engine.core.cpuset import CpuSet
from engine.core.limits import Limits
from engine.core.status import MemoryBinding

SHELL = "the user's shell"
"""Source of a setting that was inherited."""
LAYOUT = "layout"
"""Source of what the layout file says."""
PLACEMENT = "placement"
"""Source of what follows from the slot: PUs, GPUs, port."""
NOT_TOLD = "not told"
_SECRET = re.compile(
    # Words that are a secret wherever they stand, and words that are one as the last of a name:
    # HF_TOKEN is, MAX_NUM_BATCHED_TOKENS and TOKENIZERS_PARALLELISM are not.
    r"passw(or)?d|secret|credential|api[-_]?keys?([-_]|$)|access[-_]?key"
    r"|(^|[-_])(key|(auth|api|access|hf|hub)?token|passphrase|auth)$",
    re.IGNORECASE,
)
_ENGINES_OWN = re.compile(
    r"(OMP|GOMP|KMP|MKL|CCL|FI|I_MPI|VLLM|ZE|ZES|SYCL|UR|ONEAPI|IPEX|BIGDL|TORCH|TORCHINDUCTOR|PYTORCH"
    r"|HF|TRANSFORMERS|TRITON|RAY|USE_XETLA|CMPLR|UCX)(_.*)?"
    r"|LD_PRELOAD|MALLOC_CONF|TCMALLOC_.*|TOKENIZERS_PARALLELISM|CPU_VISIBLE_MEMORY_NODES"
    r"|TBBROOT|MKLROOT|OCL_ICD_FILENAMES|SETVARS_COMPLETED|HUGGING_FACE_.*"
)
"""Variables that engines and the libraries below them read, oneAPI's setvars.sh among them."""
PINNING = frozenset(
    {
        *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_THREAD_LIMIT", "OMP_DYNAMIC"),
        *("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET", "KMP_NUM_THREADS"),
        *("MKL_NUM_THREADS", "MKL_DYNAMIC", "CCL_WORKER_AFFINITY", "I_MPI_PIN"),
        *("I_MPI_PIN_DOMAIN", "I_MPI_PIN_PROCESSOR_LIST", "VLLM_CPU_OMP_THREADS_BIND"),
        *("VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_CPU_SIM_MULTI_NUMA", "CPU_VISIBLE_MEMORY_NODES"),
        *("ZE_AFFINITY_MASK", "ZE_ENABLE_PCI_ID_DEVICE_ORDER", "ZE_FLAT_DEVICE_HIERARCHY"),
        *("ONEAPI_DEVICE_SELECTOR", "SYCL_DEVICE_FILTER", "SYCL_DEVICE_ALLOWLIST"),
    }
)
"""Variables that say where threads run or which GPUs are seen: they must agree with the slot, so
what happens to stand in the shell does not reach the engine."""
_REDACTED = "(redacted)"
_NUMACTL = {"bind": "-m", "preferred": "-p", "interleave": "-i", "weighted-interleave": "-w"}
_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable and who asked for it."""

    value: str
    source: str
    """layout, placement, driver: …, profile: …, or the user's shell."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is executed for an instance: no shell, an environment built from nothing."""

    argv: tuple[str, ...]
    env: dict[str, Setting] = field(default_factory=dict)
    argv_sources: tuple[str, ...] = ()
    """Who asked for each word of `argv`; empty where that was not told."""

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


def numactl_words(memory: MemoryBinding) -> list[str]:
    """numactl's flags for a memory policy."""
    if memory.policy in _NUMACTL:
        return [_NUMACTL[memory.policy], memory.nodes]
    return ["-l"]


def shell_words(
    command: Command, pus: CpuSet, memory: MemoryBinding, limits: Limits = _NO_LIMITS
) -> list[str]:
    """The equivalent line, word by word and quoted: variables, limits, `numactl …`, the command.

    What came from the user's shell is left out: the one who types it has it.
    """
    words = [
        f"{name}={shlex.quote(value)}"
        for name, value in shown_env(command).items()
        if command.env[name].source != SHELL
    ]
    if limits:
        words += ["systemd-run", "--user", "--scope"]
        words += [word for each in limits.properties() for word in ("-p", each)]
    words += ["numactl", "-C", str(pus), *numactl_words(memory)]
    return words + [shlex.quote(word) for word in shown_argv(command)]


def shell_line(
    command: Command, pus: CpuSet, memory: MemoryBinding, limits: Limits = _NO_LIMITS
) -> str:
    """The equivalent line to type by hand."""
    return " ".join(shell_words(command, pus, memory, limits))


@dataclass(frozen=True, slots=True)
class Explained:
    """One part of a command, its value as shown, and who asked for it."""

    kind: Literal["program", "flag", "variable"]
    name: str
    value: str
    source: str


def explain(command: Command) -> list[Explained]:
    """Every word and variable once: the program's words, each flag with its values, then the
    environment by name."""
    sources = command.argv_sources or (NOT_TOLD,) * len(command.argv)
    words = list(zip(shown_argv(command), sources, strict=True))
    first_flag = next(
        (at for at, (word, _) in enumerate(words) if word.startswith("--")), len(words)
    )
    rows: list[Explained] = []
    for source, same in groupby(words[:first_flag], key=lambda pair: pair[1]):
        rows.append(Explained("program", "", " ".join(word for word, _ in same), source))
    at = first_flag
    while at < len(words):
        word, source = words[at]
        end = at + 1
        while end < len(words) and not words[end][0].startswith("--"):
            end += 1
        name, equals, value = word.partition("=")
        values = [value] if equals else []
        values += [word for word, _ in words[at + 1 : end]]
        rows.append(Explained("flag", name, " ".join(values), source))
        at = end
    shown = shown_env(command)
    for name, setting in sorted(command.env.items()):
        rows.append(Explained("variable", name, shown[name], setting.source))
    return rows


def engine_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What of a user's environment is meant for engines; never a secret, which only a layout
    gives."""
    return {
        name: value
        for name, value in environment.items()
        if _ENGINES_OWN.fullmatch(name) and not is_secret(name)
    }


def merged(
    shell: Mapping[str, str],
    driver: Mapping[str, Setting],
    layout: Mapping[str, str],
    *,
    pinning: Iterable[str] = PINNING,
) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """The environment of an engine, and a note for each value that gave way to another.

    1. The layout's values win over all others.
    2. Of the rest, an engine's variable in the user's shell wins over profile and driver...
    3. ...but one that says where threads run or which GPUs are seen is the driver's alone: it
       must agree with the slot. Whoever wants another value writes it into the layout.
    4. Any other variable of the shell (PATH, HOME) gives way to the driver, which extends it.
    """
    pinning = frozenset(pinning)
    env: dict[str, Setting] = {}
    notes: list[str] = []
    for name, value in shell.items():
        ours = driver.get(name)
        if name in pinning:
            if name not in layout and (ours is None or ours.value != value):
                used = f"{ours.value} ({ours.source})" if ours else "unset"
                notes.append(
                    f"{name}={value} of {SHELL} is not used but {used}: it must agree with the "
                    "slot; to insist, write it under env in the layout"
                )
            continue
        if ours is not None and ours.value != value and engine_variables({name: value}):
            if name not in layout:
                notes.append(_replaced(name, value, SHELL, ours))
        elif ours is not None:
            continue
        env[name] = Setting(value, SHELL)
    env = {**driver, **env}
    for name, value in layout.items():
        before = env.get(name)
        if before is not None and before.value != value and before.source != SHELL:
            notes.append(_replaced(name, value, LAYOUT, before))
        env[name] = Setting(value, LAYOUT)
    return env, tuple(notes)


def _replaced(name: str, value: str, source: str, before: Setting) -> str:
    secret = is_secret(name)
    value, old = (_REDACTED, _REDACTED) if secret else (value, before.value)
    return f"{name}={value} of {source} replaces {old} ({before.source})"
