"""Chooses the next token of every row of a batch."""

import torch

from engine.worker.sequence import Sequence

_COLDEST = 0.01
"""Colder than this the logits could overflow, and the likeliest token wins anyway."""


def choose(logits: torch.Tensor, sequences: list[Sequence], eos: torch.Tensor) -> list[int]:
    """One token id a row; `logits` is [rows, vocabulary]."""
    for row, sequence in enumerate(sequences):
        if sequence.count < sequence.sampling.min_tokens and not sequence.sampling.ignore_eos:
            logits[row, eos] = -torch.inf
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for row, sequence in enumerate(sequences):
        if sequence.sampling.temperature > 0:
            tokens[row] = _drawn(logits[row].float(), sequence)
    return tokens


def _drawn(logits: torch.Tensor, sequence: Sequence) -> int:
    """Each row alone: its own temperature, its own limits, its own random numbers."""
    sampling = sequence.sampling
    logits = logits / max(sampling.temperature, _COLDEST)
    candidates: torch.Tensor | None = None
    if 0 < sampling.top_k < logits.shape[0]:
        logits, candidates = logits.topk(sampling.top_k)
    elif sampling.top_p < 1:
        logits, candidates = logits.sort(descending=True)
    chances = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        # Keep a token when those before it do not reach top_p yet: the first always stays.
        before = chances.cumsum(dim=-1) - chances
        chances = chances.masked_fill(before >= sampling.top_p, 0)
    generator = sequence.generator
    assert generator is None or isinstance(generator, torch.Generator)
    if not bool(torch.isfinite(chances).all()):
        return int(logits.argmax() if candidates is None else candidates[0])
    drawn = torch.multinomial(chances, 1, generator=generator)
    return int(drawn if candidates is None else candidates[drawn])
