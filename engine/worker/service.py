"""What each path answers."""

import asyncio
import hmac
import math
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from engine.worker import answers, process_stats
from engine.worker.answers import Answer, Usage
from engine.worker.errors import RequestRefused
from engine.worker.http_parser import Request
from engine.worker.http_server import Reply
from engine.worker.loaded import Loaded
from engine.worker.metrics import Labels, Metrics, gauge
from engine.worker.options import Options
from engine.worker.requests import Asked, parse
from engine.worker.sequence import Event, Failed, Sequence, TokenMade
from engine.worker.text import Detokenizer, StopStrings

_LONG_TEXT = 100_000
"""Bytes of a body from which on tokenising would hold up the other clients' streams."""


_LONGEST_RETRY_S = 60


class Service:
    def __init__(
        self,
        options: Options,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._options, self._metrics = options, metrics
        self._clock, self._wall_clock = clock, wall_clock
        self._started = int(wall_clock())
        self.loaded: Loaded | None = None
        self.why_unhealthy: tuple[str, str] | None = ("loading", "The model is being loaded.")
        """A word and a sentence; None when all is well."""
        self.in_flight: set[asyncio.Queue[tuple[int, Event]]] = set()
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._paths: dict[str, tuple[str, Callable[[Request, Reply], Any]]] = {
            "/health": ("GET", self._health),
            "/metrics": ("GET", self._show_metrics),
            "/v1/models": ("GET", self._models),
            "/v1/completions": ("POST", self._completions),
            "/v1/chat/completions": ("POST", self._chat),
        }

    async def answer(self, request: Request, reply: Reply) -> None:
        try:
            method, handler = self._route(request)
            if request.method not in (method, *(("HEAD",) if method == "GET" else ())):
                raise RequestRefused(f"{request.path} wants {method}.", status=405)
            self._check_key(request)
            await handler(request, reply)
        except RequestRefused as error:
            headers = None
            if error.retry_after_s is not None:
                headers = {"retry-after": str(error.retry_after_s)}
            reply.send(error.status, answers.dumped(error.body()), headers=headers)

    def fail_all(self, message: str) -> None:
        """Ends everything in flight with an error, whatever the engine is at."""
        for queue in self.in_flight:
            queue.put_nowait((0, Failed(message)))

    def _route(self, request: Request) -> tuple[str, Callable[[Request, Reply], Any]]:
        route = self._paths.get(request.path)
        if route is None:
            known = ", ".join(self._paths)
            raise RequestRefused(f"There is no {request.path} here, but {known}.", status=404)
        return route

    def _check_key(self, request: Request) -> None:
        key = self._options.api_key
        if key is None or not request.path.startswith("/v1/"):
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            raise RequestRefused(
                "The API key is missing or wrong; send it as `Authorization: Bearer KEY`.",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
            )

    async def _health(self, request: Request, reply: Reply) -> None:
        if self.why_unhealthy is None:
            _send(reply, 200, {"status": "ok"})
            return
        word, why = self.why_unhealthy
        _send(reply, 503, {"status": word, "why": why})

    async def _models(self, request: Request, reply: Reply) -> None:
        model: dict[str, Any] = {
            "id": self._options.name,
            "object": "model",
            "created": self._started,
            "owned_by": "slotdeck",
            "root": str(self._options.model),
            "max_model_len": None if self.loaded is None else self.loaded.max_length,
            "load_format": self._options.load_format,
        }
        if self.loaded is not None:
            model["execution"] = {"path": self.loaded.path, "why": self.loaded.path_reason}
        _send(reply, 200, {"object": "list", "data": [model]})

    async def _show_metrics(self, request: Request, reply: Reply) -> None:
        labels = {"engine": "0", "model_name": self._options.name}
        with self._metrics.lock:
            lines = list(self._metrics.lines(labels))
        if self.loaded is not None:
            lines += self._model_lines(self.loaded, labels)
        lines += process_stats.lines()
        body = "\n".join(lines) + "\n"
        reply.send(200, body.encode(), kind="text/plain; version=0.0.4; charset=utf-8")

    def _model_lines(self, loaded: Loaded, labels: Labels) -> list[str]:
        tokens = loaded.kv_tokens
        cache = {
            "block_size": "1",
            "cache_dtype": loaded.dtype,
            "kv_cache_size_tokens": str(tokens),
            "kv_cache_memory_bytes": str(tokens * loaded.kv_bytes_per_token),
            "kv_cache_max_concurrency": str(self._options.max_num_seqs),
            "num_cpu_blocks": str(tokens),
            "enable_prefix_caching": str(self._options.prefix_caching),
        }
        info = {
            "dtype": loaded.dtype,
            "weight_only": self._options.weight_only,
            "threads": str(self._options.threads),
            "torch": loaded.torch_version,
            "engine_name": self._options.engine,
            "path": loaded.path,
            "products": loaded.products,
            "load_format": self._options.load_format,
        }
        return [
            *gauge("vllm:cache_config_info", "How the KV cache is made.", labels | cache, 1),
            *gauge(
                "slotdeck:weights_bytes", "Bytes of all weights.", labels, loaded.weights_bytes
            ),
            *gauge(
                "slotdeck:token_read_bytes",
                "Bytes of weights that one decode step reads.",
                labels,
                loaded.token_read_bytes,
            ),
            *gauge("slotdeck:info", "How the engine runs.", labels | info, 1),
        ]

    async def _completions(self, request: Request, reply: Reply) -> None:
        await self._generate(request, reply, is_chat=False)

    async def _chat(self, request: Request, reply: Reply) -> None:
        await self._generate(request, reply, is_chat=True)

    async def _generate(self, request: Request, reply: Reply, *, is_chat: bool) -> None:
        arrived = self._clock()
        loaded = self._ready()
        asked = await self._parse(request, loaded, is_chat=is_chat)
        self._ready()
        queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        sequences = [
            Sequence(
                prompt=list(prompt),
                sampling=asked.samplings[index],
                listener=lambda made, index=index: queue.put_nowait((index, made)),  # type: ignore[misc]
                arrived=arrived,
                detokenizer=Detokenizer(loaded.decode),
                stop_strings=StopStrings(asked.samplings[index].stop),
            )
            for index, prompt in enumerate(asked.prompts)
        ]
        prefix = "chatcmpl" if is_chat else "cmpl"
        answer = Answer(
            id=f"{prefix}-{uuid.uuid4().hex}",
            model=self._options.name,
            created=int(self._wall_clock()),
            is_chat=is_chat,
        )
        if not loaded.submit(sequences):
            raise self._too_many_wait()
        self.in_flight.add(queue)
        self.idle.clear()
        try:
            events = _until_finished(queue, len(sequences))
            if asked.stream:
                await _stream(reply, answer, asked, sequences, events)
            else:
                await _collect(reply, answer, asked, sequences, events)
        finally:
            loaded.abort(sequences)  # changes nothing for those that finished
            self.in_flight.discard(queue)
            if not self.in_flight:
                self.idle.set()

    def _too_many_wait(self) -> RequestRefused:
        with self._metrics.lock:
            self._metrics.refused += 1
            mean = self._metrics.e2e_latency.mean or 1.0
            waiting = self._metrics.gauges.waiting
        rounds = waiting / self._options.max_num_seqs
        return RequestRefused(
            f"{waiting} prompts wait for a place already, and at most "
            f"{self._options.max_waiting} may.",
            status=503,
            kind="service_unavailable",
            code="queue_full",
            retry_after_s=min(_LONGEST_RETRY_S, max(1, math.ceil(rounds * mean / 2))),
        )

    def _ready(self) -> Loaded:
        if self.why_unhealthy is not None or self.loaded is None:
            word, why = self.why_unhealthy or ("loading", "The model is being loaded.")
            raise RequestRefused(why, status=503, kind="service_unavailable", code=word)
        return self.loaded

    async def _parse(self, request: Request, loaded: Loaded, *, is_chat: bool) -> Asked:
        def work() -> Asked:
            return parse(
                request.body,
                is_chat=is_chat,
                model_name=self._options.name,
                prompts=loaded.prompts,
            )

        return work() if len(request.body) < _LONG_TEXT else await asyncio.to_thread(work)


async def _until_finished(
    queue: asyncio.Queue[tuple[int, Event]], count: int
) -> AsyncIterator[tuple[int, TokenMade]]:
    while count:
        index, made = await queue.get()
        if isinstance(made, Failed):
            raise RequestRefused(made.message, status=503, kind="server_error", code="stopped")
        if made.finish_reason is not None:
            count -= 1
        yield index, made


async def _collect(
    reply: Reply,
    answer: Answer,
    asked: Asked,
    sequences: list[Sequence],
    events: AsyncIterator[tuple[int, TokenMade]],
) -> None:
    texts: list[list[str]] = [[] for _ in asked.prompts]
    reasons = [""] * len(asked.prompts)
    counts = [0] * len(asked.prompts)
    async for index, made in events:
        texts[index].append(made.text)
        counts[index] = made.count
        reasons[index] = made.finish_reason or ""
    choices = [("".join(text), reason) for text, reason in zip(texts, reasons, strict=True)]
    usage = _usage(asked, counts, sequences)
    _send(reply, 200, answer.whole(choices, usage))


async def _stream(
    reply: Reply,
    answer: Answer,
    asked: Asked,
    sequences: list[Sequence],
    events: AsyncIterator[tuple[int, TokenMade]],
) -> None:
    counts = [0] * len(asked.prompts)
    reply.start_stream(kind="text/event-stream; charset=utf-8")
    try:
        async for index, made in events:
            if asked.is_chat and not any(counts):
                await reply.write(answers.event(answer.opening()))
            counts[index] = made.count
            usage = (
                Usage(len(asked.prompts[index]), made.count, sequences[index].reused)
                if asked.continuous_usage
                else None
            )
            chunk = answer.chunk(index, made.text, made.finish_reason, usage)
            await reply.write(answers.event(chunk))
    except RequestRefused as error:
        # The status line is long gone: the stream itself must say it.
        await reply.write(answers.event(error.body()) + answers.DONE)
        return
    if asked.include_usage:
        usage = _usage(asked, counts, sequences)
        await reply.write(answers.event(answer.closing(usage)))
    await reply.write(answers.DONE)


def _usage(asked: Asked, counts: list[int], sequences: list[Sequence]) -> Usage:
    reused = sum(sequence.reused for sequence in sequences)
    return Usage(sum(map(len, asked.prompts)), sum(counts), reused)


def _send(reply: Reply, status: int, body: dict[str, Any]) -> None:
    reply.send(status, answers.dumped(body))
