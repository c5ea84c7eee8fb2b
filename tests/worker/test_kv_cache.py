from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from engine.worker.kv_cache import LeanCache, RowCache, placed  # noqa: E402

HEADS, SIZE = 2, 4


def states(rows: int, new: int, value: float) -> Any:
    return torch.full((rows, HEADS, new, SIZE), value)


def fill(cache: RowCache, row: int, length: int, value: float) -> None:
    cache.aim(row, row + 1, length)
    cache.update(states(1, length, value), states(1, length, -value), 0)
    cache.advance()


def test_rows_of_different_lengths_grow_where_each_ends() -> None:
    cache = RowCache(max_rows=3, max_length=1000)
    for row, length in enumerate((3, 1, 5)):
        assert cache.add_row() == row
        fill(cache, row, length, row + 1.0)
    cache.aim(0, 3, 1)
    keys, values = cache.update(states(3, 1, 9.0), states(3, 1, -9.0), 0)
    cache.advance()
    assert keys.shape == (3, HEADS, 6, SIZE)
    assert keys[:, 0, :, 0].tolist() == [
        [1, 1, 1, 9, 0, 0],
        [2, 9, 0, 0, 0, 0],
        [3, 3, 3, 3, 3, 9],
    ]
    assert torch.equal(values, -keys)
    assert cache.lengths == [4, 2, 6]


def test_growing_keeps_what_is_there() -> None:
    cache = RowCache(max_rows=4, max_length=2000)
    cache.add_row()
    fill(cache, 0, 250, 1.0)
    cache.add_row()
    fill(cache, 1, 300, 2.0)
    fill(cache, 0, 1500, 3.0)
    cache.aim(0, 2, 1)
    keys, _ = cache.update(states(2, 1, 4.0), states(2, 1, 4.0), 0)
    assert keys[0, 0, :, 0].unique_consecutive().tolist() == [1, 3, 4]
    assert keys[1, 1, :301, 2].unique_consecutive().tolist() == [2, 4]


def test_a_copied_row_takes_its_tokens_along() -> None:
    cache = RowCache(max_rows=2, max_length=100)
    for row, length in enumerate((6, 2)):
        cache.add_row()
        fill(cache, row, length, row + 1.0)
    cache.copy_row(1, 0, 2)
    cache.lengths[:] = [2]
    cache.aim(0, 1, 1)
    keys, _ = cache.update(states(1, 1, 9.0), states(1, 1, 9.0), 0)
    assert keys[0, 0, :, 0].tolist() == [2, 2, 9]
    assert cache.bytes_per_token == 2 * HEADS * SIZE * 4


def place(cache: LeanCache, new: Any) -> Any:
    """Keys and values of all tokens so far, of a model with one layer."""
    pools, aim = cache.pools(1, new.shape[1], new.shape[3], new.dtype)
    return placed(pools[0], new, *aim).chunk(2, dim=1)


def test_swapped_rows_keep_both() -> None:
    cache = LeanCache(max_rows=4, max_length=1000)
    for row, length in enumerate((3, 1)):
        cache.add_row()
        cache.aim(row, row + 1, length)
        place(cache, states(1, length, row + 1.0))
        cache.advance()
    cache.swap_rows(0, 3, (3, 0))  # a row that has no memory yet
    cache.swap_rows(1, 3, (1, 3))
    cache.lengths[:] = [0, 3, 0, 1]
    for row, wanted in ((1, [1, 1, 1, 9]), (3, [2, 9])):
        cache.aim(row, row + 1, 1)
        keys, values = place(cache, states(1, 1, 9.0))
        assert keys.shape == (1, HEADS // 2, len(wanted), SIZE)
        assert keys[0, 0, :, 0].tolist() == wanted
        assert torch.equal(keys, values)


def test_memory_given_back_reads_as_zeros_again() -> None:
    cache = LeanCache(max_rows=2, max_length=4096)
    cache.add_row()
    cache.aim(0, 1, 4000)
    place(cache, states(1, 4000, 1.0))
    cache.advance()
    cache.give_back(0)
    assert cache.touched == [0, 0]
    cache.aim(0, 1, 1)
    keys, _ = place(cache, states(1, 1, 2.0))
    middle = keys[0, 0, 1024:3000]  # whole pages; those at the ends may hold a neighbour's values
    assert int(middle.count_nonzero()) == 0


def test_a_long_context_is_given_back() -> None:
    cache = RowCache(max_rows=2, max_length=9000)
    cache.add_row()
    fill(cache, 0, 5000, 1.0)
    assert not cache.release()  # in use: nothing happens
    assert cache.bytes_per_token > 0
    cache.drop_last_row()
    assert cache.release()
    assert cache.bytes_per_token == 0
    cache.add_row()
    fill(cache, 0, 2, 3.0)
    assert cache.lengths == [2]


def test_it_never_grows_beyond_the_context() -> None:
    cache = RowCache(max_rows=1, max_length=300)
    cache.add_row()
    fill(cache, 0, 300, 1.0)
    assert cache._capacity == 300
