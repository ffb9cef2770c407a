"""Tiles -> class probabilities: the one entry to prediction. Knows nothing of where tiles lie."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from pipeline.model.batches import predict_blocks, predict_tiles
from pipeline.model.card import ModelCard
from pipeline.model.torch_engine import TorchEngine
from pipeline.options import PredictorOptions
from pipeline.values import PixelTransform

if TYPE_CHECKING:  # training uses the predictor where affine is not installed
    from pipeline.tiles import TileBlock


class Predictor:
    """A network that is ready to compute on a device, for any number of scenes, one after another."""

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        options: PredictorOptions = PredictorOptions(),
    ) -> None:
        """Prepare a copy of `network` for the device.

        `network`, in evaluation mode, takes (N, bands, tile, tile) float32, standardised, and gives
        (N, classes) logits.

        Raises:
            DeviceError: the requested device is not available.
        """
        self.card = card
        self.engine = TorchEngine(network, card, options)
        self.device = self.engine.device
        self.precision = self.engine.precision

    @property
    def tiles_at_a_time(self) -> int:
        """Return how many tiles keep the whole device busy."""
        return self.engine.batch_size * self.engine.threads

    def describe(self, expected_tiles: int, tta: bool = False) -> dict[str, Any]:
        """Return what the probabilities of a scene are computed with, for its record."""
        return self.engine.describe(expected_tiles, tta)

    def predict(
        self,
        blocks: "Iterable[TileBlock]",
        transform: PixelTransform,
        expected_tiles: int,
        tta: bool = False,
        on_all_submitted: Callable[[], None] = lambda: None,
    ) -> "Iterator[tuple[TileBlock, np.ndarray]]":
        """Yield each block, in order, with the probabilities (k, classes) float32 of its tiles.

        `transform` turns the blocks' pixels into the model's training values. `expected_tiles`, the number
        of tiles in the scene at most, decides whether the network is compiled and how large batches are.
        `tta` is test-time augmentation: the mean over the tile's eight flips and rotations, which takes
        eight times as long. `on_all_submitted` is called once the device has all tiles: from then on
        another thread may predict the next scene, so that no core is idle while the last batches of this
        one are computed.

        Raises:
            DeviceError: not even one tile fits into the device's memory.
            ModelError: the network's output doesn't fit its card or isn't a number.
        """
        runner = self.engine.scene_runner(transform, expected_tiles, tta)
        yield from predict_blocks(blocks, len(self.card.classes), runner, on_all_submitted)

    def predict_tiles(self, tiles: np.ndarray, transform: PixelTransform, tta: bool = False) -> np.ndarray:
        """Return the probabilities (n, classes) float32 of `tiles` (n, bands, tile, tile) in memory.

        Arguments, probabilities and errors are those of `predict`.
        """
        runner = self.engine.scene_runner(transform, len(tiles), tta)
        return predict_tiles(tiles, self.engine.batch_size, runner)
