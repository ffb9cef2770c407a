"""Bring a raster onto the model's ground grid: projected, north-up, with true ground pixels of its size.

A scene that already is (within 2 %) is used as it is. Everything else is resampled onto UTM: degrees,
other pixel sizes, Web Mercator (whose ground pixel shrinks with latitude), rotated and GCP-only scenes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, hypot, sqrt

import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine, GCPTransformer

from pipeline.errors import SceneError, UsageError
from pipeline.notes import Note, info, warning

TOLERANCE = 0.02  # of the model's ground pixel: below this resampling would cost more than it gains
AVERAGE_BELOW = 0.7  # pixels finer than this many ground pixels are averaged, not interpolated
COARSE_ABOVE = 2.0  # pixels this many times coarser than the model's earn a warning ...
REFUSE_ABOVE = 10.0  # ... and these no map at all: a tile would be made of a handful of pixels
MAX_WARPED_EXTENT = 2_000_000.0  # metres: further from its central meridian UTM is off by over 1 %
MAX_PIXELS = 10**12  # a continent at 10 m; beyond it is a mistake in the georeference

# Any metric system will do for scenes without one: source and destination are in the same.
PIXEL_SPACE = CRS.from_epsg(32631)


@dataclass(frozen=True)
class SourceGeometry:
    """How a file's own pixels lie on the ground, where it does not say so itself or is overruled.

    Both are handed to GDAL's warper; None leaves what the file says.
    """

    crs: CRS | None = None
    transform: Affine | None = None


@dataclass(frozen=True)
class GroundGrid:
    """The grid that a scene is read on. `crs` is None in pixel space (`--assume-gsd`).

    `resampling` is None if the file's own pixels are that grid. `warp_crs` is what GDAL is told.
    """

    crs: CRS | None
    transform: Affine
    width: int
    height: int
    resampling: Resampling | None
    source: SourceGeometry
    notes: tuple[Note, ...] = ()

    @property
    def warp_crs(self) -> CRS:
        """Return the coordinate system of the grid for GDAL, also in pixel space."""
        return self.crs or PIXEL_SPACE

    def is_grid_of(self, dataset: DatasetReader) -> bool:
        """Tell whether a file's own pixels are exactly this grid's."""
        return (
            self.shape == (dataset.height, dataset.width)
            and dataset.crs == self.crs
            and dataset.transform.almost_equals(self.transform, precision=1e-6)
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        return self.height, self.width


def ground_grid(
    dataset: DatasetReader, name: str, gsd: float, assume_crs: str | None, assume_gsd: float | None
) -> GroundGrid:
    """Return the grid of `gsd` metres on which to read a scene whose finest band is `dataset`.

    Raises SceneError if the scene cannot be placed on the ground, is far too coarse or absurdly large.
    """
    if assume_crs and assume_gsd:
        raise UsageError("--assume-crs and --assume-gsd exclude each other: the first places the scene, the second gives up on it.")
    if assume_gsd:
        if dataset.crs is None and dataset.gcps[1] is None:
            return _checked(_pixel_space_grid(dataset, name, gsd, assume_gsd), name)
    return _checked(_placed_grid(dataset, name, gsd, assume_crs), name)


def _checked(grid: GroundGrid, name: str) -> GroundGrid:
    if grid.width * grid.height > MAX_PIXELS:
        raise SceneError(
            f"{name} would be {grid.width} x {grid.height} pixels on the ground grid: its georeference must be wrong."
        )
    return grid


def _pixel_space_grid(dataset: DatasetReader, name: str, gsd: float, pixel: float) -> GroundGrid:
    if pixel <= 0:
        raise UsageError(f"--assume-gsd is {pixel:g}, but a pixel's size on the ground is greater than 0 m.")
    notes = (
        warning(f"The scene has no coordinate system: classified in pixel space, a pixel being {pixel:g} m; the map has none either."),
        *_sharpness_notes(name, pixel, pixel, gsd),
    )
    source = SourceGeometry(PIXEL_SPACE, Affine(pixel, 0, 0, 0, -pixel, 0))
    if abs(pixel / gsd - 1) <= TOLERANCE:
        return GroundGrid(None, Affine(pixel, 0, 0, 0, -pixel, 0), dataset.width, dataset.height, None, source, notes)
    width, height = (ceil(size * pixel / gsd - 1e-6) for size in (dataset.width, dataset.height))
    transform = Affine(gsd, 0, 0, 0, -gsd, 0)
    return GroundGrid(None, transform, width, height, _resampling(pixel, pixel, gsd), source, notes)


def _placed_grid(dataset: DatasetReader, name: str, gsd: float, assume_crs: str | None) -> GroundGrid:
    crs, to_world, notes = _georeference(dataset, name, assume_crs)
    source = SourceGeometry(crs if assume_crs else None)
    pixel_x, pixel_y = ground_pixel(crs, to_world, dataset.width, dataset.height, name)
    notes += _sharpness_notes(name, pixel_x, pixel_y, gsd)
    t = dataset.transform
    aligned = not dataset.gcps[0] and t.b == t.d == 0
    if aligned and crs.is_projected and all(abs(p / gsd - 1) <= TOLERANCE for p in (pixel_x, pixel_y)):
        if t.a > 0 and t.e < 0:
            return GroundGrid(crs, t, dataset.width, dataset.height, None, source, tuple(notes))
        # Upside down or mirrored: the same pixels, in the other order.
        left, top = min(t.c, t.c + t.a * dataset.width), max(t.f, t.f + t.e * dataset.height)
        flipped = Affine(abs(t.a), 0, left, 0, -abs(t.e), top)
        notes.append(info("The image is stored upside down or mirrored; it is read north up."))
        return GroundGrid(crs, flipped, dataset.width, dataset.height, Resampling.nearest, source, tuple(notes))
    target = crs if _is_own_utm(crs, t, pixel_x, pixel_y) else utm_at(*_centre_lonlat(crs, to_world, dataset))
    left, bottom, right, top = _extent(crs, to_world, target, dataset, name)
    if not (aligned and target == crs):
        # Whole multiples of the pixel size, as Sentinel-2's own grid; in the same system corners stay exact.
        left, top = floor(left / gsd) * gsd, ceil(top / gsd) * gsd
    width, height = ceil((right - left) / gsd - 1e-6), ceil((top - bottom) / gsd - 1e-6)
    resampling = _resampling(pixel_x, pixel_y, gsd)
    notes.append(
        info(
            f"Resampled ({resampling.name}) from ground pixels of {pixel_x:.4g} x {pixel_y:.4g} m in {_crs_name(crs)} "
            f"to {gsd:g} m in {_crs_name(target)}."
        )
    )
    return GroundGrid(target, Affine(gsd, 0, left, 0, -gsd, top), max(width, 1), max(height, 1), resampling, source, tuple(notes))


ToWorld = Callable[[npt.NDArray, npt.NDArray], tuple[npt.NDArray, npt.NDArray]]


def _georeference(dataset: DatasetReader, name: str, assume_crs: str | None) -> tuple[CRS, ToWorld, list[Note]]:
    """Return the scene's system and the mapping of its (columns, rows) into it; stated beats found."""
    gcps, gcp_crs = dataset.gcps
    has_transform = not dataset.transform.is_identity
    crs = dataset.crs or (gcp_crs if gcps else None)
    notes: list[Note] = []
    if assume_crs:
        stated = parse_crs(assume_crs)
        if crs and crs != stated:
            notes.append(warning(f"The scene says it is in {_crs_name(crs)}; {_crs_name(stated)} was used, as --assume-crs states."))
        crs = stated
    if not has_transform and not gcps:
        hint = " (only rational polynomials, RPC)" if dataset.rpcs else ""
        remedy = "orthorectify it first, as gdalwarp -rpc does" if dataset.rpcs else (
            "georeference it first, or classify it in pixel space with --assume-gsd METRES"
        )
        raise SceneError(f"{name} does not say where its pixels lie{hint}: {remedy}.")
    if crs is None:
        raise SceneError(
            f"{name} has no coordinate system: name it with --assume-crs EPSG:CODE, or classify the scene in pixel "
            "space with --assume-gsd METRES."
        )
    if has_transform:
        transform = dataset.transform
        return crs, lambda cols, rows: transform @ (cols, rows) if False else _apply(transform, cols, rows), notes
    return crs, _gcp_mapping(dataset, name), notes
