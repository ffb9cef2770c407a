"""Pixels as pictures that a browser can show."""

import base64
import io
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from pipeline.model.card import ModelCard
from pipeline.scenes.gdal import GDAL_OPTIONS, open_raster
from pipeline.scenes.rasters import BandLayer, OpenLayer
from pipeline.scenes.scene import Scene, SceneReader
from pipeline.values import EUROSAT_RGB_SCALING, NATURAL_COLOR

LONGEST_SIDE = 1_600
"""Pixels of a scene's picture: sharp on a large screen, less than a megabyte."""

STRIP = 512
"""Rows of a scene that are read at a time."""


def scene_picture(scene: Scene, card: ModelCard, longest: int = LONGEST_SIDE) -> bytes:
    """Return a picture (WebP) of a whole scene as the model sees it, its longest side `longest` at most.

    Invalid pixels are transparent. Masks (clouds) are not applied, so that one can see what they hide. The
    scene is never in memory as a whole.

    Raises:
        SceneError: a file is damaged.
    """
    shrink = min(1.0, longest / max(scene.width, scene.height))
    height, width = (max(1, round(length * shrink)) for length in (scene.height, scene.width))
    read = _read_overviews if shrink < 1 and all(map(_has_overviews, scene.layers)) else _read_means
    pixels, valid = read(replace(scene, masks=()), height, width)
    colors = natural_color(scene.pixel_transform.apply(pixels), card)
    picture = Image.fromarray(np.dstack([colors, np.where(valid, 255, 0).astype(np.uint8)]))
    memory = io.BytesIO()
    picture.save(memory, "WEBP", quality=88)
    return memory.getvalue()


def _read_means(scene: Scene, height: int, width: int) -> tuple[npt.NDArray, npt.NDArray[np.bool_]]:
    """Return pixels (B, height, width) and where they are valid, (height, width) bool.

    Each is the mean of the scene's valid pixels in it, and valid if there is one.
    """
    means = np.empty((len(scene.bands), height, width), np.float32)
    found = np.empty((height, width), bool)
    rows = np.arange(height + 1) * scene.height // height
    cols = np.arange(width) * scene.width // width
    step = max(1, STRIP * height // scene.height)
    with scene.open() as reader:
        for first in range(0, height, step):
            last = min(first + step, height)
            top = int(rows[first])
            pixels, valid = reader.read(top, 0, int(rows[last]) - top, scene.width)
            starts = rows[first:last] - top
            count = _sum_blocks(valid, starts, cols)
            total = _sum_blocks(pixels if valid.all() else np.where(valid, pixels, 0), starts, cols)
            means[:, first:last] = total / np.maximum(count, 1)
            found[first:last] = count > 0
    return means, found


def _sum_blocks(values: npt.NDArray, rows: npt.NDArray, cols: npt.NDArray) -> npt.NDArray:
    """Return the sums of blocks of (..., H, W) that start at these rows and columns."""
    sums = np.add.reduceat(values, cols, axis=-1, dtype=np.float32)
    return np.add.reduceat(sums, rows, axis=-2)


def _has_overviews(layer: BandLayer) -> bool:
    """Return whether a layer is read without resampling from a file that has overviews."""
    if layer.resampling is not None:
        return False
    with open_raster(layer.path) as dataset:
        return bool(dataset.overviews(layer.indexes[0]))


def _read_overviews(scene: Scene, height: int, width: int) -> tuple[npt.NDArray, npt.NDArray[np.bool_]]:
    """Return the same as `_read_means`, from the files' overviews."""
    with rasterio.Env(**GDAL_OPTIONS), ExitStack() as stack:
        layers = []
        for layer in scene.layers:
            dataset = stack.enter_context(open_raster(layer.path))
            layers.append(
                OpenLayer(
                    layer,
                    _Overview(dataset, height, width),
                    indexes=layer.indexes,
                    nodata=layer.nodata,
                    alpha=layer.alpha,
                    masked=layer.masked,
                )
            )
        reader = SceneReader(layers, [], (len(scene.bands), height, width), scene.dtype)
        return reader.read(0, 0, height, width)


class _Overview:
    """Stands in for a dataset at the size of the picture; it always reads the whole, whatever the window."""

    def __init__(self, dataset: DatasetReader, height: int, width: int) -> None:
        self._dataset = dataset
        self._shape = height, width

    def read(self, indexes: int | list[int], window: Window) -> npt.NDArray:
        """Return each pixel as the mean of those it covers."""
        return self._dataset.read(indexes, out_shape=self._shape_of(indexes), resampling=Resampling.average)

    def read_masks(self, indexes: list[int], window: Window) -> npt.NDArray:
        """Return the mask at the center of each pixel."""
        return self._dataset.read_masks(indexes, out_shape=self._shape_of(indexes))

    def _shape_of(self, indexes: int | list[int]) -> tuple[int, ...]:
        return self._shape if isinstance(indexes, int) else (len(indexes), *self._shape)


def natural_color(values: npt.NDArray, card: ModelCard) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8 for training values (B, H, W): natural colours, else the first band in grey."""
    low, high = card.scaling.values
    if set(NATURAL_COLOR) <= set(card.bands):
        values = values[[card.bands.index(band) for band in NATURAL_COLOR]]
    else:
        values = np.repeat(values[:1], 3, axis=0)
    if card.scaling.values != EUROSAT_RGB_SCALING.values:  # those are shown as they are
        values = (values - low) * (255 / (high - low))
    return np.moveaxis(np.rint(np.clip(values, 0, 255)).astype(np.uint8), 0, -1)


def data_url(colors: npt.NDArray[np.uint8], longest: int | None = None) -> str:
    """Return (H, W, 3) uint8 as a PNG in a data URL, shrunk to `longest` pixels if that is given."""
    picture = Image.fromarray(colors)
    if longest:
        picture.thumbnail((longest, longest), Image.Resampling.BOX, reducing_gap=None)
    memory = io.BytesIO()
    picture.save(memory, "PNG")
    return "data:image/png;base64," + base64.b64encode(memory.getvalue()).decode("ascii")
