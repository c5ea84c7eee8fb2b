"""What the HTTP side sees of a loaded model, so that it can be tested without torch."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.worker.requests import Prompts
from engine.worker.sequence import Sequence


@dataclass(frozen=True)
class Loaded:
    prompts: Prompts
    decode: Callable[[list[int]], str]
    submit: Callable[[list[Sequence]], bool]
    """False where too many wait already."""
    abort: Callable[[list[Sequence]], None]
    max_length: int
    dtype: str
    torch_version: str
    weights_bytes: int
    token_read_bytes: int
    kv_bytes_per_token: int
    kv_tokens: int
    """How many tokens all sequences together may have."""
    path: str
    """`lean`, `transformers` or `ipex`: by what the model runs."""
    path_reason: str
    products: str
