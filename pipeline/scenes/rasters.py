"""The band files of a scene, opened on its ground grid: windows of pixels, and which of them are valid."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from pipeline.addresses import scrub, shown
from pipeline.errors import SceneError
from pipeline.scenes.gdal import READ_ERRORS, damaged_at, open_raster
from pipeline.scenes.ground import GroundGrid
from pipeline.scenes.product import BandSource
from pipeline.scenes.screen import Reasons, add_screen
from pipeline.scenes.stored_values import Limits

# GDAL computes a warped VRT in blocks of 512 x 128 pixels.
WARP_BLOCK_HEIGHT = 128


@dataclass(frozen=True)
class BandLayer:
    """Bands of one file, and how to read them on the ground grid.

    Pixels are invalid by `nodata`, by `limits`, by the masks of the bands `masked`, a 0 in the band `alpha`,
    NaN, a 0 in every band (`zero_is_nodata`) or as part of a black border (`black_border`); a layer has those
    of them that apply to it.
    """

    path: str
    """The file, as GDAL names it."""

    files: tuple[str, ...]
    """All that GDAL reads for it: also sidecar files, and the sources of a VRT."""

    indexes: tuple[int, ...]
    """The bands in the file, counted from 1."""

    channels: tuple[int, ...]
    """Where these belong among the model's bands, counted from 0."""

    grid: GroundGrid
    """The ground grid to read them on."""

    resampling: Resampling | None
    """How they are brought onto it; None if the file's own pixels are that grid."""

    dtype: np.dtype
    """The type that holds all of these bands."""

    shape: tuple[int, int]
    """(height, width) of the file in its own pixels."""

    block_height: int
    """Rows in the blocks that GDAL decodes or warps at once."""

    scales: tuple[float, ...]
    """GDAL's scale of each band."""

    offsets: tuple[float, ...]
    """GDAL's offset of each band."""

    nodata: tuple[float | None, ...]
    """The value of invalid pixels in each band, None where it has none: a VRT's bands may differ."""

    limits: tuple[Limits, ...] = ()
    """The lowest and the highest value of each band that a valid pixel may hold; empty if any may be."""

    masked: tuple[int, ...] = ()
    """The bands whose own masks tell invalid pixels."""

    alpha: int | None = None
    """The band that is 0 in invalid pixels."""

    zero_is_nodata: bool = False
    """Whether pixels that are 0 in every band are invalid."""

    black_border: bool = False
    """Whether pixels that are 0 in every band are invalid from the left or right edge up to the first other
    pixel of their row."""

    screened: bool = False
    """Whether invalid pixels are masked before they are resampled, since no single value marks them."""

    samples: bool = False
    """Whether ground pixels take the values of single pixels, as they are, to find out what those mean."""

    @property
    def declares_nodata(self) -> bool:
        """Return whether a value of one of the bands marks invalid pixels."""
        return any(value is not None for value in self.nodata)

    @property
    def declares_validity(self) -> bool:
        """Return whether the file says by itself which pixels are valid."""
        return self.declares_nodata or bool(self.masked) or self.alpha is not None

    @property
    def zero_is_resolved(self) -> bool:
        """Return whether the warper deals with pixels that are 0 in every band."""
        return self.resampling is not None and (self.screened or self.fill == 0)

    def warped_alone(self) -> "tuple[BandLayer, ...]":
        """Return the layers to read this one as: a band each, if it is resampled and declares nodata.

        rasterio's warper takes a pixel for nodata only if all of its bands are. Here one missing band makes a
        pixel invalid, which must not be mixed into its neighbours then.
        """
        if self.resampling is None or self.screened or not self.declares_nodata:
            return (self,)
        return tuple(
            replace(
                self,
                indexes=(index,),
                channels=(self.channels[i],),
                scales=(self.scales[i],),
                offsets=(self.offsets[i],),
                nodata=(self.nodata[i],),
                limits=self.limits[i : i + 1],
            )
            for i, index in enumerate(self.indexes)
        )

    def as_sampled(self) -> "BandLayer":
        """Return the layer to look at the file's own values with: none is a mixture of several."""
        if self.resampling is None:
            return self
        return replace(self, resampling=Resampling.nearest, samples=True)

    @property
    def fill(self) -> float | None:
        """Return the value that invalid pixels hold after resampling; None if a mask marks them."""
        if self.screened or self.samples:
            return None
        if self.nodata[0] is not None:
            return self.nodata[0]
        if self.zero_is_nodata or (self.black_border and not self.declares_validity):
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
        dtype = np.result_type(*(np.dtype(dataset.dtypes[i - 1]) for i in indexes))
        alpha = _alpha_band(dataset, indexes)
        masked = _masked_bands(dataset, indexes, alpha)
        nodata = _declared_nodata(dataset, indexes)
        if not any(value is not None for value in nodata) and not masked and alpha is None:
            nodata = (product_nodata,) * len(indexes)
        own_pixels = grid.resampling is None and grid.is_grid_of(dataset, grid.source)
        own_block_height = max(dataset.block_shapes[i - 1][0] for i in indexes)
        return BandLayer(
            path=path,
            files=tuple(dataset.files) or (path,),
            indexes=indexes,
            channels=channels,
            grid=grid,
            resampling=None if own_pixels else grid.resampling or Resampling.cubic,
            dtype=dtype,
            shape=dataset.shape,
            block_height=own_block_height if own_pixels else WARP_BLOCK_HEIGHT,
            scales=tuple(dataset.scales[i - 1] for i in indexes),
            offsets=tuple(dataset.offsets[i - 1] for i in indexes),
            # A value that no pixel can hold marks none.
            nodata=tuple(v if v is not None and can_hold(v, dtype) else None for v in nodata),
            masked=masked,
            alpha=alpha,
        )


def _alpha_band(dataset: DatasetReader, indexes: tuple[int, ...]) -> int | None:
    """Return the band that marks valid pixels, unless it is read as an image band."""
    for i, color in enumerate(dataset.colorinterp, start=1):
        if color == ColorInterp.alpha and i not in indexes:
            return i
    return None


def _masked_bands(dataset: DatasetReader, indexes: tuple[int, ...], alpha: int | None) -> tuple[int, ...]:
    """Return the bands whose masks have to be read: one if they share it, none beside an alpha band.

    GDAL takes alpha for the mask in files of 2 or 4 bands only; it is always read as a band.
    """
    if alpha is not None:
        return ()
    flags = [dataset.mask_flag_enums[i - 1] for i in indexes]
    if any(MaskFlags.per_dataset in f for f in flags):
        return indexes[:1]
    return tuple(i for i, f in zip(indexes, flags, strict=True) if not f)


def _declared_nodata(dataset: DatasetReader, indexes: tuple[int, ...]) -> tuple[float | None, ...]:
    """Return each band's nodata; where a mask is declared too, GDAL goes by that, and the value is none."""
    flags = dataset.mask_flag_enums
    return tuple(dataset.nodatavals[i - 1] if MaskFlags.nodata in flags[i - 1] else None for i in indexes)


class OpenLayer:
    """A `BandLayer` with its own handle, for one thread.

    `indexes` are the layer's bands in the dataset, which may be a warped one; `nodata`, `limits`, `alpha` and
    `masked` mean the same as in the layer.
    """

    def __init__(
        self,
        layer: BandLayer,
        dataset: DatasetReader,
        *,
        indexes: tuple[int, ...],
        nodata: tuple[float | None, ...] = (),
        limits: tuple[Limits, ...] = (),
        alpha: int | None = None,
        masked: tuple[int, ...] = (),
    ) -> None:
        self.layer = layer
        self._dataset = dataset
        self._indexes = list(indexes)
        # Compared as pixels are stored: a float would make a copy in float64.
        self._nodata = [None if v is None or math.isnan(v) else _as_stored(v, layer.dtype) for v in nodata]
        self._limits = [(_as_stored(low, layer.dtype), _as_stored(high, layer.dtype)) for low, high in limits]
        self._alpha = alpha
        self._masked = list(masked)

    def read(self, window: Window) -> tuple[npt.NDArray, npt.NDArray[np.bool_] | None]:
        """Return pixels (b, h, w), and valid (h, w) or None where all are."""
        try:
            pixels = self._dataset.read(self._indexes, window=window)
            return pixels, self._valid(pixels, window)
        except READ_ERRORS as error:
            raise SceneError(damaged_at(self.layer.path, window, error)) from error

    def _valid(self, pixels: npt.NDArray, window: Window) -> npt.NDArray[np.bool_] | None:
        found = []
        if self._alpha:
            found.append(self._dataset.read(self._alpha, window=window) > 0)
        if self._masked:
            found.append((self._dataset.read_masks(self._masked, window=window) > 0).all(axis=0))
        if self._nodata and all(value == self._nodata[0] for value in self._nodata):
            if self._nodata[0] is not None:
                found.append((pixels != self._nodata[0]).all(axis=0))
        else:
            pairs = zip(pixels, self._nodata, strict=False)
            found += [band != value for band, value in pairs if value is not None]
        if np.issubdtype(pixels.dtype, np.floating):
            found.append(np.isfinite(pixels).all(axis=0))
        for band, (low, high) in zip(pixels, self._limits, strict=False):
            # Two looks for the extremes cost a tenth of what a mask does, and most strips need none.
            if not (band.min() >= low and band.max() <= high):
                found.append((band >= low) & (band <= high))
        return combine(found)


def combine(found: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_] | None:
    """Return where all masks are valid; None, which costs nothing, if there are none."""
    return None if not found else found[0] if len(found) == 1 else np.asarray(np.logical_and.reduce(found))


def _as_stored(value: float, dtype: np.dtype) -> np.generic:
    """Return a number in the type of the pixels, the nearest if it can hold none such."""
    if np.issubdtype(dtype, np.floating):
        with np.errstate(over="ignore"):
            return dtype.type(value)
    limits = np.iinfo(dtype)
    return dtype.type(int(min(max(value, limits.min), limits.max)))


def can_hold(value: float, dtype: np.dtype) -> bool:
    """Return whether pixels of this type can hold the value at all."""
    if np.issubdtype(dtype, np.floating):
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


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
                limits=layer.limits,
                alpha=layer.alpha,
                masked=layer.masked,
            )
            return
        try:
            bands = (_screen if layer.screened else _only_bands)(layer, dataset, stack)
            warped = stack.enter_context(_warp(layer, bands))
        except (*READ_ERRORS, ValueError) as error:
            where, reason = shown(layer.path), scrub(str(error), layer.path)
            raise SceneError(f"{where} cannot be resampled to the ground grid ({reason}).") from error
        count = len(layer.indexes)
        alpha = count + 1 if ColorInterp.alpha in warped.colorinterp[count:] else None
        yield OpenLayer(
            layer,
            warped,
            indexes=tuple(range(1, count + 1)),
            nodata=_values_after_warp(layer),
            limits=() if layer.screened else layer.limits,
            alpha=alpha,
        )


def _values_after_warp(layer: BandLayer) -> tuple[float | None, ...]:
    """Return the values of invalid pixels, one for each band, after resampling."""
    if layer.screened or layer.black_border:
        return ()
    return layer.nodata if layer.samples else (layer.fill,) * len(layer.indexes)


def _only_bands(layer: BandLayer, dataset: DatasetReader, stack: ExitStack) -> DatasetReader:
    """Return a virtual copy that has the layer's bands, in their order, and then alpha, if there is one.

    The warper resamples every band of its source, needed or not. The whole file is copied first because
    `vrt://` takes no name with a `?` in it, nor an address that only rasterio understands.
    """
    needed = [*layer.indexes, *([] if layer.alpha is None else [layer.alpha])]
    if needed == list(dataset.indexes):
        return dataset
    whole = stack.enter_context(MemoryFile(ext=".vrt"))
    rasterio.shutil.copy(dataset, whole.name, driver="VRT")
    return stack.enter_context(rasterio.open(f"vrt://{whole.name}?bands={','.join(map(str, needed))}"))


def _screen(layer: BandLayer, dataset: DatasetReader, stack: ExitStack) -> DatasetReader:
    """Return a virtual copy that has the layer's bands, in their order, and alpha by all that it knows."""
    zero = layer.zero_is_nodata or layer.black_border
    reasons = Reasons(layer.nodata, layer.limits, zero, layer.alpha, layer.masked)
    return add_screen(dataset, layer.indexes, reasons, stack)


def _warp(layer: BandLayer, dataset: DatasetReader) -> WarpedVRT:
    grid = layer.grid
    # An alpha band to tell valid pixels by doubles the warper's time: added only if no value marks them.
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


def group_by_file(sources: tuple[BandSource, ...]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return {path: (band indexes, channels)}: bands of one file are read in one call."""
    paths = dict.fromkeys(source.path for source in sources)
    grouped = {}
    for path in paths:
        channels = tuple(i for i, source in enumerate(sources) if source.path == path)
        grouped[path] = (tuple(sources[i].index for i in channels), channels)
    return grouped
