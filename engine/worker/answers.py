"""The JSON that clients get back: completions, chat completions and their streamed chunks."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt's, those that an earlier prompt left."""

    def body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True)
class Answer:
    """What all the pieces of one answer have in common."""

    id: str
    model: str
    created: int
    is_chat: bool

    def whole(self, choices: list[tuple[str, str]], usage: Usage) -> dict[str, Any]:
        """`choices`: text and finish reason, in the order of the prompts."""
        made: list[dict[str, Any]] = []
        for index, (text, reason) in enumerate(choices):
            choice: dict[str, Any] = {"index": index}
            if self.is_chat:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            else:
                choice["text"] = text
            made.append({**choice, "logprobs": None, "finish_reason": reason})
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._common(kind), "choices": made, "usage": usage.body()}

    def opening(self) -> dict[str, Any]:
        """A chat's first chunk: who speaks, no text yet."""
        return self._chunk(0, {"delta": {"role": "assistant", "content": ""}}, None)

    def chunk(
        self, index: int, text: str, reason: str | None, usage: Usage | None
    ) -> dict[str, Any]:
        piece: dict[str, Any] = {"delta": {"content": text}} if self.is_chat else {"text": text}
        made = self._chunk(index, piece, reason)
        if usage is not None:
            made["usage"] = usage.body()
        return made

    def closing(self, usage: Usage) -> dict[str, Any]:
        return {**self._common(self._chunk_kind()), "choices": [], "usage": usage.body()}

    def _chunk(self, index: int, piece: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": index, **piece, "logprobs": None, "finish_reason": reason}
        return {**self._common(self._chunk_kind()), "choices": [choice]}

    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _common(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + dumped(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def dumped(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
