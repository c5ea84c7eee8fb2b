"""The keys and values of all running sequences, one row each, as transformers wants them."""

import math
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

_FIRST_CAPACITY = 256
_KEPT_CAPACITY = 1024


class RowCache(Cache):
    """One tensor [rows, kv heads, capacity, head size] a layer, for keys and for values.

    The rows in use are dense: row 0 up to `len(self.lengths)`. A forward pass works on a range of
    rows that `aim` names; every row of the range gets the same number of new tokens.
    """

    is_compileable = False

    def __init__(self, *, max_rows: int, max_length: int) -> None:
        # Not Cache.__init__: its arguments differ between the releases of transformers.
        self.layers: list[Any] = []
        self.layer_class_to_replicate = None
        self.offloading = False
        self.max_rows, self.max_length = max_rows, max_length
        self.lengths: list[int] = []
        self._rows_made = self._capacity = 0
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._begin = self._end = self._past = self._new = 0
        self._positions: torch.Tensor | None = None
        self._row_numbers = torch.arange(max_rows)

    # Rows

    def add_row(self) -> int:
        """A new empty row, after all others."""
        self.lengths.append(0)
        return len(self.lengths) - 1

    def move_row(self, source: int, target: int) -> None:
        length = self.lengths[source]
        for pool in (*self._keys, *self._values):
            pool[target, :, :length] = pool[source, :, :length]
        self.lengths[target] = length

    def drop_last_row(self) -> None:
        self.lengths.pop()

    def release(self) -> None:
        """Gives memory back after a long context; the next request takes what it needs."""
        if not self.lengths and self._capacity > _KEPT_CAPACITY:
            self._keys.clear()
            self._values.clear()
            self._rows_made = self._capacity = 0

    def aim(self, begin: int, end: int, new: int) -> None:
        """The next forward pass adds `new` tokens to each of these rows."""
        lengths = self.lengths[begin:end]
        self._begin, self._end, self._new = begin, end, new
        self._past = max(lengths)
        self._reserve(end, self._past + new)
        if min(lengths) == self._past:
            self._positions = None
        else:
            assert new == 1
            self._positions = torch.tensor(lengths)

    def advance(self) -> None:
        """The forward pass is over: its tokens count from now on."""
        for row in range(self._begin, self._end):
            self.lengths[row] += self._new

    @property
    def used_share(self) -> float:
        """Of all the tokens that may lie here at most."""
        return sum(self.lengths) / (self.max_rows * self.max_length)

    @property
    def bytes_per_token(self) -> int:
        if not self._keys:
            return 0
        pools = (*self._keys, *self._values)
        return sum(pool.shape[1] * pool.shape[3] * pool.element_size() for pool in pools)

    def _reserve(self, rows: int, length: int) -> None:
        if rows <= self._rows_made and length <= self._capacity:
            return
        if rows > self._rows_made:
            self._rows_made = min(self.max_rows, 1 << math.ceil(math.log2(rows)))
        if length > self._capacity:
            doubled = _FIRST_CAPACITY << max(0, math.ceil(math.log2(length / _FIRST_CAPACITY)))
            self._capacity = max(length, min(self.max_length, doubled))
        for pools in (self._keys, self._values):
            for layer, pool in enumerate(pools):
                pools[layer] = self._grown(pool)

    def _grown(self, old: torch.Tensor) -> torch.Tensor:
        new = _zeros((self._rows_made, old.shape[1], self._capacity, old.shape[3]), old.dtype)
        for row, length in enumerate(self.lengths):
            if row < old.shape[0]:
                new[row, :, :length] = old[row, :, :length]
        return new

    # What transformers calls

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        while len(self._keys) <= layer_idx:
            for pools, states in ((self._keys, key_states), (self._values, value_states)):
                shape = (self._rows_made, states.shape[1], self._capacity, states.shape[3])
                pools.append(_zeros(shape, states.dtype))
        keys = self._keys[layer_idx][self._begin : self._end]
        values = self._values[layer_idx][self._begin : self._end]
        total = self._past + self._new
        if self._positions is None:
            keys[:, :, self._past : total] = key_states
            values[:, :, self._past : total] = value_states
        else:
            rows = self._row_numbers[: self._end - self._begin]
            keys[rows, :, self._positions] = key_states[:, :, 0]
            values[rows, :, self._positions] = value_states[:, :, 0]
        return keys[:, :, :total], values[:, :, :total]

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
        return [False] * max(1, len(self._keys))

    def __len__(self) -> int:
        return len(self._keys)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros whose pages the kernel gives only when they are written: torch.zeros writes all.

    They must be zeros, not noise: a masked place still is multiplied, and NaN would spread.
    """
    size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    return torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).view(shape)
