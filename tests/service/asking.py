"""Requests to a fake engine from a test: where to go, and a long stream to watch."""

import asyncio
import json
from typing import Any

from engine.core.status import InstanceStatus
from engine.drivers.openai_api import post_json


async def send_off(status: InstanceStatus, **where: Any) -> None:
    """Have the engine leave its place by itself."""
    answer = await post_json(f"{status.url}/go", where, timeout_s=30)
    assert answer.status == 200


async def stream(status: InstanceStatus, tokens: int) -> list[str]:
    """The texts of one streamed answer, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", status.port)
    body = json.dumps({"model": "fake", "prompt": "x", "max_tokens": tokens, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    texts: list[str] = []
    try:
        while line := await asyncio.wait_for(reader.readline(), 30):
            if line.strip() == b"data: [DONE]":
                return texts
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                texts += [choice["text"] for choice in choices]
    finally:
        writer.close()
    raise AssertionError(f"the stream ended early, after {len(texts)} tokens")
