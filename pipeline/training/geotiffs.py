"""Reading tiles that are multispectral GeoTIFFs. Rasterio is imported when the first one is opened."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import TrainingError
from pipeline.scenes.band_names import band_of
from pipeline.training.tile_file import TileReader, TilesToRead, UnreadableTileError
from pipeline.training.tile_numbers import StoredTile, TileNumbers, find_numbers

log = logging.getLogger(__name__)
# Tiles without georeference can be trained on as well as any.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")

EUROSAT_BANDS = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12"),
    "B8A",
)
"""The order in EuroSAT's multispectral files, which do not name their bands: B8A comes last."""

LOOKED_AT = 200
"""Tiles of a set that tell what its numbers mean."""


def geotiff_reader(path: Path, bands: tuple[str, ...] | None, tiles: TilesToRead) -> TileReader:
    """Return how to read GeoTIFFs such as the one at `path`, with `bands` as channels (default: all).

    Raises:
        TrainingError: rasterio or the file is missing, or the numbers are not reflectance.
        UnreadableTileError: the file cannot be read.
    """
    with open_tile(path) as dataset:
        names = name_bands(_described(dataset))
        described = any(dataset.descriptions)
    if names == EUROSAT_BANDS and not described:
        log.info("The tiles' 13 bands are not named: assuming EuroSAT's order, B01 to B12, then B8A.")
    held = bands or (names if names and all(names) else None)
    first = read_stored(path, bands)
    if first.pixels.dtype == np.uint8:
        return TileReader(partial(_read_8_bit, bands=bands), held)  # type: ignore[arg-type]
    numbers = tiles.numbers or find_numbers(
        [first, *_some_others(path, bands, tiles.paths)],
        held,  # type: ignore[arg-type]
        [path.name],
        tiles.offset,
    )
    return TileReader(partial(_read, bands=bands, numbers=numbers), held, numbers)  # type: ignore[arg-type]


def name_bands(descriptions: Sequence[str | None]) -> tuple[str | None, ...] | None:
    """Return the name of each band by its description; None if no band is described.

    13 bands without descriptions are taken to be EuroSAT's.
    """
    names = tuple(band_of(text or "") for text in descriptions)
    if any(names):
        return names
    return EUROSAT_BANDS if len(names) == len(EUROSAT_BANDS) else None


@contextmanager
def open_tile(path: Path) -> Iterator[Any]:
    """Open a GeoTIFF tile with rasterio.

    Raises:
        TrainingError: rasterio or the file is missing.
        UnreadableTileError: the file cannot be opened, or a read from it fails.
    """
    rasterio = import_rasterio(path)
    if not path.is_file():
        raise TrainingError(f"The tile {path} does not exist.")
    # Without this option GDAL lists the class folder's thousands of files every time it opens one.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        try:
            with rasterio.open(path) as dataset:
                yield dataset
        except rasterio.errors.RasterioError as error:
            raise UnreadableTileError(f"The tile {path} cannot be read as an image: {error}.") from error


def import_rasterio(path: Path) -> Any:
    """Return the module rasterio, which the multispectral tiles at `path` need.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        import rasterio
    except ImportError as error:  # GPU servers that train on pictures do not need it
        raise TrainingError(
            f"{path} is multispectral, and rasterio, which reads such tiles, is not installed here: "
            "'pip install rasterio', or train on pictures."
        ) from error
    return rasterio


def read_stored(path: Path, bands: tuple[str, ...] | None) -> StoredTile:
    """Read a tile as its file holds it.

    Raises:
        TrainingError: the tile holds floating-point numbers or lacks a band.
        UnreadableTileError: the file cannot be read, or has no valid pixel.
    """
    with open_tile(path) as dataset:
        if not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
            raise TrainingError(
                f"{path} holds {dataset.dtypes[0]} numbers: multispectral tiles must hold digital numbers, "
                "reflectance times 10,000 as whole numbers (uint16)."
            )
        indexes = _positions(path, _described(dataset), bands)
        pixels = dataset.read(indexes)
        valid = _valid(dataset, indexes, pixels)
        scales, offsets = (tuple(tags[i - 1] for i in indexes) for tags in (dataset.scales, dataset.offsets))
    if valid is not None and not valid.any():
        raise UnreadableTileError(f"The tile {path} has no valid pixel: all of it is no data.")
    return StoredTile(pixels, valid, scales, offsets)


def _valid(dataset: Any, indexes: list[int], pixels: np.ndarray) -> np.ndarray | None:
    """Return which pixels (T, T) no band, mask or alpha declares to be missing; None if all are there.

    Where nothing is declared, 0 in every band is missing, as in scenes; in 8-bit colours 0 is black.
    """
    alpha = _alpha(dataset)
    flags = [{flag.name for flag in dataset.mask_flag_enums[i - 1]} for i in indexes]
    if alpha is not None:
        valid = dataset.read(alpha) > 0
    elif any(flag != {"all_valid"} for flag in flags):
        valid = dataset.read_masks(indexes).all(axis=0)
    elif pixels.dtype == np.uint8:
        return None
    else:
        valid = pixels.any(axis=0)
    return None if valid.all() else valid


def _alpha(dataset: Any) -> int | None:
    """Return the index of the band that marks valid pixels, None if there is none."""
    kinds = [color.name for color in dataset.colorinterp]
    return kinds.index("alpha") + 1 if "alpha" in kinds else None


def _described(dataset: Any) -> Sequence[str | None]:
    """Return the descriptions of the bands, without an alpha band at the end."""
    count = len(dataset.descriptions)
    return dataset.descriptions[: count - 1] if _alpha(dataset) == count else dataset.descriptions


def _some_others(path: Path, bands: tuple[str, ...] | None, paths: Sequence[Path]) -> Iterator[StoredTile]:
    """Yield tiles from all over the set, without those that cannot be read, which are reported later."""
    for other in paths[:: max(1, len(paths) // LOOKED_AT)]:
        if other != path:
            with suppress(TrainingError):
                yield read_stored(other, bands)


def _read(path: Path, bands: tuple[str, ...] | None, numbers: TileNumbers) -> np.ndarray:
    tile = read_stored(path, bands)
    if tile.pixels.dtype == np.uint8:
        return tile.filled()  # which the others are not: `load_tiles` will say so
    return numbers.digital_numbers(tile, str(path))


def _read_8_bit(path: Path, bands: tuple[str, ...] | None) -> np.ndarray:
    pixels = read_stored(path, bands).filled()
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int16)


def _positions(path: Path, descriptions: Sequence[str | None], bands: tuple[str, ...] | None) -> list[int]:
    """Return the 1-based index in the file of each of `bands`."""
    count = len(descriptions)
    if bands is None:
        return list(range(1, count + 1))
    names = name_bands(descriptions)
    if names is None:
        if count == len(bands):
            return list(range(1, count + 1))
        raise TrainingError(
            f"{path} has {count} bands without names, and {len(bands)} are wanted ({', '.join(bands)}): "
            "describe each band by its name, such as B02, in the files."
        )
    held = ", ".join(name or "unnamed" for name in names)
    for band in bands:
        if names.count(band) != 1:
            how = "lacks" if band not in names else "has more than one"
            raise TrainingError(f"{path} {how} band {band}: its {count} bands are {held}.")
    return [names.index(band) + 1 for band in bands]
