"""Blocks of tiles -> full batches -> probabilities of each block. Knows no engine: NumPy arrays only.

Batches are always full: a tile's probabilities then don't depend on how many tiles share its batch, so that
a resumed scene gives the same map.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.errors import ModelError

if TYPE_CHECKING:  # training uses the predictor where affine is not installed
    from pipeline.tiles import TileBlock


class Pending(Protocol):
    """Probabilities that are being computed, such as a Future."""

    def result(self) -> np.ndarray:
        """Wait for the probabilities (n, classes) float32 and return them."""
        ...


class BatchRunner(Protocol):
    """What an engine offers for the batches of one scene."""

    @property
    def batch_size(self) -> int:
        """Tiles in each batch."""
        ...

    @property
    def concurrency(self) -> int:
        """How many batches are computed at a time."""
        ...

    @property
    def precision(self) -> str:
        """The precision of the computation, such as float32."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return memory for the tiles of a batch, from which the device reads fast."""
        ...

    def submit(self, tiles: np.ndarray) -> Pending:
        """Start computing the probabilities of `tiles` (n, bands, tile, tile), which stay as they are."""
        ...


def predict_blocks(
    blocks: "Iterable[TileBlock]",
    classes: int,
    runner: BatchRunner,
    on_all_submitted: Callable[[], None] = lambda: None,
) -> "Iterator[tuple[TileBlock, np.ndarray]]":
    """Yield each block, in order, with the probabilities (k, classes) float32 of its tiles.

    Calls `on_all_submitted` as soon as the last batch has been submitted.

    Raises:
        ModelError: a probability is not a number.
    """
    results: deque[_Result] = deque()
    running: deque[tuple[_Batch, Pending]] = deque()
    # While the engine computes, the next batch is filled.
    in_flight = runner.concurrency + 1
    for batch in _fill_batches(blocks, classes, results, runner, buffers=in_flight):
        running.append((batch, runner.submit(batch.padded())))
        if len(running) == in_flight:
            _finish(*running.popleft(), runner.precision)
        while results and results[0].missing == 0:
            yield results.popleft().as_pair()
    on_all_submitted()
    for batch, pending in running:
        _finish(batch, pending, runner.precision)
    for result in results:
        yield result.as_pair()


def predict_tiles(tiles: np.ndarray, batch_size: int, runner: BatchRunner) -> np.ndarray:
    """Return the probabilities (n, classes) float32 of `tiles` (n, bands, tile, tile).

    They are computed `batch_size` at a time; the last batch is not filled up.

    Raises:
        ModelError: a probability is not a number.
    """
    starts = range(0, max(1, len(tiles)), batch_size)
    pending = [runner.submit(tiles[start : start + batch_size]) for start in starts]
    probabilities = np.concatenate([p.result() for p in pending])
    _check_finite(probabilities, runner.precision)
    return probabilities


@dataclass
class _Result:
    """A block and the probabilities of its tiles that are known so far."""

    block: "TileBlock"
    probabilities: np.ndarray
    missing: int

    def as_pair(self) -> "tuple[TileBlock, np.ndarray]":
        return self.block, self.probabilities


@dataclass
class _Batch:
    """Tiles of one or more blocks."""

    buffer: np.ndarray  # (batch size, bands, tile, tile)
    count: int = 0
    sources: list[tuple[_Result, slice]] = field(default_factory=list)  # which tiles of which block

    @property
    def room(self) -> int:
        return len(self.buffer) - self.count

    def padded(self) -> np.ndarray:
        """Return the tiles as a full batch, with zeros in what is left of it."""
        self.buffer[self.count :] = 0
        return self.buffer

    def add(self, result: _Result, start: int) -> int:
        """Copy tiles of `result` from `start` on while there is room; return the next tile's index."""
        part = slice(start, min(start + self.room, len(result.block.tiles)))
        stop = self.count + part.stop - start
        np.copyto(self.buffer[self.count : stop], result.block.tiles[part])
        self.sources.append((result, part))
        self.count = stop
        return part.stop


def _fill_batches(
    blocks: "Iterable[TileBlock]",
    classes: int,
    results: deque[_Result],
    runner: BatchRunner,
    buffers: int,
) -> Iterator[_Batch]:
    """Queue each block in `results` and yield its tiles in full batches; the last one may have room left.

    Batches take turns with `buffers` pieces of memory, so at most that many may be in use at a time.
    """
    memory: Iterator[np.ndarray] | None = None
    batch: _Batch | None = None
    for block in blocks:
        count = len(block.index)
        result = _Result(block, np.empty((count, classes), np.float32), missing=count)
        results.append(result)
        taken = 0
        while taken < count:
            memory = memory or cycle(_allocate(block.tiles, runner) for _ in range(buffers))
            batch = batch or _Batch(next(memory))
            taken = batch.add(result, taken)
            if not batch.room:
                yield batch
                batch = None
    if batch:
        yield batch


def _allocate(tiles: np.ndarray, runner: BatchRunner) -> np.ndarray:
    return runner.allocate((runner.batch_size, *tiles.shape[1:]), tiles.dtype.newbyteorder("="))


def _finish(batch: _Batch, pending: Pending, precision: str) -> None:
    """Wait for a batch and give each block its probabilities."""
    probabilities = pending.result()[: batch.count]
    _check_finite(probabilities, precision)
    start = 0
    for result, part in batch.sources:
        count = part.stop - part.start
        result.probabilities[part] = probabilities[start : start + count]
        result.missing -= count
        start += count


def _check_finite(probabilities: np.ndarray, precision: str) -> None:
    """Raise ModelError, with what may have caused it, if a probability is not a number."""
    if np.isfinite(probabilities).all():
        return
    cause = "its weights are damaged"
    if precision == "float16":  # its largest number is 65,504
        cause += ", or its values are too large for this GPU's half precision: try `device` cpu"
    raise ModelError(f"The network's output, computed in {precision}, isn't a number: {cause}.")
