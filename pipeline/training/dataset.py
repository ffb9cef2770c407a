"""Labelled tiles in memory: one array for all of them, and how its pixels become training values."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.training.folders import class_of, find_tiles, is_tiff, tile_folder
from pipeline.training.geotiffs import geotiff_reader
from pipeline.training.pictures import is_picture, picture_reader
from pipeline.training.tile_file import TileReader, TilesToRead, UnreadableTileError
from pipeline.training.tile_numbers import TileNumbers
from pipeline.values import DIGITAL_NUMBERS, Scaling

log = logging.getLogger(__name__)

SKIPPING = "Replace it, or leave out all such tiles with `skip_unreadable`."
NAMED = 10
"""Unreadable tiles that a warning names; further ones are only counted."""


@dataclass(frozen=True)
class TileSet:
    """Labelled tiles."""

    images: torch.Tensor
    """(N, B, T, T): uint8 for pictures and other 8-bit tiles; for multispectral ones int16 digital numbers,
    reflectance times 10,000, clipped to 0-32767."""

    labels: torch.Tensor
    """(N,) int64, indices into `classes`."""

    classes: tuple[str, ...]
    """The names of the class folders, in alphabetical order."""

    names: tuple[str, ...]
    """`Class/file` of each tile."""

    bands: tuple[str, ...] | None = None
    """Sentinel-2 names in channel order; None where the files do not say."""

    numbers: TileNumbers | None = None
    """What the numbers of multispectral tiles mean; None for 8-bit colours."""

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.labels)

    @property
    def size(self) -> int:
        """Return the width and height of a tile in pixels."""
        return self.images.shape[-1]


def value_step(images: torch.Tensor, scaling: Scaling) -> tuple[float, float]:
    """Return (gain, bias) that bring stored pixels to training values, which are then clipped.

    Pictures hold training values; tiles of 16 bits hold digital numbers of 1/10,000 reflectance.
    """
    if images.dtype == torch.uint8:
        return 1.0, 0.0
    return scaling.stretch / DIGITAL_NUMBERS, scaling.to_value(0.0)


def load_tiles(
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    bands: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    offset: float | None = None,
    like: TileSet | None = None,
) -> TileSet:
    """Read the named tiles (default: all) into memory, in the order given.

    `bands` are Sentinel-2 names in the order wanted; by default those that the files hold. Pictures hold
    B04, B03, B02. GeoTIFF bands are chosen by their descriptions; 13 bands without descriptions are assumed
    to be in EuroSAT's order (B8A last), any other number is taken as it comes if as many are wanted. With
    `skip_unreadable`, damaged files are left out with a warning.

    What the numbers of GeoTIFFs mean is found as for a scene, once for all tiles: `offset` is what the user
    states, and `like` another part of the same set, whose numbers mean the same.

    Raises:
        TrainingError: a tile cannot be read, lacks a band, does not hold digital numbers, or differs from
            the others in size; pictures and GeoTIFFs are mixed; a class has no readable tile; rasterio is
            needed but missing; memory does not suffice.
    """
    folder = tile_folder(folder)
    chosen = tuple(find_tiles(folder) if names is None else names)
    _check_one_kind(folder, chosen)
    wanted = None if bands is None else tuple(bands)
    known = like.numbers if like else None
    tiles = TilesToRead(tuple(folder / name for name in chosen), offset, known)
    first, reader = _first_readable(folder, chosen, wanted, tiles, skip_unreadable)
    images = _allocate(len(chosen), first.pixels)

    def load(i: int) -> UnreadableTileError | None:
        try:
            pixels = reader.read(folder / chosen[i])
        except UnreadableTileError as error:
            if skip_unreadable:
                return error
            raise TrainingError(f"{error} {SKIPPING}") from error
        first.check_like(folder / chosen[i], pixels)
        images[i] = pixels
        return None

    with ThreadPoolExecutor() as pool:
        reading = pool.map(load, range(len(chosen)))
        errors = list(tqdm(reading, "reading tiles", len(chosen), disable=None, leave=False))
    classes = tuple(sorted(set(map(class_of, chosen))))
    if any(errors):
        images, chosen = _leave_out(images, chosen, errors)
        if lost := sorted(set(classes) - set(map(class_of, chosen))):
            raise TrainingError(f"No tile of the class '{lost[0]}' can be read.")
    labels = torch.tensor([classes.index(class_of(name)) for name in chosen])
    return TileSet(torch.from_numpy(images), labels, classes, chosen, reader.bands, reader.numbers)


@dataclass(frozen=True)
class _FirstTile:
    """The tile that all others must be like: `pixels` is (B, T, T)."""

    name: str
    pixels: np.ndarray

    def check_like(self, path: Path, pixels: np.ndarray) -> None:
        """Raise TrainingError for a tile of another size, number of bands or data type."""
        ours, theirs = self.pixels.shape, pixels.shape
        if theirs[1:] != ours[1:]:
            raise TrainingError(
                f"{path} is {_size(pixels)} pixels; the first tile, {self.name}, is {_size(self.pixels)}: "
                "all must be of one size."
            )
        if theirs[0] != ours[0]:
            raise TrainingError(
                f"{path} has {theirs[0]} bands; the first tile, {self.name}, has {ours[0]}: all must have "
                "the same number."
            )
        if pixels.dtype != self.pixels.dtype:
            raise TrainingError(
                f"Only one of {path} and the first tile, {self.name}, holds 8-bit values: either all tiles "
                "must, or none."
            )


def _check_one_kind(folder: Path, names: Sequence[str]) -> None:
    tiff, picture = (next((name for name in names if is_tiff(name) is kind), None) for kind in (True, False))
    if tiff and picture:
        raise TrainingError(f"{folder} mixes TIFFs ({tiff}) and other pictures ({picture}): keep one kind.")


def _first_readable(
    folder: Path,
    names: Sequence[str],
    bands: tuple[str, ...] | None,
    tiles: TilesToRead,
    skip_unreadable: bool,
) -> tuple[_FirstTile, TileReader]:
    """Return the first tile that can be read, and how to read the others."""
    for name in names:
        path = folder / name
        try:
            if is_picture(path, bands):
                reader = picture_reader(path, bands)
            else:
                reader = geotiff_reader(path, bands, tiles)
            pixels = reader.read(path)
        except UnreadableTileError as error:
            if not skip_unreadable:
                raise TrainingError(f"{error} {SKIPPING}") from error
        else:
            if pixels.shape[1] != pixels.shape[2]:
                raise TrainingError(f"{path} is {_size(pixels)} pixels; tiles must be square.")
            return _FirstTile(name, pixels), reader
    raise TrainingError(f"None of the {len(names)} tiles in {folder} can be read.")


def _allocate(count: int, tile: np.ndarray) -> np.ndarray:
    try:
        return np.empty((count, *tile.shape), tile.dtype)
    except MemoryError as error:
        raise TrainingError(
            f"{count} tiles of {len(tile)} bands and {_size(tile)} pixels take "
            f"{count * tile.nbytes / 1e9:.1f} GB, more memory than is free: train on fewer tiles or bands."
        ) from error


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"


def _leave_out(
    images: np.ndarray, names: tuple[str, ...], errors: Sequence[UnreadableTileError | None]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return images and names without the unreadable tiles, and warn of those."""
    unreadable = [error for error in errors if error is not None]
    for error in unreadable[:NAMED]:
        log.warning("%s", error)
    log.warning("%d of %d tiles cannot be read and are left out.", len(unreadable), len(names))
    kept = [i for i, error in enumerate(errors) if error is None]
    for row, i in enumerate(kept):  # in place: a copy would double what is large already
        images[row] = images[i]
    return images[: len(kept)], tuple(names[i] for i in kept)
