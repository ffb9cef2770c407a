"""Reading tiles that are multispectral GeoTIFFs. Rasterio is imported when the first one is opened."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import TrainingError
from pipeline.scenes.band_names import band_of
from pipeline.training.tile_file import TileReader, UnreadableTileError

log = logging.getLogger(__name__)
# Tiles without georeference can be trained on as well as any.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")

EUROSAT_BANDS = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12"),
    "B8A",
)
"""The order in EuroSAT's multispectral files, which do not name their bands: B8A comes last."""

DIGITAL_NUMBER_LIMIT = 32_767
"""The largest int16: reflectance 3.3, which only glint and broken pixels exceed."""


def geotiff_reader(path: Path, bands: tuple[str, ...] | None) -> TileReader:
    """Return how to read GeoTIFFs such as the one at `path`, with `bands` as channels (default: all).

    Raises:
        TrainingError: rasterio or the file is missing.
        UnreadableTileError: the file cannot be read.
    """
    with open_tile(path) as dataset:
        names = name_bands(dataset.descriptions)
    if names == EUROSAT_BANDS and not any(dataset.descriptions):
        log.info("The tiles' 13 bands are not named: assuming EuroSAT's order, B01 to B12, then B8A.")
    held = names if names and all(names) else None
    return TileReader(partial(_read, bands=bands), bands or held)  # type: ignore[arg-type]


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


def _read(path: Path, bands: tuple[str, ...] | None) -> np.ndarray:
    with open_tile(path) as dataset:
        if not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
            raise TrainingError(
                f"{path} holds {dataset.dtypes[0]} numbers: multispectral tiles must hold digital numbers, "
                "reflectance times 10,000 as whole numbers (uint16)."
            )
        pixels = dataset.read(_positions(path, dataset.descriptions, bands))
    if pixels.dtype == np.uint8:
        return pixels
    return np.clip(pixels, 0, DIGITAL_NUMBER_LIMIT).astype(np.int16)


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
