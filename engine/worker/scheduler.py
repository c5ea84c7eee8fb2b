"""The engine's thread: keeps a batch running, lets new requests join and finished ones leave."""

import threading
from collections import deque
from collections.abc import Callable

import torch

from engine.worker.metrics import Metrics
from engine.worker.model import Model
from engine.worker.places import Places
from engine.worker.sampling import choose
from engine.worker.sequence import Event, Failed, Listener, Sequence, TokenMade

PREFILL_TOKENS = 512
"""The most prompt tokens a step takes, so that running streams never wait long."""
IDLE_S = 300.0
"""After so long without a request, long contexts give their memory back."""

Deliver = Callable[[list[tuple[Listener, Event]]], None]
"""Hands the news of a step to the listeners; returns at once."""


class Scheduler:
    """`submit` and `abort` may be called from any thread; the rest is the engine's."""

    def __init__(
        self,
        model: Model,
        *,
        max_num_seqs: int,
        max_waiting: int,
        kv_tokens: int,
        idle_tokens: int,
        prefix_caching: bool,
        metrics: Metrics,
        deliver: Deliver,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._metrics, self._deliver, self._clock = model, metrics, deliver, clock
        self._max_num_seqs, self._max_waiting = max_num_seqs, max_waiting
        self._cache = model.new_cache(max_rows=max_num_seqs, max_length=model.max_length)
        self._places = Places(
            self._cache, budget=kv_tokens, idle_budget=idle_tokens, keep=prefix_caching
        )
        self._news: list[tuple[Listener, Event]] = []
        self._step_tokens = 0
        self._wake = threading.Condition()
        self._arrivals: deque[Sequence] = deque()
        self._waiting: deque[Sequence] = deque()
        self._decoding: list[Sequence] = []
        """In the order of the cache's rows; the sequence in prefill has the row after them."""
        self._prefilling: Sequence | None = None
        self._eos = torch.tensor(sorted(model.eos_ids), dtype=torch.long)

    # From any thread

    def submit(self, sequences: list[Sequence]) -> bool:
        """False, and nothing happens, where more would wait than may."""
        with self._wake:
            waiting = len(self._arrivals) + len(self._waiting) + len(sequences)
            running = len(self._decoding) + (self._prefilling is not None)
            if waiting > self._max_waiting + self._max_num_seqs - running:
                return False
            self._arrivals.extend(sequences)
            self._wake.notify()
            return True

    def abort(self, sequences: list[Sequence]) -> None:
        with self._wake:
            for sequence in sequences:
                sequence.is_aborted = True
            self._wake.notify()

    # The engine's thread

    def run(self) -> None:
        """Never returns; an error ends everything in flight and goes to the caller."""
        try:
            with torch.inference_mode():
                while True:
                    self._take_arrivals()
                    self.step()
        except BaseException as error:
            self._fail_everything(f"The engine failed: {error!r}")
            raise

    def step(self) -> None:
        """One decode for every running sequence, then a bounded piece of prefill."""
        self._drop_aborted()
        self._step_tokens = 0
        if self._decoding:
            self._decode()
            if self._next_to_prefill() is None:
                self._count_step()
            self._tell()
        budget = PREFILL_TOKENS
        while budget > 0 and self._next_to_prefill() is not None:
            budget -= self._prefill(budget)
        self._count_step()
        self._tell()

    def _count_step(self) -> None:
        """Before the news goes out: who has the last token finds its step counted."""
        if self._step_tokens:
            with self._metrics.lock:
                self._metrics.iteration_tokens.observe(self._step_tokens)
            self._step_tokens = 0

    def _take_arrivals(self) -> None:
        with self._wake:
            while not (self._arrivals or self._waiting or self._decoding or self._prefilling):
                if not self._wake.wait(IDLE_S):
                    self._places.release()
            self._waiting.extend(self._arrivals)
            self._arrivals.clear()

    def _decode(self) -> None:
        batch = list(self._decoding)
        lengths = self._cache.lengths[: len(batch)]
        self._cache.aim(0, len(batch), 1)
        logits = self._model.logits(
            torch.tensor([[sequence.made[-1]] for sequence in batch]),
            torch.tensor([[length] for length in lengths]),
            self._decode_mask(lengths),
            self._cache,
        )
        self._cache.advance()
        for sequence in batch:
            sequence.placed += 1
        self._step_tokens += len(batch)
        self._accept(batch, choose(logits, batch, self._eos))

    def _decode_mask(self, lengths: list[int]) -> torch.Tensor | None:
        """None when all rows are equally long: then each sees all there is."""
        longest = max(lengths)
        if min(lengths) == longest:
            return None
        seen = torch.arange(longest + 1) <= torch.tensor(lengths).unsqueeze(1)
        return self._model.additive_mask(seen[:, None, None, :])

    def _next_to_prefill(self) -> Sequence | None:
        if self._prefilling is None and self._waiting:
            if len(self._decoding) >= self._max_num_seqs:
                return None
            sequence = self._waiting[0]
            reused = self._places.take(
                sequence.prompt,
                len(sequence.prompt) + sequence.sampling.max_tokens,
                [one.tokens for one in self._decoding],
            )
            if reused is None:
                return None  # those that run need all the memory
            self._prefilling = self._waiting.popleft()
            sequence.scheduled = self._clock()
            sequence.placed = sequence.reused = reused
            if sequence.sampling.seed is not None:
                sequence.generator = torch.Generator().manual_seed(sequence.sampling.seed)
            with self._metrics.lock:
                self._metrics.prompt_tokens += reused
                self._metrics.prefix_cache_queries += len(sequence.prompt)
                self._metrics.prefix_cache_hits += reused
        return self._prefilling

    def _prefill(self, budget: int) -> int:
        """The next piece of the prompt; its last piece gives the first token."""
        sequence = self._prefilling
        assert sequence is not None
        begin = sequence.placed
        piece = sequence.prompt[begin : begin + budget]
        row = len(self._decoding)
        self._cache.aim(row, row + 1, len(piece))
        logits = self._model.logits(
            torch.tensor([piece]),
            torch.arange(begin, begin + len(piece)).unsqueeze(0),
            self._prefill_mask(begin, len(piece)),
            self._cache,
        )
        self._cache.advance()
        sequence.placed += len(piece)
        self._step_tokens += len(piece)
        with self._metrics.lock:
            self._metrics.prompt_tokens += len(piece)
        if sequence.placed == len(sequence.prompt):
            self._prefilling = None
            self._decoding.append(sequence)
            self._accept([sequence], choose(logits, [sequence], self._eos))
        return len(piece)

    def _prefill_mask(self, begin: int, count: int) -> torch.Tensor | None:
        if begin == 0:
            return None  # plainly causal, which attention does faster without a mask
        rows = torch.arange(begin, begin + count).unsqueeze(1)
        return self._model.additive_mask((torch.arange(begin + count) <= rows)[None, None])

    def _accept(self, batch: list[Sequence], tokens: list[int]) -> None:
        now = self._clock()
        finished: list[Sequence] = []
        with self._metrics.lock:
            for sequence, token in zip(batch, tokens, strict=True):
                self._note_time(sequence, now)
                made = self._made(sequence, token)
                self._news.append((sequence.listener, made))
                if made.finish_reason is not None:
                    self._note_finish(sequence, made.finish_reason, now)
                    finished.append(sequence)
            self._metrics.generation_tokens += len(batch)
        for sequence in finished:
            self._leave(sequence)

    def _made(self, sequence: Sequence, token: int) -> TokenMade:
        sampling = sequence.sampling
        sequence.made.append(token)
        reason = None
        text = ""
        if token in self._model.eos_ids and not sampling.ignore_eos:
            reason = "stop"
        else:
            text = sequence.stop_strings.add(sequence.detokenizer.add(token))
            if sequence.count >= sampling.max_tokens:
                reason = "length"
        if reason is not None and not sequence.stop_strings.stopped:
            text += sequence.stop_strings.add(sequence.detokenizer.rest())
        if sequence.stop_strings.stopped:
            reason = "stop"
        elif reason is not None:
            text += sequence.stop_strings.rest()
        return TokenMade(text, sequence.count, reason)

    def _leave(self, sequence: Sequence) -> None:
        """Frees the row; the last decoding row takes its place, and the prefilling one follows."""
        row = self._decoding.index(sequence)
        self._decoding[row] = self._decoding[-1]
        self._decoding.pop()
        self._places.leave(row, sequence.tokens, before_last=self._prefilling is not None)

    def _drop_aborted(self) -> None:
        self._count_aborted(sum(sequence.is_aborted for sequence in self._waiting))
        if any(sequence.is_aborted for sequence in self._waiting):
            self._waiting = deque(one for one in self._waiting if not one.is_aborted)
        for sequence in [one for one in self._decoding if one.is_aborted]:
            self._leave(sequence)
            self._count_aborted(1)
        if self._prefilling is not None and self._prefilling.is_aborted:
            row, tokens = len(self._decoding), self._prefilling.tokens
            self._prefilling = None
            self._places.leave(row, tokens, before_last=False)
            self._count_aborted(1)

    def _count_aborted(self, count: int) -> None:
        with self._metrics.lock:
            self._metrics.finished["abort"] += count

    def _fail_everything(self, message: str) -> None:
        with self._wake:
            self._waiting.extend(self._arrivals)
            self._arrivals.clear()
        everyone = [*self._decoding, *self._waiting]
        if self._prefilling is not None:
            everyone.append(self._prefilling)
        self._decoding, self._prefilling = [], None
        self._waiting.clear()
        self._places.clear()
        with self._metrics.lock:
            self._metrics.finished["error"] += len(everyone)
        self._news += [(sequence.listener, Failed(message)) for sequence in everyone]
        self._tell()

    # What the outside sees

    def _tell(self) -> None:
        """The numbers first: who has an answer finds it counted already."""
        with self._metrics.lock:
            gauges = self._metrics.gauges
            gauges.running = len(self._decoding) + (self._prefilling is not None)
            gauges.waiting = len(self._waiting) + len(self._arrivals)
            gauges.kv_cache_usage = self._places.used_share
        if self._news:
            news, self._news = self._news, []
            self._deliver(news)

    def _note_time(self, sequence: Sequence, now: float) -> None:
        if sequence.count == 0:
            sequence.first_token = now
            self._metrics.time_to_first_token.observe(now - sequence.arrived)
        else:
            self._metrics.inter_token_latency.observe(now - sequence.newest_token)
        sequence.newest_token = now

    def _note_finish(self, sequence: Sequence, reason: str, now: float) -> None:
        metrics = self._metrics
        decode_time = now - sequence.first_token
        metrics.finished[reason] += 1
        metrics.e2e_latency.observe(now - sequence.arrived)
        metrics.queue_time.observe(sequence.scheduled - sequence.arrived)
        metrics.prefill_time.observe(sequence.first_token - sequence.scheduled)
        metrics.decode_time.observe(decode_time)
        metrics.inference_time.observe(now - sequence.scheduled)
        metrics.request_prompt_tokens.observe(len(sequence.prompt))
        metrics.request_generation_tokens.observe(sequence.count)
        if sequence.count > 1:
            metrics.time_per_output_token.observe(decode_time / (sequence.count - 1))
