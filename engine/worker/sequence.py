"""One prompt on its way through the engine, and what it tells its listener."""

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.worker.text import Detokenizer, StopStrings


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True)
class TokenMade:
    """One more token; its text may be empty while a character is unfinished."""

    text: str
    count: int
    """How many tokens there are now."""
    finish_reason: str | None


@dataclass(frozen=True)
class Failed:
    """The request ends without its answer."""

    message: str


Event = TokenMade | Failed
Listener = Callable[[Event], None]
"""Called on the server's thread."""


@dataclass(eq=False)
class Sequence:
    prompt: list[int]
    sampling: Sampling
    listener: Listener
    arrived: float
    detokenizer: Detokenizer
    stop_strings: StopStrings
    placed: int = 0
    """How many tokens lie in the cache."""
    reused: int = 0
    """Of the prompt's, those that lay there already."""
    made: list[int] = field(default_factory=list)
    is_aborted: bool = False
    scheduled: float = 0.0
    first_token: float = 0.0
    newest_token: float = 0.0
    generator: object = field(default=None, repr=False)
    """Random numbers of its own, so that a seed gives the same text in any company."""

    @property
    def count(self) -> int:
        return len(self.made)

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.made
