"""Computing batches with PyTorch: preparing and compiling the network, device memory, augmented views.

Raw pixels go to the device, which turns them into the network's input. The network runs with its batch norms
folded into the convolutions (on the CPU that alone gains more than compiling), in the precision in which the
device is fastest, and in channels-last order.
"""

import copy
import logging
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from pipeline.errors import DeviceError, ModelError
from pipeline.model.batches import Pending
from pipeline.model.card import ModelCard
from pipeline.model.device import find_device, find_precision
from pipeline.model.weights import standardisation
from pipeline.options import PredictorOptions
from pipeline.values import PixelTransform

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


class TorchEngine:
    """A network prepared for a device, and compiled when a scene is long enough."""

    def __init__(self, network: nn.Module, card: ModelCard, options: PredictorOptions) -> None:
        self.card = card
        self.device = find_device(options.device)
        self.precision = find_precision(options.precision, self.device)
        self.batch_size = options.batch_size or (CUDA_BATCH if self.device.type == "cuda" else CPU_BATCH)
        # On the CPU each core computes a batch of its own. Cores that share a batch wait for the slowest of
        # them at every layer, and whenever one of them is interrupted to read the scene.
        self.threads = 1 if self.device.type == "cuda" else torch.get_num_threads()
        self._compile = options.compile
        self._plain = _prepare_network(network, self.device, self.precision)
        self._compiled: Network | None = None
        self._last_input: tuple[PixelTransform, InputTransform] | None = None

    def describe(self, expected_tiles: int, tta: bool) -> dict[str, Any]:
        """Return what the probabilities of a scene are computed with, for its record."""
        return {
            "device": self.device_name,
            "precision": _precision_name(self.precision),
            "batch_size": self.batch_size,
            "compiled": self._compiles(expected_tiles, tta),
        }

    @property
    def device_name(self) -> str:
        """Return the GPU's name, or cpu."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def scene_runner(
        self, transform: PixelTransform, expected_tiles: int, tta: bool = False
    ) -> "TorchRunner":
        """Return what runs a scene's batches; the arguments are those of `Predictor.predict`.

        It depends on the scene alone, never on what was compiled for an earlier one: maps are repeatable.
        """
        if self._compiles(expected_tiles, tta) and self._compiled is None:
            self._compiled = self._compile_network()
        # Asked again, since compiling may have failed.
        fast = self._compiled if self._compiles(expected_tiles, tta) else None
        compiled = fast is not None
        # Most scenes have the same transform as the last one, and sending it to a GPU again would stall it.
        if self._last_input is None or self._last_input[0] != transform:
            self._last_input = transform, InputTransform(transform, self.card, self.device)
        return TorchRunner(
            engine=self,
            network=self._plain if fast is None else fast,
            to_input=self._last_input[1],
            tta=tta,
            compiled=compiled,
            # Compiled code uses all cores together and is made for this very batch size.
            concurrency=1 if compiled else self.threads,
            batch_size=self.batch_size if compiled else self._even_batches(expected_tiles),
            at_once=self.batch_size,
        )

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Threads that compute a batch each, on one core, first come first served."""
        pool = ThreadPoolExecutor(self.threads, "predict", torch.set_num_threads, (1,))
        together = threading.Barrier(self.threads)
        for started in [pool.submit(together.wait) for _ in range(self.threads)]:
            started.result()
        torch.set_num_threads(self.threads)  # later threads inherit the number that a thread sets for itself
        return pool

    def _compiles(self, expected_tiles: int, tta: bool) -> bool:
        views = expected_tiles * (8 if tta else 1)
        return self._compile == "always" or (self._compile == "auto" and views >= COMPILE_MIN_TILES)

    def _even_batches(self, expected_tiles: int) -> int:
        """Return the batch size with which each thread computes the same number of full batches."""
        rounds = math.ceil(expected_tiles / (self.threads * self.batch_size))
        return min(self.batch_size, max(1, math.ceil(expected_tiles / (self.threads * max(1, rounds)))))

    def _compile_network(self) -> Network | None:
        """Compile the network; return None, and never try again, if that fails but is not required.

        Raises:
            DeviceError: compiling fails but was requested.
        """
        log.info("Compiling the network.")
        # Freezing lets the compiler lay out the weights once; on the GPU it has nothing to add.
        options: dict[str, Any] = {"freezing": True} if self.device.type == "cpu" else {}
        shape = self.batch_size, len(self.card.bands), self.card.tile_size, self.card.tile_size
        values = torch.zeros(shape, dtype=self.precision, device=self.device)
        try:
            compiled = torch.compile(self._plain, dynamic=False, options=options)
            with torch.inference_mode():
                compiled(values.contiguous(memory_format=torch.channels_last))
        except RuntimeError as error:  # the base of all of the compiler's errors
            if self._compile == "always":
                raise DeviceError(
                    "The network can't be compiled here (on the CPU that takes a C++ compiler): "
                    f"{str(error).splitlines()[0]}"
                ) from error
            log.warning("The network can't be compiled here; it runs uncompiled, somewhat slower.")
            log.debug("Why compiling failed.", exc_info=error)
            self._compile = "never"
            return None
        return compiled


@dataclass
class TorchRunner:
    """Runs the batches of one scene (a `BatchRunner`)."""

    engine: TorchEngine
    """Whose device, precision and threads compute."""

    network: Network
    """The network, compiled or not."""

    to_input: "InputTransform"
    """What turns the scene's pixels into the network's input."""

    tta: bool
    """Whether to take the mean over a tile's eight flips and rotations."""

    compiled: bool
    """Whether the network is compiled, for batches of exactly the engine's size."""

    concurrency: int
    """How many batches are computed at a time."""

    batch_size: int
    """Tiles in each batch."""

    at_once: int
    """How many tiles the device gets at a time: fewer than a batch once its memory has run out."""

    @property
    def precision(self) -> str:
        """Return the precision's name, such as float32."""
        return _precision_name(self.engine.precision)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return memory for a batch; for a GPU page-locked, so that it is copied while others compute."""
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        return torch.empty(shape, dtype=kind, pin_memory=self.engine.device.type == "cuda").numpy()

    def submit(self, tiles: np.ndarray) -> Pending:
        """Start computing the probabilities of `tiles` (n, bands, tile, tile)."""
        if self.engine.device.type != "cuda":
            return self.run(lambda: self._probabilities(tiles).numpy())
        probabilities = self._probabilities(tiles).to("cpu", non_blocking=True)
        return _CopyFromGpu(probabilities, torch.cuda.current_stream(self.engine.device).record_event())

    def run(self, call: Callable[[], T]) -> Future[T]:
        """Call a function where the batches are computed: in one of the threads, or right here."""
        if self.concurrency > 1:
            return self.engine.pool.submit(call)
        future: Future[T] = Future()
        future.set_result(call())
        return future

    @torch.inference_mode()
    def _probabilities(self, tiles: np.ndarray) -> Tensor:
        """Raw tiles -> probabilities (n, classes) float32 on the device.

        When memory runs out, half as many tiles are computed at once from then on.
        """
        while True:
            try:
                parts = torch.from_numpy(tiles).split(self.at_once)
                return torch.cat([self._mean_over_views(part) for part in parts])
            except torch.OutOfMemoryError as error:
                if min(self.at_once, len(tiles)) == 1:
                    raise DeviceError(
                        f"The memory of {self.engine.device_name} doesn't hold the network and one tile: "
                        "free it or use `device` cpu."
                    ) from error
                self.at_once = min(self.at_once, len(tiles)) // 2
                log.warning("Out of memory: going on with batches of %d tiles.", self.at_once)
            torch.cuda.empty_cache()

    def _mean_over_views(self, tiles: Tensor) -> Tensor:
        values = self.to_input(tiles.to(self.engine.device, non_blocking=True))
        views = _flips_and_rotations(values) if self.tta else [values]
        return torch.stack([self._forward(view) for view in views]).mean(dim=0)

    def _forward(self, values: Tensor) -> Tensor:
        """Standardised tiles (n, bands, tile, tile) float32 -> probabilities (n, classes) float32."""
        count, card = len(values), self.engine.card
        if self.compiled and count < self.engine.batch_size:  # another shape would be compiled anew
            values = F.pad(values, (0,) * 7 + (self.engine.batch_size - count,))
        # Two steps: halving the bytes first makes the reordering twice as fast.
        values = values.to(self.engine.precision).contiguous(memory_format=torch.channels_last)
        logits = self.network(values)[:count]
        if logits.shape[1] != len(card.classes):
            raise ModelError(
                f"The network of {card.name} has {logits.shape[1]} outputs "
                f"but its card lists {len(card.classes)} classes."
            )
        return torch.softmax(logits.float() / card.temperature, dim=1)


class InputTransform:
    """Raw pixels (N, bands, tile, tile) on the device -> the network's input: float32, standardised."""

    def __init__(self, transform: PixelTransform, card: ModelCard, device: torch.device) -> None:
        mean, std = standardisation(card, device)
        self._gain = torch.tensor(transform.gain, device=device).reshape(mean.shape)
        self._bias = torch.tensor(transform.bias, device=device).reshape(mean.shape)
        self._low, self._high = transform.low, transform.high
        self._scale, self._shift = 1 / std, -mean / std

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the network's input.

        Pixels are clipped between the two linear steps: after both in one, the limits would differ by band,
        and clipping would take five times as long.
        """
        values = pixels.to(torch.float32, copy=True)
        values.mul_(self._gain).add_(self._bias).clamp_(self._low, self._high)
        return values.mul_(self._scale).add_(self._shift)


@dataclass
class _CopyFromGpu:
    """Probabilities on their way from the GPU to main memory."""

    probabilities: Tensor
    copied: torch.cuda.Event

    def result(self) -> np.ndarray:
        self.copied.synchronize()
        return self.probabilities.numpy()


def _precision_name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def _flips_and_rotations(tiles: Tensor) -> Iterator[Tensor]:
    """Yield the eight symmetries of square tiles (..., tile, tile)."""
    for view in (tiles, tiles.transpose(-1, -2)):
        yield from (view, view.flip(-1), view.flip(-2), view.flip(-2, -1))


class _ThreadTracer(fx.Tracer):
    """Traces the calls of its own thread.

    While a network is traced, PyTorch sends every module call of the process to the tracer: those of another
    thread, which is predicting with another network, have to pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call of this thread; make any other."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _prepare_network(network: nn.Module, device: torch.device, precision: torch.dtype) -> nn.Module:
    """Return a copy that is fast: batch norms folded, in the device's layout and precision."""
    try:
        traced = fx.GraphModule(network, _ThreadTracer().trace(network))
        network = fuse(traced, no_trace=True)
    except (torch.fx.proxy.TraceError, RuntimeError, TypeError) as error:
        log.info("The batch norms of this network are not folded, since its graph can't be traced: %s", error)
        network = copy.deepcopy(network)
    return network.to(device, precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
