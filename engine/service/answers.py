"""Try: one chat prompt to an instance, streamed back with what was measured on the way."""

import asyncio
import time
from collections.abc import AsyncIterator

from engine.control import AnswerEnd, AnswerPiece
from engine.core.errors import ControlError
from engine.core.status import State
from engine.drivers.openai_api import Finished, stream
from engine.drivers.openai_events import Piece
from engine.service.managed import Managed
from engine.service.orders import served_name

_SILENCE_S = 120.0


async def answer(
    managed: Managed, prompt: str, max_tokens: int
) -> AsyncIterator[AnswerPiece | AnswerEnd]:
    """Stream the answer; leaving early aborts the request at the engine."""
    if managed.life.state is not State.READY:
        raise ControlError(
            what=f"{managed.name} cannot answer",
            why=f"it is {managed.life.state}",
            do="Wait until it is ready, or start it",
        )
    arrived: asyncio.Queue[Piece | None] = asyncio.Queue()
    body = {
        "model": served_name(managed.at.wish.model),
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    asked_at = time.perf_counter()
    asking = asyncio.get_running_loop().create_task(
        stream(
            managed.url + "/v1/chat/completions",
            body,
            on_piece=arrived.put_nowait,
            idle_timeout_s=_SILENCE_S,
            api_key=managed.api_key,
        )
    )
    asking.add_done_callback(lambda _: arrived.put_nowait(None))
    try:
        while (piece := await arrived.get()) is not None:
            yield AnswerPiece(piece.text, piece.tokens, (piece.at - asked_at) * 1000)
        yield _measured(await asking)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def _measured(finished: Finished) -> AnswerEnd:
    first, last, tokens = finished.first_at, finished.last_at, finished.tokens
    seconds = last - first if first is not None and last is not None else 0.0
    gaps = tokens - 1
    known = gaps > 0 and seconds > 0
    return AnswerEnd(
        ttft_ms=None if first is None else (first - finished.sent_at) * 1000,
        itl_ms_mean=seconds * 1000 / gaps if known else None,
        output_tokens=finished.completion_tokens or tokens,
        output_tokens_per_s=gaps / seconds if known else None,
        finish_reason=finished.finish_reason,
    )
