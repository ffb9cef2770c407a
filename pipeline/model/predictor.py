"""Tiles -> class probabilities, as fast as the device allows. Knows nothing of where tiles lie.

Raw pixels go to the device and are brought to the network's input there. The network runs with its
batch norms folded into the convolutions (on the CPU that alone is worth more than compiling), in the
device's half precision, in channels-last order, and always on full batches: a tile's probabilities then
don't depend on which tiles it shares a batch with, so that a scene that is resumed gives the same map.
"""

import copy
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from pipeline.errors import DeviceError, ModelError
from pipeline.model.card import ModelCard
from pipeline.model.device import find_device, find_precision
from pipeline.model.weights import standardisation
from pipeline.options import PredictorOptions
from pipeline.values import PixelTransform

if TYPE_CHECKING:  # training uses the predictor where there is no affine
    from pipeline.tiles import TileBlock

log = logging.getLogger(__name__)

T = TypeVar("T")
Network = Callable[[Tensor], Tensor]  # standardised tiles (N, bands, tile, tile) -> logits (N, classes)

# A ResNet50 on two cores of an EPYC 9005 is fastest from 64 to 192 tiles and 15 % slower at 256, where
# activations outgrow the cache.
CPU_BATCH = 128
# Enough to fill the largest GPUs, and a ResNet50 still fits into 4 GB at half precision.
CUDA_BATCH = 1024

# Compiling takes 5 to 60 s and, with batch norms folded already, makes a ResNet50 some 5 % faster. On the
# same two cores 12 s are earned back by 200,000 tiles: seven whole Sentinel-2 scenes at stride 64, or half
# of one at stride 16.
COMPILE_MIN_TILES = 200_000


@dataclass
class Plan:
    """How the tiles of one scene are computed; scenes that follow one another may differ in it.

    `at_once` is how many tiles the device is given at a time, fewer than a batch once its memory ran out.
    """

    network: Network
    to_input: "InputTransform"
    tta: bool
    compiled: bool
    threads: int  # how many batches are computed at a time
    batch_size: int
    at_once: int


class Predictor:
    """A network made ready for a device; good for any number of scenes, each after the one before it.

    `network`, in evaluation mode, takes (N, bands, tile, tile) float32, standardised, and gives
    (N, classes) logits; it is copied, not changed. Raises DeviceError if the device asked for is absent.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        options: PredictorOptions = PredictorOptions(),
    ):
        self.card = card
        self.device = find_device(options.device)
        self.precision = find_precision(options.precision, self.device)
        self.batch_size = options.batch_size or (CUDA_BATCH if self.device.type == "cuda" else CPU_BATCH)
        # On the CPU each core takes a batch of its own. Cores that share a batch wait for the slowest of
        # them at every layer, and whenever one of them is called away to read the scene.
        self.threads = 1 if self.device.type == "cuda" else torch.get_num_threads()
        self._compile = options.compile
        self._plain = _prepare(network, self.device, self.precision)
        self._fast: Network | None = None  # the same, once it is compiled
        self._input: tuple[PixelTransform, InputTransform] | None = None  # of the last scene

    def describe(self, expected_tiles: int, tta: bool = False) -> dict[str, Any]:
        """Return what the probabilities of a scene are computed with, for the record."""
        return {
            "device": self._device_name,
            "precision": str(self.precision).removeprefix("torch."),
            "batch_size": self.batch_size,
            "compiled": self._compiles(expected_tiles, tta),
        }

    @property
    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def predict(
        self,
        blocks: "Iterable[TileBlock]",
        transform: PixelTransform,
        expected_tiles: int,
        tta: bool = False,
        fed: Callable[[], None] = lambda: None,
    ) -> "Iterator[tuple[TileBlock, np.ndarray]]":
        """Yield each block, in order, with the probabilities (k, classes) float32 of its tiles.

        `transform` turns the blocks' pixels into the model's training values. `expected_tiles`, how many
        tiles the scene has at most, decides whether compiling pays and how large batches are. `tta` is
        test-time augmentation: the mean over the tile's eight flips and rotations, at eight times the work.
        `fed` is called once the device has all tiles: from then on another thread may have the next scene
        predicted, so that no core is idle while the last batches of this one are computed.

        Raises DeviceError if not even one tile fits into the device's memory, ModelError if the network's
        output doesn't fit its card or isn't a number.
        """
        plan = self.plan(transform, expected_tiles, tta)
        results: deque[_Result] = deque()
        running: deque[_Batch] = deque()
        # While the device computes, the next batches are gathered and sent.
        in_flight = plan.threads + 1
        for batch in _gather(
            blocks, len(self.card.classes), results, plan.batch_size, self.device, buffers=in_flight
        ):
            self._start(batch, plan)
            running.append(batch)
            if len(running) == in_flight:
                running.popleft().finish(self.precision)
            while results and results[0].missing == 0:
                yield results.popleft().as_pair()
        fed()
        for batch in running:
            batch.finish(self.precision)
        for result in results:
            yield result.as_pair()

    def predict_tiles(self, tiles: np.ndarray, transform: PixelTransform, tta: bool = False) -> np.ndarray:
        """Return the probabilities (n, classes) float32 of `tiles` (n, bands, tile, tile) in memory.

        The same as `predict` gives, tile for tile, and raises as it does.
        """
        plan = self.plan(transform, len(tiles), tta)
        batches = torch.from_numpy(tiles).split(self.batch_size)
        futures = [self.submit(plan, self._probabilities, plan, batch) for batch in batches]
        probabilities = torch.cat([future.result().cpu() for future in futures])
        _check_finite(probabilities, self.precision)
        return probabilities.numpy()

    def plan(self, transform: PixelTransform, expected_tiles: int, tta: bool = False) -> Plan:
        """Return how a scene's tiles are computed; the arguments are those of `predict`.

        The scene alone decides, never what was compiled for one before it: maps are repeatable.
        """
        if self._compiles(expected_tiles, tta) and self._fast is None:
            self._fast = self._compile_network()
        fast = self._fast if self._compiles(expected_tiles, tta) else None
        compiled = fast is not None
        batch_size = self.batch_size if compiled else self._even_batches(expected_tiles)
        # Most scenes have the last one's: to send a GPU the same again, it would have to be waited for.
        if self._input is None or self._input[0] != transform:
            self._input = transform, InputTransform(transform, self.card, self.device)
        return Plan(
            network=self._plain if fast is None else fast,
            to_input=self._input[1],
            tta=tta,
            compiled=compiled,
            # Compiled code is made for all cores together and for this very size.
            threads=1 if compiled else self.threads,
            batch_size=batch_size,
            at_once=self.batch_size,
        )

    def submit(self, plan: Plan, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have a call run where the plan's batches are: on the CPU by one of the threads, in turn."""
        if plan.threads > 1:
            return self._pool.submit(call, *arguments)
        return _run_at_once(call, *arguments)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """Threads that compute a batch each, on one core, first come first served."""
        pool = ThreadPoolExecutor(self.threads, "predict", torch.set_num_threads, (1,))
        together = threading.Barrier(self.threads)
        for started in [pool.submit(together.wait) for _ in range(self.threads)]:
            started.result()
        torch.set_num_threads(self.threads)  # what a thread sets for itself, later ones inherit
        return pool

    def _compiles(self, expected_tiles: int, tta: bool) -> bool:
        views = expected_tiles * (8 if tta else 1)
        return self._compile == "always" or (self._compile == "auto" and views >= COMPILE_MIN_TILES)

    def _even_batches(self, expected_tiles: int) -> int:
        """Return the batch size with which a scene's tiles make full batches, as many for each thread."""
        rounds = math.ceil(expected_tiles / (self.threads * self.batch_size))
        return min(self.batch_size, max(1, math.ceil(expected_tiles / (self.threads * max(1, rounds)))))

    def _start(self, batch: "_Batch", plan: Plan) -> None:
        """Have a batch computed; this returns before it is done."""
        batch.probabilities = self.submit(plan, self._probabilities, plan, batch.filled())
        if self.device.type == "cuda":
            on_device = batch.probabilities.result()
            batch.probabilities = _run_at_once(on_device.to, "cpu", non_blocking=True)
            batch.done = torch.cuda.current_stream(self.device).record_event()

    @torch.inference_mode()
    def _probabilities(self, plan: Plan, tiles: Tensor) -> Tensor:
        """Raw tiles on the CPU -> probabilities (N, classes) float32 on the device.

        When memory runs out, fewer tiles are computed at once from then on, half as many each time.
        """
        while True:
            try:
                parts = []
                for part in tiles.split(plan.at_once):
                    values = plan.to_input(part.to(self.device, non_blocking=True))
                    views = _flips_and_rotations(values) if plan.tta else [values]
                    parts.append(torch.stack([self._forward(plan, view) for view in views]).mean(dim=0))
                return torch.cat(parts)
            except torch.OutOfMemoryError as error:
                if min(plan.at_once, len(tiles)) == 1:
                    raise DeviceError(
                        f"The memory of {self._device_name} doesn't hold the network and one tile: "
                        "free it or use `device` cpu."
                    ) from error
                plan.at_once = min(plan.at_once, len(tiles)) // 2
                log.warning("Out of memory: going on with batches of %d tiles.", plan.at_once)
            torch.cuda.empty_cache()

    def _forward(self, plan: Plan, values: Tensor) -> Tensor:
        """Standardised tiles (n, bands, tile, tile) float32 -> probabilities (n, classes) float32."""
        count = len(values)
        if plan.compiled and count < self.batch_size:  # another shape would be compiled anew
            values = F.pad(values, (0,) * 7 + (self.batch_size - count,))
        # Two steps: halving the bytes first makes the reordering twice as fast.
        values = values.to(self.precision).contiguous(memory_format=torch.channels_last)
        logits = plan.network(values)[:count]
        if logits.shape[1] != len(self.card.classes):
            raise ModelError(
                f"The network of {self.card.name} has {logits.shape[1]} outputs "
                f"but its card lists {len(self.card.classes)} classes."
            )
        return torch.softmax(logits.float() / self.card.temperature, dim=1)

    def _compile_network(self) -> Network | None:
        """Compile the network; stay with the plain one where it can't be."""
        log.info("Compiling the network.")
        # Freezing lets the compiler lay out the weights once; on the GPU it has nothing to add.
        options: dict[str, Any] = {"freezing": True} if self.device.type == "cpu" else {}
        shape = self.batch_size, len(self.card.bands), self.card.tile_size, self.card.tile_size
        values = torch.zeros(shape, dtype=self.precision, device=self.device)
        try:
            compiled = torch.compile(self._plain, dynamic=False, options=options)
            with torch.inference_mode():
                compiled(values.contiguous(memory_format=torch.channels_last))
            return compiled
        except RuntimeError as error:  # every error of the compiler is one
            if self._compile == "always":
                raise DeviceError(
                    "The network can't be compiled here (on the CPU that takes a C++ compiler): "
                    f"{str(error).splitlines()[0]}"
                ) from error
            log.warning("The network can't be compiled here; it runs as it is, somewhat slower.")
            log.debug("Why compiling failed.", exc_info=error)
            self._compile = "never"  # the next scene need not try again
            return None


class InputTransform:
    """Raw pixels (N, bands, tile, tile) on the device -> the network's input: float32, standardised."""

    def __init__(self, transform: PixelTransform, card: ModelCard, device: torch.device):
        mean, std = standardisation(card, device)
        self._gain = torch.tensor(transform.gain, device=device).reshape(mean.shape)
        self._bias = torch.tensor(transform.bias, device=device).reshape(mean.shape)
        self._low, self._high = transform.low, transform.high
        self._scale, self._shift = 1 / std, -mean / std

    def __call__(self, pixels: Tensor) -> Tensor:
        """Clip in between, not after both steps in one: limits per band make the clip five times slower."""
        values = pixels.to(torch.float32, copy=True)
        values.mul_(self._gain).add_(self._bias).clamp_(self._low, self._high)
        return values.mul_(self._scale).add_(self._shift)


@dataclass
class _Result:
    """A block and as much as is known of its probabilities."""

    block: "TileBlock"
    probabilities: np.ndarray
    missing: int

    def as_pair(self) -> "tuple[TileBlock, np.ndarray]":
        return self.block, self.probabilities


@dataclass
class _Batch:
    """Tiles of one or more blocks, and whose they are."""

    buffer: Tensor  # (batch size, bands, tile, tile)
    count: int = 0
    owners: list[tuple[_Result, slice]] = field(default_factory=list)  # whose, and which of its tiles
    probabilities: Future[Tensor] | None = None  # on the CPU; to be read when `done`
    done: torch.cuda.Event | None = None

    def filled(self) -> Tensor:
        """Return the tiles as a full batch: what the last one lacks is zeros."""
        self.buffer[self.count :] = 0
        return self.buffer

    @property
    def room(self) -> int:
        return len(self.buffer) - self.count

    def take(self, result: _Result, start: int) -> int:
        """Take tiles of `result` from `start` on while there is room; returns the next one's index."""
        part = slice(start, min(start + self.room, len(result.block.tiles)))
        stop = self.count + part.stop - start
        np.copyto(self.buffer.numpy()[self.count : stop], result.block.tiles[part])
        self.owners.append((result, part))
        self.count = stop
        return part.stop

    def finish(self, precision: torch.dtype) -> None:
        """Wait for the device and hand each block its probabilities, computed in `precision`."""
        assert self.probabilities is not None
        if self.done:
            self.done.synchronize()
        probabilities = self.probabilities.result()[: self.count]
        _check_finite(probabilities, precision)
        values = probabilities.numpy()
        start = 0
        for result, part in self.owners:
            count = part.stop - part.start
            result.probabilities[part] = values[start : start + count]
            result.missing -= count
            start += count


def _flips_and_rotations(tiles: Tensor) -> Iterator[Tensor]:
    """Yield the eight symmetries of square tiles (..., tile, tile)."""
    for view in (tiles, tiles.transpose(-1, -2)):
        yield from (view, view.flip(-1), view.flip(-2), view.flip(-2, -1))


def _run_at_once(call: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(call(*arguments, **options))
    return future


def _gather(
    blocks: "Iterable[TileBlock]",
    classes: int,
    results: deque[_Result],
    batch_size: int,
    device: torch.device,
    buffers: int,
) -> Iterator[_Batch]:
    """Queue each block in `results` and yield its tiles in full batches; the last one may be partial.

    At most `buffers` batches may be in use at a time: they take turns with so many pieces of memory.
    """
    memory: Iterator[Tensor] | None = None
    batch: _Batch | None = None
    for block in blocks:
        count = len(block.index)
        result = _Result(block, np.empty((count, classes), np.float32), missing=count)
        results.append(result)
        taken = 0
        while taken < count:
            memory = memory or cycle(_allocate(block.tiles, batch_size, device) for _ in range(buffers))
            batch = batch or _Batch(next(memory))
            taken = batch.take(result, taken)
            if not batch.room:
                yield batch
                batch = None
    if batch:
        yield batch


def _check_finite(probabilities: Tensor, precision: torch.dtype) -> None:
    """Raise ModelError, naming what may have caused it, for probabilities that aren't numbers."""
    if probabilities.isfinite().all():
        return
    name = str(precision).removeprefix("torch.")
    cause = "its weights are damaged"
    if precision is torch.float16:  # its largest number is 65,504
        cause += ", or its values are too large for this GPU's half precision: try `device` cpu"
    raise ModelError(f"The network's output, computed in {name}, isn't a number: {cause}.")


def _allocate(tiles: np.ndarray, batch_size: int, device: torch.device) -> Tensor:
    """Memory for a batch of such tiles; page-locked if it goes to a GPU, which then can fetch it itself."""
    dtype = torch.from_numpy(np.empty(0, tiles.dtype.newbyteorder("="))).dtype
    return torch.empty((batch_size, *tiles.shape[1:]), dtype=dtype, pin_memory=device.type == "cuda")


def _prepare(network: nn.Module, device: torch.device, precision: torch.dtype) -> nn.Module:
    """Return a copy that is fast: batch norms folded, in the device's layout and precision."""
    try:
        network = fuse(network)
    except (torch.fx.proxy.TraceError, RuntimeError, TypeError) as error:
        log.info(
            "The batch norms of this network stay as they are, since its graph can't be traced: %s", error
        )
        network = copy.deepcopy(network)
    return network.to(device, precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
