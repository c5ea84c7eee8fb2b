"""The keys and values of all sequences, one row each: those that run, and some that ended."""

import ctypes
import math
import mmap
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

_FIRST_CAPACITY = 256
_KEPT_CAPACITY = 1024


class Rows:
    """Tensors [rows, heads, capacity, size] that grow together, and how long each row is.

    The rows in use are dense: row 0 up to `len(self.lengths)`. A forward pass works on a range of
    rows that `aim` names; every row of the range gets the same number of new tokens.
    """

    def __init__(self, *, max_rows: int, max_length: int) -> None:
        self.max_rows, self.max_length = max_rows, max_length
        self.lengths: list[int] = []
        self.touched = [0] * max_rows
        """Of each row, in use or not: how many places were written since it took memory."""
        self._rows_made = self._capacity = 0
        self._pools: list[torch.Tensor] = []
        self._begin = self._end = self._past = self._new = 0
        self._places: torch.Tensor | None = None
        self._row_numbers = torch.arange(max_rows)

    def add_row(self, length: int = 0) -> int:
        """After all others; its first `length` places hold what is wanted already."""
        self.lengths.append(length)
        return len(self.lengths) - 1

    def drop_last_row(self) -> None:
        self.lengths.pop()

    def copy_row(self, source: int, target: int, length: int) -> None:
        """The first places of a row, which stays as it is."""
        self._reserve(max(source, target) + 1, length)
        for pool in self._pools:
            pool[target, :, :length] = pool[source, :, :length]
        self.touched[target] = max(self.touched[target], length)

    def swap_rows(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        """Of each as many places as `lengths` says."""
        self._reserve(max(one, other) + 1, max(lengths))
        mine, theirs = lengths
        for pool in self._pools:
            kept = pool[one, :, :mine].clone()
            pool[one, :, :theirs] = pool[other, :, :theirs]
            pool[other, :, :mine] = kept
        self.touched[one] = max(self.touched[one], theirs)
        self.touched[other] = max(self.touched[other], mine)

    def release(self) -> bool:
        """Gives memory back after a long context; the next request takes what it needs."""
        if self.lengths or self._capacity <= _KEPT_CAPACITY:
            return False
        self._pools.clear()
        self._rows_made = self._capacity = 0
        self.touched = [0] * self.max_rows
        return True

    def give_back(self, row: int) -> None:
        """A row's memory goes back to the kernel; its places read as zeros again."""
        if row < self._rows_made:
            for pool in self._pools:
                _forget(pool[row])
        self.touched[row] = 0

    def aim(self, begin: int, end: int, new: int) -> None:
        """The next forward pass adds `new` tokens to each of these rows."""
        lengths = self.lengths[begin:end]
        self._begin, self._end, self._new = begin, end, new
        self._past = max(lengths)
        self._reserve(end, self._past + new)
        if min(lengths) == self._past:
            self._places = None
        else:
            assert new == 1
            self._places = torch.stack((self._row_numbers[begin:end], torch.tensor(lengths)))

    def advance(self) -> None:
        """The forward pass is over: its tokens count from now on."""
        for row in range(self._begin, self._end):
            self.lengths[row] += self._new
            self.touched[row] = max(self.touched[row], self.lengths[row])

    @property
    def aimed_rows(self) -> int:
        return self._end - self._begin

    @property
    def bytes_per_token(self) -> int:
        return sum(pool.shape[1] * pool.shape[3] * pool.element_size() for pool in self._pools)

    def _reserve(self, rows: int, length: int) -> None:
        if rows <= self._rows_made and length <= self._capacity:
            return
        if rows > self._rows_made:
            self._rows_made = min(self.max_rows, 1 << math.ceil(math.log2(rows)))
        if length > self._capacity:
            doubled = _FIRST_CAPACITY << max(0, math.ceil(math.log2(length / _FIRST_CAPACITY)))
            self._capacity = max(length, min(self.max_length, doubled))
        for number, pool in enumerate(self._pools):
            self._pools[number] = self._grown(pool)

    def _grown(self, old: torch.Tensor) -> torch.Tensor:
        new = self._new_pool(old.shape[1], old.shape[3], old.dtype)
        for row, length in enumerate(self.touched[: old.shape[0]]):
            new[row, :, :length] = old[row, :, :length]
        return new

    def _new_pool(self, heads: int, size: int, dtype: torch.dtype) -> torch.Tensor:
        return _zeros((self._rows_made, heads, self._capacity, size), dtype)


class LeanCache(Rows):
    """A layer's keys and values in one tensor: the first half of its heads are the keys."""

    def pools(
        self, layers: int, heads: int, size: int, dtype: torch.dtype
    ) -> tuple[list[torch.Tensor], "Aim"]:
        """One for each layer, with room for what was aimed at; and where that is."""
        while len(self._pools) < layers:
            self._pools.append(self._new_pool(heads, size, dtype))
        return self._pools, (self._begin, self._end, self._past, self._places)


Aim = tuple[int, int, int, torch.Tensor | None]
"""A range of rows, and how many places they all have behind them; or, where these differ, the
rows' numbers and the place of each one's only token."""


def placed(
    pool: torch.Tensor,
    states: torch.Tensor,
    begin: int,
    end: int,
    past: int,
    places: torch.Tensor | None,
) -> torch.Tensor:
    """Writes the new tokens' states, [rows, heads, new, size], into a pool with as many heads;
    returns those of all tokens so far."""
    total = past + states.shape[2]
    if places is None:
        pool[begin:end, :, past:total] = states
    else:
        pool[places[0], :, places[1]] = states[:, :, 0]
    return pool[begin:end, :, :total]


class RowCache(Rows, Cache):
    """As transformers wants it: two tensors a layer, which may differ in their heads."""

    is_compileable = False

    def __init__(self, *, max_rows: int, max_length: int) -> None:
        # Not Cache.__init__: its arguments differ between the releases of transformers.
        self.layers: list[Any] = []
        self.layer_class_to_replicate = None
        self.offloading = False
        Rows.__init__(self, max_rows=max_rows, max_length=max_length)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        while len(self._pools) <= 2 * layer_idx:
            self._pools += [
                self._new_pool(states.shape[1], states.shape[3], states.dtype)
                for states in (key_states, value_states)
            ]
        keys, values = self._pools[2 * layer_idx : 2 * layer_idx + 2]
        aim = (self._begin, self._end, self._past, self._places)
        return placed(keys, key_states, *aim), placed(values, value_states, *aim)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._past

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._past

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        return self._past + self._new, 0

    def get_max_cache_shape(self, *_args: Any) -> int:
        return self.max_length

    def get_usable_length(self, *_args: Any) -> int:
        return self._past

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * max(1, len(self))

    def __len__(self) -> int:
        return len(self._pools) // 2


def _forget(tensor: torch.Tensor) -> None:
    """The whole pages within go back to the kernel; where it refuses they merely stay."""
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros whose pages the kernel gives only when they are written: torch.zeros writes all.

    They must be zeros, not noise: a masked place still is multiplied, and NaN would spread.
    """
    size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    return torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).view(shape)
