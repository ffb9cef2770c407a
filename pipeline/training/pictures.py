"""Reading tiles that are pictures: red, green and blue in 8 bits each."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE

from pipeline.errors import TrainingError
from pipeline.training.folders import PICTURES
from pipeline.training.tile_file import TileReader, UnreadableTileError
from pipeline.values import NATURAL_COLOR

# Pillow is asked whether a TIFF is a picture; it would report an error if the answer is no.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)

GDAL_METADATA = 42112
"""The TIFF tag in which GDAL stores band descriptions, among other things."""


def is_picture(path: Path, bands: tuple[str, ...] | None) -> bool:
    """Tell whether to read a tile as a picture.

    An 8-bit color TIFF is one, unless its bands are described or `bands` asks for others than its colors.
    """
    if path.suffix.lower() in PICTURES:
        return True
    if bands is not None and not set(bands) <= set(NATURAL_COLOR):
        return False
    try:
        with Image.open(path) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            is_8_bit = set(tags.get(BITSPERSAMPLE, ())) == {8}
            is_described = 'role="description"' in tags.get(GDAL_METADATA, "")
            return image.mode in ("RGB", "RGBA", "P", "YCbCr") and is_8_bit and not is_described
    except (UnidentifiedImageError, OSError):
        return False


def picture_reader(path: Path, bands: tuple[str, ...] | None) -> TileReader:
    """Return how to read pictures such as the one at `path`, with `bands` as channels (default: as they are).

    Raises:
        TrainingError: pictures do not have these bands.
    """
    if bands is None:
        bands = NATURAL_COLOR
    if not set(bands) <= set(NATURAL_COLOR):
        raise TrainingError(
            f"{path} is a picture and has only red, green and blue ({', '.join(NATURAL_COLOR)}), but "
            f"{', '.join(bands)} are wanted: give multispectral GeoTIFF tiles, or a recipe for pictures."
        )
    return TileReader(partial(_read, channels=[NATURAL_COLOR.index(band) for band in bands]), None)


def _read(path: Path, channels: list[int]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            # Pillow would keep only the upper 8 of 16 bits a color; its raw mode alone shows that.
            if image.mode.startswith(("I", "F")) or (image.tile and ";16" in str(image.tile[0][3])):
                raise TrainingError(
                    f"{path} holds more than 8 bits a pixel: pictures must have 8 bits a color; "
                    "digital numbers belong in GeoTIFFs."
                )
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)[channels]
    except FileNotFoundError as error:
        raise TrainingError(f"The tile {path} does not exist.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's SyntaxError: a broken PNG
        raise UnreadableTileError(f"The tile {path} cannot be read as an image: {error}.") from error
