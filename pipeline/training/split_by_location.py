"""Splitting georeferenced tiles by where they are, so that no tile is validated on its neighbor's ground."""

import logging
import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.training.folders import class_of, find_tiles, is_tiff, tile_folder
from pipeline.training.geotiffs import open_tile
from pipeline.training.split_files import Split
from pipeline.training.tile_file import UnreadableTileError

log = logging.getLogger(__name__)

BLOCK_KM = 20
"""Much more than a tile's 640 m, so that few tiles lie at the edge of a block."""

KM_PER_DEGREE = 111.2
"""Of latitude."""

MAX_FOLDS = 20
"""Folds that tiles are dealt into at most."""


def split_by_location(folder: Path, share: float, seed: int) -> Split:
    """Split tiles by blocks of 20 km, each of which is entirely in one part.

    About `share` of the tiles validate, stratified as well as the blocks allow.

    Raises:
        TrainingError: a tile has no georeference, or there are too few blocks.
    """
    names = find_tiles(folder)
    labels = np.array([class_of(name) for name in names])
    blocks = _blocks(tile_folder(folder), names)
    # A share is a number of folds: 0.3 is three of ten.
    least = Fraction(1, MAX_FOLDS)
    wanted = min(max(Fraction(share).limit_denominator(MAX_FOLDS), least), 1 - least)
    if (count := len(set(blocks))) < wanted.denominator:
        raise TrainingError(
            f"The {len(names)} tiles lie in {count} blocks of {BLOCK_KM} km, too few to validate on "
            f"{share:.0%} of them: add tiles from elsewhere or choose `split` random."
        )
    folds = _deal(labels, blocks, wanted.denominator, seed)
    # Some folds are better stratified than others: take the consecutive ones that fit best.
    choices = [
        np.isin(folds, (np.arange(wanted.numerator) + start) % wanted.denominator)
        for start in range(wanted.denominator)
    ]
    chosen = min(choices, key=lambda validation: _worst_share(labels, validation, float(wanted)))
    log.info(
        "split by location: %d of %d tiles, in %d of %d blocks of %d km, are for validation",
        chosen.sum(),
        len(names),
        len(set(blocks[chosen])),
        count,
        BLOCK_KM,
    )
    train, validation = (
        tuple(name for name, to_validate in zip(names, chosen, strict=True) if to_validate == side)
        for side in (False, True)
    )
    return Split(train, validation, f"by location in blocks of {BLOCK_KM} km, seed {seed}")


def block_of(longitude: float, latitude: float) -> tuple[int, int]:
    """Return row and column of the block of about 20 x 20 km that contains a place, given in degrees.

    Rows are bands of latitude; columns start at the prime meridian and have the same width in kilometers in
    every row, measured along the parallel in its middle.
    """
    height = BLOCK_KM / KM_PER_DEGREE
    row = math.floor(latitude / height)
    width = height / math.cos(math.radians((row + 0.5) * height))
    return row, math.floor(longitude / width)


def _deal(labels: np.ndarray, blocks: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold, from 0, of each tile: each block is in one fold, classes are spread evenly."""
    fold_of = np.empty(len(labels), dtype=int)
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about rare classes, which `split_tiles` checks
        try:
            for fold, (_, members) in enumerate(dealer.split(labels, labels, blocks)):
                fold_of[members] = fold
        except ValueError as error:
            raise TrainingError(f"{len(labels)} tiles cannot be split by location: {error}") from error
    return fold_of


def _worst_share(labels: np.ndarray, validation: np.ndarray, wanted: float) -> float:
    """Return how far the share of validation tiles is from the one wanted, in the worst class.

    It is infinite if a class is missing from a part.
    """
    shares = [validation[labels == name].mean() for name in np.unique(labels)]
    return max(abs(share - wanted) if 0 < share < 1 else math.inf for share in shares)


def _blocks(folder: Path, names: Sequence[str]) -> np.ndarray:
    """Return the number of the block that contains each tile's center, in order of appearance."""
    with ThreadPoolExecutor() as pool:
        locating = pool.map(lambda name: _center(folder / name), names)
        centers = list(tqdm(locating, "locating tiles", len(names), disable=None, leave=False))
    # A tile that cannot be read is a block of its own; loading the tiles will report or skip it.
    keys = [block_of(*center) if center else name for center, name in zip(centers, names, strict=True)]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def _center(path: Path) -> tuple[float, float] | None:
    """Return longitude and latitude of a tile's center, or None if the tile cannot be read."""
    if not is_tiff(path):
        raise TrainingError(
            f"{path} is a picture and has no georeference: `split` location takes GeoTIFFs, `split` random "
            "all tiles."
        )
    try:
        with open_tile(path) as dataset:
            if dataset.crs is None:
                raise TrainingError(f"{path} has no georeference (no CRS): choose `split` random.")
            return dataset.lnglat()
    except UnreadableTileError:
        return None
