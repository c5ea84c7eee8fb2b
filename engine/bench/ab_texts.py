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
    token: int
    """The first that is another one, as A's stream has them, from 1 on."""

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
    steady: bool | None = None
    """Whether A wrote the same when it was asked again: only where the arms differ."""

    def told(self) -> str:
        """In words: a warning where the speed of the two is not that of the same work."""
        if self.missing is not None:
            return f"warning: whether both arms write the same is not known: {self.missing}"
        of = self.same + self.differing
        if self.first is None:
            return f"Texts: at temperature 0 both arms write the same for {of} of {of} prompts."
        again = {
            None: "",
            True: "; A, asked again, wrote the same as before",
            False: "; but A, asked again, wrote another text as well, so that B need not be why",
        }
        return (
            f"warning: at temperature 0 the arms write different texts for {self.differing} of "
            f"{of} prompts; to {self.first.prompt!r}, from token {self.first.token} on: A writes "
            f"{self.first.beginning(self.first.a)}, B writes "
            f"{self.first.beginning(self.first.b)}{again[self.steady]}"
        )


Answers = tuple[tuple[str, ...], ...]
"""To each prompt the pieces of a stream, which mostly are tokens."""


async def answers(target: Target) -> Answers:
    """What the target writes to each prompt. Raises EngineUnreachable."""
    base = base_url(target.url)
    model = target.model or await _model(target, base)
    return tuple([await _answer(target, base, model, prompt) for prompt in PROMPTS])


def compared(a: Answers, b: Answers) -> Texts:
    """Of the same prompts; engines may cut the same text in other places."""
    differing = [
        Differs(prompt, "".join(of_a), "".join(of_b), _first_other(of_a, "".join(of_b)))
        for prompt, of_a, of_b in zip(PROMPTS, a, b, strict=True)
        if "".join(of_a) != "".join(of_b)
    ]
    return Texts(
        len(PROMPTS) - len(differing), len(differing), differing[0] if differing else None
    )


def _first_other(pieces: Sequence[str], text: str) -> int:
    so_far = ""
    for number, piece in enumerate(pieces, 1):
        so_far += piece
        if not text.startswith(so_far):
            return number
    return len(pieces) + 1


async def _answer(target: Target, base: str, model: str, prompt: str) -> tuple[str, ...]:
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
    return tuple(pieces)


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
