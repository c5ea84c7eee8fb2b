"""A config.json as it comes: of any type at any key, read without ever raising."""

from collections.abc import Mapping
from dataclasses import dataclass

LARGEST = 1 << 31
"""No count in a model's config is above it; what claims more is no number that we believe."""

TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where models that also see or hear keep the configuration of their language part."""


@dataclass(frozen=True, slots=True)
class Config:
    """Keys that may have several names, since every family of models has its own."""

    values: Mapping[str, object]

    def has(self, *names: str) -> bool:
        """Whether one of them says anything; null is how configs write "left out"."""
        return any(self.values.get(name) is not None for name in names)

    def value(self, *names: str) -> object:
        return next(
            (found for name in names if (found := self.values.get(name)) is not None), None
        )

    def number(self, *names: str) -> int | None:
        """A whole number above zero, None for anything else."""
        value = self.value(*names)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if 0 < value <= LARGEST else None

    def count(self, *names: str, otherwise: int | None = 0) -> int | None:
        """A whole number from zero; `otherwise` only when nothing is said, None when nonsense."""
        if not self.has(*names):
            return otherwise
        return 0 if self._is_zero(*names) else self.number(*names)

    def _is_zero(self, *names: str) -> bool:
        value = self.value(*names)
        return isinstance(value, int) and not isinstance(value, bool) and value == 0

    def flag(self, *names: str, otherwise: bool = False) -> bool:
        value = self.value(*names)
        return value if isinstance(value, bool) else otherwise

    def text(self, *names: str) -> str | None:
        value = self.value(*names)
        return value if isinstance(value, str) and value else None

    def words(self, *names: str) -> tuple[str, ...] | None:
        """A list of nothing but texts."""
        value = self.value(*names)
        if not isinstance(value, list | tuple) or not value:
            return None
        words = tuple(one for one in value if isinstance(one, str))
        return words if len(words) == len(value) else None

    def indexes(self, *names: str) -> frozenset[int] | None:
        """A list of whole numbers as a set; an empty list is an answer, nonsense is None."""
        value = self.value(*names)
        if not isinstance(value, list | tuple):
            return None
        numbers = [one for one in value if isinstance(one, int) and not isinstance(one, bool)]
        return frozenset(numbers) if len(numbers) == len(value) else None

    def part(self, *names: str) -> "Config | None":
        for name in names:
            value = self.values.get(name)
            if isinstance(value, Mapping) and value:
                return Config({key: one for key, one in value.items() if isinstance(key, str)})
        return None

    def text_part(self) -> "Config":
        """The language part with what only the whole says (its dtype, tied embeddings)."""
        inner = self
        for _ in range(3):  # thinker_config holds a text_config of its own
            part = inner.part(*TEXT_PARTS)
            if part is None:
                break
            inner = part
        if inner is self:
            return self
        shared = [("dtype", "torch_dtype"), ("quantization_config",), ("tie_word_embeddings",)]
        kept = {
            name: self.values[name]
            for names in shared
            for name in names
            if self.has(name) and not inner.has(*names)
        }
        return Config({**inner.values, **kept})
