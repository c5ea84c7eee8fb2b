"""The model's tokenizer: text to token ids and back, and the chat template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from engine.worker.errors import CannotServe, RequestRefused


class Tokenizer:
    """Calls the Rust tokenizer directly where there is one: transformers' own wrapper changes
    settings on each call, which two threads must not do."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        self._rust = getattr(wrapped, "backend_tokenizer", None) or getattr(
            wrapped, "_tokenizer", None
        )
        self.eos_token_id: int | None = wrapped.eos_token_id

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool) -> "Tokenizer":
        try:
            wrapped = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:
            raise CannotServe(
                what=f"Cannot load the tokenizer of {folder}",
                why=" ".join(str(error).split())[:500],
                do="Check that the tokenizer's files are whole",
            ) from error
        return cls(wrapped)

    def encode(self, text: str, *, special: bool) -> list[int]:
        if self._rust is not None:
            return list(self._rust.encode(text, add_special_tokens=special).ids)
        return list(self._wrapped.encode(text, add_special_tokens=special))

    def decode(self, ids: list[int]) -> str:
        if self._rust is not None:
            return str(self._rust.decode(ids, skip_special_tokens=True))
        return str(
            self._wrapped.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        if not getattr(self._wrapped, "chat_template", None):
            raise RequestRefused(
                "This model has no chat template; use /v1/completions.", param="messages"
            )
        try:
            text = self._wrapped.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise RequestRefused(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from error
        return self.encode(text, special=False)
