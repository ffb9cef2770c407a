"""Masks of a scene, opened on its ground grid: rasters that say which pixels to leave out."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from rasterio.windows import Window

from pipeline.addresses import file_name_of, shown
from pipeline.errors import SceneError
from pipeline.scenes.gdal import READ_ERRORS, damaged_at, open_raster
from pipeline.scenes.ground import GroundGrid
from pipeline.scenes.product import MaskDecoder
from pipeline.scenes.registry import mask_decoder


@dataclass(frozen=True)
class ZeroIsValid:
    """Reads a mask from the user: pixels that are 0 are valid."""

    meaning: str = "Pixels other than 0 are left out by the mask"
    """What is left out, for a note."""

    def valid(self, values: npt.NDArray) -> npt.NDArray[np.bool_]:
        """Return where the mask is 0."""
        return values == 0


@dataclass(frozen=True)
class MaskLayer:
    """A raster that says which pixels to leave out, and how to read it on the ground grid."""

    path: str
    """The file, as GDAL names it."""

    files: tuple[str, ...]
    """All that GDAL reads for it."""

    index: int
    """The band in the file, counted from 1."""

    decoder: MaskDecoder
    """What its values mean."""

    grid: GroundGrid
    """The ground grid to read it on."""

    own_pixels: bool
    """Whether the file's own pixels are that grid."""

    @property
    def name(self) -> str:
        """Return the file's name."""
        return file_name_of(self.path)


def describe_mask(
    path: str, grid: GroundGrid, scene_shape: tuple[int, int], decoder: MaskDecoder | None = None
) -> MaskLayer:
    """Look at a mask file; `scene_shape` is (height, width) of the scene's own pixels.

    Without a `decoder` the mask is a product's if its name, a band's description or a tag says so, such as
    SCL; else 0 means valid. Raises SceneError if it does not lie on the scene.
    """
    with open_raster(path) as dataset:
        descriptions = {i: dataset.descriptions[i - 1] or "" for i in dataset.indexes}
        index = next((i for i, text in descriptions.items() if mask_decoder([text])), 1)
        tags = [f"{key} {value}" for key, value in dataset.tags().items()]
        texts = [*descriptions.values(), Path(file_name_of(path)).stem, *tags]
        return MaskLayer(
            path=path,
            files=tuple(dataset.files) or (path,),
            index=index,
            decoder=decoder or mask_decoder(texts) or ZeroIsValid(),
            grid=grid,
            own_pixels=_lies_on_grid(dataset, path, grid, scene_shape),
        )


def _lies_on_grid(dataset: DatasetReader, path: str, grid: GroundGrid, scene_shape: tuple[int, int]) -> bool:
    """Return whether a mask's own pixels are the grid's; raises SceneError if it misses the scene."""
    if dataset.crs is None or grid.crs is None:
        if dataset.shape != scene_shape:
            raise SceneError(
                f"The mask {shown(path)} has no coordinate system in common with the scene and not its size "
                f"either ({dataset.width} x {dataset.height} pixels): georeference it."
            )
        return grid.resampling is None
    if not _overlaps(dataset, grid):
        raise SceneError(f"The mask {shown(path)} lies beside the scene: give the one that belongs to it.")
    return grid.resampling is None and grid.is_grid_of(dataset)


def _overlaps(dataset: DatasetReader, grid: GroundGrid) -> bool:
    """Return whether a mask may reach into the scene: False only if it certainly does not.

    Points all over the scene are looked up among the mask's pixels. The other way round would fail for a
    mask of the whole Earth, which has no place in UTM.
    """
    cols, rows = np.meshgrid(np.linspace(0, grid.width, 21), np.linspace(0, grid.height, 21))
    ground = grid.transform @ (cols.ravel(), rows.ravel())
    try:
        x, y = transform(grid.crs, dataset.crs, *ground)[:2]
    except READ_ERRORS:
        return True
    col, row = ~dataset.transform @ (np.asarray(x), np.asarray(y))
    if not np.isfinite([col, row]).all():
        return True
    return bool(col.min() < dataset.width and col.max() > 0 and row.min() < dataset.height and row.max() > 0)


class OpenMask:
    """A `MaskLayer` with its own handle, for one thread."""

    def __init__(self, layer: MaskLayer, dataset: DatasetReader) -> None:
        self.layer = layer
        self._dataset = dataset

    def read(self, window: Window) -> npt.NDArray[np.bool_]:
        """Return valid (h, w)."""
        try:
            values = self._dataset.read(self.layer.index, window=window)
        except READ_ERRORS as error:
            raise SceneError(damaged_at(self.layer.path, window, error)) from error
        return self.layer.decoder.valid(values)


@contextmanager
def open_mask(layer: MaskLayer) -> Iterator[OpenMask]:
    """Open the mask on its grid, every ground pixel taking the nearest mask pixel's value.

    Beyond the mask's extent the value is 0: valid, or for a scene classification no data. The nodata value
    that the mask declares is ignored, as it often is 0.
    """
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(layer.path))
        if not layer.own_pixels:
            grid = layer.grid
            ungeoreferenced = dataset.crs is None or grid.crs is None
            dataset = stack.enter_context(
                WarpedVRT(
                    dataset,
                    src_crs=grid.own.crs if ungeoreferenced else None,
                    src_transform=grid.own.transform if ungeoreferenced else None,
                    src_nodata=None,
                    nodata=None,
                    crs=grid.warp_crs,
                    transform=grid.transform,
                    width=grid.width,
                    height=grid.height,
                    resampling=Resampling.nearest,
                )
            )
        yield OpenMask(layer, dataset)
