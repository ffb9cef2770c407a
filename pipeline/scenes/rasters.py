"""The files of a scene, opened on its ground grid: windows of pixels, and which of them are valid."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from rasterio.windows import Window

from pipeline.errors import SceneError
from pipeline.scenes.bands import BandSource, open_raster, without_query
from pipeline.scenes.ground import GroundGrid
from pipeline.scenes.sentinel2 import SCL_INVALID, names_scene_classification

# GDAL computes a warped VRT in blocks of 512 x 128 pixels.
WARP_BLOCK_HEIGHT = 128

# What rasterio raises while reading: its own errors, and GDAL's bare ones from inside the warper.
READ_ERRORS = (RasterioError, CPLE_BaseError, MemoryError)


@dataclass(frozen=True)
class BandLayer:
    """Bands of one file. `channels` says where they belong among the model's bands.

    `files` are all that GDAL reads for it: sidecars, and the sources of a VRT.
    `shape` is (height, width) of the file, `dtype` that of these bands, `scales` and `offsets` GDAL's.
    Invalid pixels are told by `nodata`, by the masks of the bands `masked`, by the band `alpha` being 0,
    by NaN, or, with `zero_is_nodata`, by being 0 in every band; a layer has what applies to it.
    """

    path: str
    files: tuple[str, ...]
    indexes: tuple[int, ...]
    channels: tuple[int, ...]
    grid: GroundGrid
    resampling: Resampling | None
    dtype: np.dtype
    shape: tuple[int, int]
    block_height: int
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: float | None = None
    masked: tuple[int, ...] = ()
    alpha: int | None = None
    zero_is_nodata: bool = False

    @property
    def declares_validity(self) -> bool:
        """Tell whether the file says by itself which pixels are valid."""
        return self.nodata is not None or bool(self.masked) or self.alpha is not None

    def warped_alone(self) -> "tuple[BandLayer, ...]":
        """Return the layers to read this one as: a band each, if it is resampled and declares nodata.

        rasterio's warper takes a pixel for nodata only if all of its bands are; a pixel that misses one
        band is none either, and must not be mixed into its neighbours.
        """
        if self.resampling is None or self.nodata is None:
            return (self,)
        return tuple(
            replace(self, indexes=(i,), channels=(c,), scales=(s,), offsets=(o,))
            for i, c, s, o in zip(self.indexes, self.channels, self.scales, self.offsets, strict=True)
        )

    @property
    def fill(self) -> float | None:
        """Return the value that invalid pixels hold after resampling; None if a mask tells them."""
        if self.nodata is not None:
            return self.nodata
        if self.zero_is_nodata:
            return 0.0
        return math.nan if np.issubdtype(self.dtype, np.floating) and not self.declares_validity else None


def describe_layer(
    path: str,
    indexes: tuple[int, ...],
    channels: tuple[int, ...],
    grid: GroundGrid,
    product_nodata: float | None,
) -> BandLayer:
    """Look at a file's bands; `product_nodata` holds where the file declares no nodata itself."""
    with open_raster(path) as dataset:
        flags = [set(dataset.mask_flag_enums[i - 1]) for i in indexes]
        alpha = _alpha_band(dataset, indexes)
        if alpha is not None:  # as a band: GDAL takes it for the mask in files of 2 or 4 bands only
            masked: tuple[int, ...] = ()
        elif any(MaskFlags.per_dataset in f for f in flags):  # one mask serves all
            masked = indexes[:1]
        else:
            masked = tuple(i for i, f in zip(indexes, flags, strict=True) if not f)
        dtype = np.result_type(*(np.dtype(dataset.dtypes[i - 1]) for i in indexes))
        nodata = dataset.nodatavals[indexes[0] - 1] if MaskFlags.nodata in flags[0] else None
        if nodata is None and not masked and alpha is None:
            nodata = product_nodata
        if nodata is not None and not can_hold(nodata, dtype):
            nodata = None  # a value that no pixel can hold marks none
        own_pixels = grid.resampling is None and grid.is_grid_of(dataset, grid.source)
        layer = BandLayer(
            path=path,
            files=tuple(dataset.files) or (path,),
            indexes=indexes,
            channels=channels,
            grid=grid,
            resampling=None if own_pixels else grid.resampling or Resampling.cubic,
            dtype=dtype,
            shape=dataset.shape,
            block_height=max(dataset.block_shapes[i - 1][0] for i in indexes)
            if own_pixels
            else WARP_BLOCK_HEIGHT,
            scales=tuple(dataset.scales[i - 1] for i in indexes),
            offsets=tuple(dataset.offsets[i - 1] for i in indexes),
            nodata=nodata,
            masked=masked,
            alpha=alpha,
        )
    return layer


def _alpha_band(dataset: DatasetReader, indexes: tuple[int, ...]) -> int | None:
    """Return the band that tells valid pixels, unless it was asked for as an image band."""
    for i, colour in enumerate(dataset.colorinterp, start=1):
        if colour == ColorInterp.alpha and i not in indexes:
            return i
    return None


class OpenLayer:
    """A `BandLayer` with its own handle, for one thread.

    `indexes` are the layer's bands in the dataset; `nodata`, `alpha` and `masked` tell its valid pixels.
    """

    def __init__(
        self,
        layer: BandLayer,
        dataset: DatasetReader,
        *,
        indexes: tuple[int, ...],
        nodata: float | None,
        alpha: int | None = None,
        masked: tuple[int, ...] = (),
    ):
        self.layer = layer
        self._dataset = dataset
        self._indexes = list(indexes)
        self._nodata = nodata
        self._alpha = alpha
        self._masked = list(masked)

    def read(self, window: Window) -> tuple[npt.NDArray, npt.NDArray[np.bool_] | None]:
        """Return pixels (b, h, w), and valid (h, w) or None where all are."""
        try:
            pixels = self._dataset.read(self._indexes, window=window)
            return pixels, self._valid(pixels, window)
        except READ_ERRORS as error:
            raise SceneError(_damaged(self.layer.path, window, error)) from error

    def _valid(self, pixels: npt.NDArray, window: Window) -> npt.NDArray[np.bool_] | None:
        found = []
        if self._alpha:
            found.append(self._dataset.read(self._alpha, window=window) > 0)
        if self._masked:
            found.append((self._dataset.read_masks(self._masked, window=window) > 0).all(axis=0))
        if self._nodata is not None and not math.isnan(self._nodata):
            # Compared as pixels are stored: a float would make a copy in float64.
            found.append((pixels != pixels.dtype.type(self._nodata)).all(axis=0))
        if np.issubdtype(pixels.dtype, np.floating):
            found.append(np.isfinite(pixels).all(axis=0))
        return combine(found)


def combine(found: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_] | None:
    """Return where all masks are valid; None, which costs nothing, if there are none."""
    return None if not found else found[0] if len(found) == 1 else np.asarray(np.logical_and.reduce(found))


def can_hold(value: float, dtype: np.dtype) -> bool:
    """Tell whether pixels of this type can hold the value at all."""
    if np.issubdtype(dtype, np.floating):
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _damaged(path: str, window: Window, error: BaseException) -> str:
    reason = str(error.__cause__ or error).strip(" .")
    return (
        f"{path} cannot be read at rows {window.row_off} to {window.row_off + window.height - 1} ({reason}): "
        "the file is damaged or incomplete, fetch it again."
    )


@contextmanager
def open_layer(layer: BandLayer) -> Iterator[OpenLayer]:
    """Open the layer's file on its grid."""
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(layer.path))
        if layer.resampling is None:
            yield OpenLayer(
                layer,
                dataset,
                indexes=layer.indexes,
                nodata=layer.nodata,
                alpha=layer.alpha,
                masked=layer.masked,
            )
            return
        try:
            bands = _only_bands(layer, dataset, stack)
            warped = stack.enter_context(_warp(layer, bands))
        except (*READ_ERRORS, ValueError) as error:
            raise SceneError(f"{layer.path} cannot be resampled to the ground grid ({error}).") from error
        count = len(layer.indexes)
        alpha = count + 1 if ColorInterp.alpha in warped.colorinterp[count:] else None
        indexes = tuple(range(1, count + 1))
        yield OpenLayer(layer, warped, indexes=indexes, nodata=layer.fill, alpha=alpha)


def _only_bands(layer: BandLayer, dataset: DatasetReader, stack: ExitStack) -> DatasetReader:
    """Return a virtual copy that has the layer's bands, in their order, and then alpha, if there is one.

    The warper resamples every band of its source, wanted or not. The copy of the whole file comes first
    as `vrt://` takes no name with a `?` in it, nor an address that only rasterio understands.
    """
    wanted = [*layer.indexes, *([] if layer.alpha is None else [layer.alpha])]
    if wanted == list(dataset.indexes):
        return dataset
    whole = stack.enter_context(MemoryFile(ext=".vrt"))
    rasterio.shutil.copy(dataset, whole.name, driver="VRT")
    return stack.enter_context(rasterio.open(f"vrt://{whole.name}?bands={','.join(map(str, wanted))}"))


def _warp(layer: BandLayer, dataset: DatasetReader) -> WarpedVRT:
    grid = layer.grid
    # An alpha band that tells valid pixels doubles the warper's time: only without a value for them.
    needs_alpha = layer.fill is None and ColorInterp.alpha not in dataset.colorinterp
    return WarpedVRT(
        dataset,
        src_crs=grid.source.crs,
        src_transform=grid.source.transform,
        src_nodata=layer.fill,
        nodata=layer.fill,
        crs=grid.warp_crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=layer.resampling,
        add_alpha=needs_alpha,
    )


@dataclass(frozen=True)
class MaskLayer:
    """A raster that says which pixels to leave out: 0 = valid, or an L2A scene classification."""

    path: str
    files: tuple[str, ...]
    index: int
    is_scl: bool
    grid: GroundGrid
    own_pixels: bool

    @property
    def name(self) -> str:
        """Return the file's name."""
        return Path(without_query(self.path)).name


def describe_mask(path: str, grid: GroundGrid, scene_shape: tuple[int, int]) -> MaskLayer:
    """Look at a mask file; `scene_shape` is (height, width) of the scene's own pixels.

    It is a scene classification if its name, a band's description or a tag says SCL or "scene
    classification"; else 0 means valid. Raises SceneError if it does not lie on the scene.
    """
    with open_raster(path) as dataset:
        described = [
            i for i in dataset.indexes if names_scene_classification(dataset.descriptions[i - 1] or "")
        ]
        tags = [f"{key} {value}" for key, value in dataset.tags().items()]
        stem = Path(without_query(path)).stem
        is_scl = bool(described) or any(map(names_scene_classification, [stem, *tags]))
        files = tuple(dataset.files) or (path,)
        own_pixels = grid.resampling is None and grid.is_grid_of(dataset)
        if dataset.crs is None or grid.crs is None:
            if dataset.shape != scene_shape:
                raise SceneError(
                    f"The mask {path} has no coordinate system in common with the scene and not its size "
                    f"either ({dataset.width} x {dataset.height} pixels): georeference it."
                )
            own_pixels = grid.resampling is None
        elif not _overlaps(dataset, grid):
            raise SceneError(f"The mask {path} lies beside the scene: give the one that belongs to it.")
    return MaskLayer(path, files, described[0] if described else 1, is_scl, grid, own_pixels)


def _overlaps(dataset: DatasetReader, grid: GroundGrid) -> bool:
    """Tell whether a mask may reach into the scene; only if that is certain it does not, False.

    Points all over the scene are sought among the mask's pixels: the other way round, a mask of the
    whole Earth has no place in UTM.
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

    _VALID_CLASS = np.array([value < 12 and value not in SCL_INVALID for value in range(256)])

    def __init__(self, layer: MaskLayer, dataset: DatasetReader):
        self.layer = layer
        self._dataset = dataset

    def read(self, window: Window) -> npt.NDArray[np.bool_]:
        """Return valid (h, w)."""
        try:
            values = self._dataset.read(self.layer.index, window=window)
        except READ_ERRORS as error:
            raise SceneError(_damaged(self.layer.path, window, error)) from error
        return self._VALID_CLASS[values.astype(np.uint8)] if self.layer.is_scl else values == 0


@contextmanager
def open_mask(layer: MaskLayer) -> Iterator[OpenMask]:
    """Open the mask on its grid, every ground pixel taking the nearest mask pixel's value.

    Beyond the mask's extent the value is 0: valid, or for a scene classification no data. The mask's
    own nodata value is none here, as 0 often is declared as such.
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


def group_by_file(sources: tuple[BandSource, ...]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return {path: (band indexes, channels)}: bands of one file are read in one call."""
    paths = dict.fromkeys(source.path for source in sources)
    grouped = {}
    for path in paths:
        channels = tuple(i for i, source in enumerate(sources) if source.path == path)
        grouped[path] = (tuple(sources[i].index for i in channels), channels)
    return grouped
