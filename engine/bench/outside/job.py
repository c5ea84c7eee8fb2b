"""What an outside load generator is asked, and what every one's answer is turned into."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engine.bench.prompts import Prompt
from engine.bench.values import Load
from engine.core.errors import ControlError


@dataclass(frozen=True, slots=True)
class Job:
    """One target under one load; its folder is the tool's alone."""

    base: str
    model: str
    tokenizer: str
    """A folder: all of these tools want one, whatever the engine counts."""
    prompts: Sequence[Prompt]
    """All texts, or all chats."""
    load: Load
    folder: Path
    api_key: str | None = field(default=None, repr=False)
    """For its environment: of words on a command line everybody here can read."""

    @property
    def path(self) -> str:
        return self.prompts[0].path

    def output_len(self, prompt: Prompt) -> int:
        return self.load.output_len if prompt.max_tokens is None else prompt.max_tokens


@dataclass(frozen=True, slots=True)
class One:
    """One measured request; times in seconds."""

    ttft_s: float
    e2e_s: float
    tpot_s: float | None
    """None for an answer of one token."""
    gaps_s: Sequence[float] | None
    """None where the tool keeps none."""
    prompt_tokens: int | None
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    requests: Sequence[One]
    errors: int
    first_error: str | None
    duration_s: float
    """By which its rates divide."""


class Tool(Protocol):
    """A public load generator."""

    @property
    def name(self) -> str:
        """Of the backend, for the command line."""
        ...

    @property
    def program(self) -> str: ...

    @property
    def package(self) -> str:
        """Whose version is told."""
        ...

    @property
    def differs(self) -> Sequence[str]:
        """What it defines differently from us, for the reader of its figures."""
        ...

    @property
    def key_variable(self) -> str:
        """Of its environment, from which it takes the API key."""
        ...

    def why_not(self, load: Load, prompts: Sequence[Prompt]) -> str | None:
        """Why it cannot make this load of these, or None."""
        ...

    def words(self, job: Job) -> list[str]:
        """Its arguments, once the prompts are written where it looks for them."""
        ...

    def read(self, folder: Path) -> Answer:
        """Raises KeyError, TypeError or ValueError where its form is not the known one, and
        ControlError where it has not done what it was asked."""
        ...


def tpot_of(ttft_s: float, last_s: float, output_tokens: int) -> float | None:
    """As we define it."""
    return (last_s - ttft_s) / (output_tokens - 1) if output_tokens > 1 else None


def not_understood(tool: str, error: Exception) -> ControlError:
    return ControlError(
        what=f"The result of {tool} is not understood",
        why=f"its form is not the known one ({type(error).__name__}: {error})",
        do=f"Measure without --backend, or use the version of {tool} that docs/bench.md names",
    )


def seconds(milliseconds: Any) -> float:
    return float(milliseconds) / 1e3
