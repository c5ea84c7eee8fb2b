"""What speed hides: whether both arms write the same at temperature 0."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.bench.prepare import MODELS_TIMEOUT_S, base_url
from engine.bench.values import Target
from engine.core.errors import EngineUnreachable
from engine.drivers import openai_api

PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "One, two, three, four,",
    "To be, or not to be, that is",
)
TOKENS = 24
SHOWN = 24
"""Characters of each text after the place where they part."""
_IDLE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Differs:
    """The first prompt on which the arms do not write the same."""

    prompt: str
    a: str
    b: str

    def beginning(self, text: str) -> str:
        """As far as it takes to see the difference."""
        pairs = enumerate(zip(self.a, self.b, strict=False))
        shorter = min(len(self.a), len(self.b))
        end = next((place for place, (a, b) in pairs if a != b), shorter) + SHOWN
        return repr(text if len(text) <= end else f"{text[:end]}…")


@dataclass(frozen=True, slots=True)
class Texts:
    """How many prompts both arms answer alike, and the first that they do not."""

    same: int
    differing: int
    first: Differs | None = None
    missing: str | None = None
    """Why they could not be compared."""

    def warning(self) -> str | None:
        """In words, where there is something to be told."""
        if self.missing is not None:
            return f"whether both arms write the same is not known: {self.missing}"
        if self.first is None:
            return None
        return (
            f"at temperature 0 the arms write different texts for {self.differing} of "
            f"{self.same + self.differing} prompts; to {self.first.prompt!r} A writes "
            f"{self.first.beginning(self.first.a)}, B writes "
            f"{self.first.beginning(self.first.b)}"
        )


async def answers(target: Target) -> tuple[str, ...]:
    """The target's text for each prompt. Raises EngineUnreachable."""
    base = base_url(target.url)
    model = target.model or await _model(target, base)
    return tuple([await _answer(target, base, model, prompt) for prompt in PROMPTS])


def compared(a: Sequence[str], b: Sequence[str]) -> Texts:
    """Of the same prompts."""
    differing = [
        Differs(prompt, of_a, of_b)
        for prompt, of_a, of_b in zip(PROMPTS, a, b, strict=True)
        if of_a != of_b
    ]
    return Texts(
        len(PROMPTS) - len(differing), len(differing), differing[0] if differing else None
    )


async def _answer(target: Target, base: str, model: str, prompt: str) -> str:
    pieces: list[str] = []
    await openai_api.stream(
        f"{base}/v1/completions",
        {
            "model": model,
            "prompt": prompt,
            "max_tokens": TOKENS,
            "temperature": 0.0,
            "stream": True,
        },
        on_piece=lambda piece: pieces.append(piece.text),
        idle_timeout_s=_IDLE_TIMEOUT_S,
        api_key=target.api_key,
    )
    return "".join(pieces)


async def _model(target: Target, base: str) -> str:
    url = f"{base}/v1/models"
    response = await openai_api.get(url, timeout_s=MODELS_TIMEOUT_S, api_key=target.api_key)
    if response.status != 200:
        raise openai_api.refused(url, response, api_key=target.api_key)
    try:
        return str(response.json()["data"][0]["id"])
    except (TypeError, KeyError, IndexError, ValueError):
        raise EngineUnreachable(
            what=f"{url} does not say which model is served",
            why="its answer has no data[0].id",
            do="Read the engine's log.",
        ) from None
