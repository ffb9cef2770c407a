"""Filling batches and handing results back, with an engine that only adds up numbers."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.model.batches import predict_blocks, predict_tiles
from pipeline.tiles import TileBlock


@dataclass
class LaterSums:
    """Adds up only when asked for the result, so that memory that is reused too early gives wrong sums."""

    tiles: np.ndarray

    def result(self):
        return sums(self.tiles)


class SummingRunner:
    """Takes a tile's sum as the probability of each of two classes."""

    def __init__(self, batch_size: int, concurrency: int = 1, precision: str = "float32") -> None:
        self.batch_size, self.concurrency, self.precision = batch_size, concurrency, precision
        self.sizes: list[int] = []
        self.allocated: list[np.dtype] = []

    def allocate(self, shape, dtype):
        self.allocated.append(dtype)
        return np.empty(shape, dtype)

    def submit(self, tiles):
        self.sizes.append(len(tiles))
        return LaterSums(tiles)


def sums(tiles: np.ndarray) -> np.ndarray:
    return np.repeat(tiles.sum(axis=(1, 2, 3), dtype=np.float32)[:, None], 2, axis=1)


def blocks_of(*counts: int, dtype: str = "u2"):
    """Yield blocks with so many tiles each, of different numbers."""
    start = 0
    for row, count in enumerate(counts):
        index = np.arange(start, start + count)
        tiles = np.broadcast_to(index[:, None, None, None] + 1, (count, 1, 2, 2)).astype(dtype)
        yield TileBlock(row, 1, index, tiles, row, np.ones((1, count), bool))
        start += count


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 12), st.integers(1, 3))
def test_each_block_comes_back_in_order_with_its_own_probabilities(counts, batch_size, concurrency):
    blocks = list(blocks_of(*counts))
    pairs = list(predict_blocks(iter(blocks), 2, SummingRunner(batch_size, concurrency)))
    assert [block for block, _ in pairs] == blocks
    for block, probabilities in pairs:
        assert probabilities.dtype == np.float32
        np.testing.assert_array_equal(probabilities, sums(block.tiles))


def test_every_batch_is_full_though_blocks_are_small():
    runner = SummingRunner(8)
    list(predict_blocks(blocks_of(3, 0, 4, 1, 9, 2), 2, runner))
    assert runner.sizes == [8, 8, 8]


def test_memory_is_reused_and_in_native_byte_order():
    runner = SummingRunner(2, concurrency=2)
    list(predict_blocks(blocks_of(20, dtype=">u2"), 2, runner))
    assert runner.allocated == [np.dtype("=u2")] * 3


def test_blocks_are_read_little_ahead():
    taken = []

    def blocks():
        for block in blocks_of(*[4] * 10):
            taken.append(block.tile_row)
            yield block

    next(predict_blocks(blocks(), 2, SummingRunner(4)))
    assert len(taken) <= 3


def test_on_all_submitted_is_called_once_after_the_last_block_and_before_the_last_result():
    taken, results, calls = [], [], []

    def blocks():
        for block in blocks_of(4, 4, 4):
            taken.append(block)
            yield block

    def note() -> None:
        calls.append((len(taken), len(results)))

    for pair in predict_blocks(blocks(), 2, SummingRunner(4), note):
        results.append(pair)
    ((blocks_taken, results_given),) = calls
    assert blocks_taken == 3
    assert results_given < len(results) == 3


def test_tiles_in_memory_are_not_filled_up_to_full_batches():
    runner = SummingRunner(4)
    (block,) = blocks_of(10)
    np.testing.assert_array_equal(predict_tiles(block.tiles, 4, runner), sums(block.tiles))
    assert runner.sizes == [4, 4, 2]
    assert predict_tiles(block.tiles[:0], 4, runner).shape == (0, 2)


def test_probabilities_that_are_not_numbers_are_refused():
    (block,) = blocks_of(3, dtype="f4")
    block.tiles[1] = np.nan
    message = r"computed in float32, isn't a number: its weights are damaged\.$"
    with pytest.raises(ModelError, match=message):
        list(predict_blocks([block], 2, SummingRunner(8)))
    with pytest.raises(ModelError, match=message):
        predict_tiles(block.tiles, 8, SummingRunner(8))
    with pytest.raises(ModelError, match=r"in float16, .* or its values are too large .* try `device` cpu"):
        list(predict_blocks([block], 2, SummingRunner(8, precision="float16")))
