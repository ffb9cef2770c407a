"""A network of six layers, its card, and blocks of random tiles to predict."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from pipeline.model.card import LandCoverClass, ModelCard
from pipeline.model.predictor import Predictor
from pipeline.options import PredictorOptions
from pipeline.tiles import TileBlock
from pipeline.values import PixelTransform, Scaling

CARD = ModelCard(
    name="tiny",
    architecture="none",
    head="linear",
    bands=("B04", "B03"),
    level="l1c",
    scaling=Scaling((0.0, 0.275), (1.0, 255.0)),
    mean=(90.0, 110.0),
    std=(40.0, 30.0),
    tile_size=16,
    gsd=10.0,
    classes=tuple(LandCoverClass(i, f"class {i}", "#000000") for i in (1, 2, 3)),
    temperature=1.7,
)
TRANSFORM = PixelTransform((0.1, 0.09), (1.0, -2.0), 1.0, 255.0)


def small_network() -> nn.Sequential:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    network[1].weight.data.uniform_(0.5, 2)
    return network.eval()


def blocks_of(*counts: int, dtype: str | type = np.uint16) -> Iterator[TileBlock]:
    """Yield a block of random pixels for each count of tiles."""
    random = np.random.default_rng(0)
    start = 0
    for row, count in enumerate(counts):
        tiles = random.integers(0, 3000, (count, 2, 16, 16)).astype(dtype)
        yield TileBlock(row, 1, np.arange(start, start + count), tiles, row, np.ones((1, count), bool))
        start += count


def expected_probabilities(block: TileBlock) -> np.ndarray:
    """Return what the card says that the network makes of a block, computed in the simplest way."""
    values = torch.from_numpy(TRANSFORM.apply(block.tiles.astype(np.float32)))
    mean, std = (torch.tensor(v).reshape(1, 2, 1, 1) for v in (CARD.mean, CARD.std))
    with torch.inference_mode():
        return torch.softmax(small_network()((values - mean) / std) / CARD.temperature, dim=1).numpy()


def float32_predictor(network: nn.Module | None = None, **options: str | int) -> Predictor:
    """Return a predictor on the CPU whose results are close to `expected_probabilities`."""
    chosen = PredictorOptions("cpu", precision="float32", **options)
    return Predictor(network or small_network(), CARD, chosen)


def assert_expected(block: TileBlock, probabilities: np.ndarray) -> None:
    np.testing.assert_allclose(probabilities, expected_probabilities(block), rtol=1e-4, atol=1e-6)
