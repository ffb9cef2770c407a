"""Bring a raster onto the model's ground grid: projected, north-up, with true ground pixels of its size.

A scene that already is (within 2 %) is used as it is. Everything else is resampled onto UTM: degrees,
other pixel sizes, rotated and GCP-only scenes, and projections whose metres are not those of the ground, such
as Web Mercator, even where the ground pixel happens to be right.
"""

from dataclasses import dataclass, replace
from math import ceil, floor, hypot, isfinite, sqrt

import numpy as np
import pyproj
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from pipeline.errors import SceneError, UsageError
from pipeline.notes import Note, info, warning

TOLERANCE = 0.02  # of the model's ground pixel: below this resampling would cost more than it gains
AVERAGE_BELOW = 0.7  # pixels finer than this many ground pixels are averaged, not interpolated
COARSE_ABOVE = 2.0  # pixels this many times coarser than the model's earn a warning ...
REFUSE_ABOVE = 10.0  # ... and these no map at all: a tile would be made of a handful of pixels
MAX_WARPED_EXTENT = 2_000_000.0  # metres: further from its central meridian UTM is off by over 1 %
MAX_PIXELS = 10**12  # a continent at 10 m; beyond it is a mistake in the georeference

# Any metric system will do for scenes without one, since source and destination share it.
PIXEL_SPACE = CRS.from_epsg(32631)

LonLat = tuple[float, float]
"""Longitude and latitude in degrees, WGS 84."""


@dataclass(frozen=True)
class SourceGeometry:
    """How a file's own pixels lie on the ground, where it does not say so itself or is overruled.

    Both are handed to GDAL's warper; None leaves what the file says.
    """

    crs: CRS | None = None
    """The coordinate system."""

    transform: Affine | None = None
    """From the file's pixels to its coordinates."""


@dataclass(frozen=True)
class GroundGrid:
    """The grid that a scene is read on."""

    crs: CRS | None
    """The coordinate system; None in pixel space (`assume_gsd`)."""

    transform: Affine
    """From the grid's pixels to its coordinates."""

    width: int
    """Pixels from left to right."""

    height: int
    """Pixels from top to bottom."""

    resampling: Resampling | None
    """How files are brought onto the grid; None if the pixels of the finest band are that grid."""

    source: SourceGeometry
    """What GDAL does not find out from the files itself."""

    own: SourceGeometry
    """How the pixels of the finest band lie."""

    notes: tuple[Note, ...] = ()
    """What was found or assumed."""

    @property
    def warp_crs(self) -> CRS:
        """Return the coordinate system of the grid for GDAL, also in pixel space."""
        return self.crs or PIXEL_SPACE

    def is_grid_of(self, dataset: DatasetReader, source: SourceGeometry = SourceGeometry()) -> bool:
        """Return whether a file's own pixels are exactly this grid's; `source` overrules its georeference."""
        return (
            self.shape == dataset.shape
            and (source.crs or dataset.crs) == self.warp_crs
            and (source.transform or dataset.transform).almost_equals(self.transform, precision=1e-6)
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        return self.height, self.width


def center_lonlat(crs: CRS | None, transform: Affine, width: int, height: int) -> LonLat | None:
    """Return where the centre of a grid is; None in pixel space, or where it lies off the Earth."""
    if crs is None:
        return None
    place = _lonlat(crs, *(transform @ (width / 2, height / 2)))
    return place if all(map(isfinite, place)) else None


def ground_grid(
    dataset: DatasetReader, name: str, gsd: float, assume_crs: str | None, assume_gsd: float | None
) -> GroundGrid:
    """Return the grid of `gsd` metres on which to read a scene whose finest band is `dataset`.

    Raises SceneError if the scene cannot be placed on the ground, is far too coarse or absurdly large,
    UsageError if the assumptions make no sense.
    """
    if assume_crs and assume_gsd:
        raise UsageError(
            "`assume_crs` places the scene and `assume_gsd` gives up on that: state one of them."
        )
    if assume_gsd is not None and dataset.crs is None and dataset.gcps[1] is None:
        grid = _pixel_space_grid(dataset, name, gsd, assume_gsd)
    else:
        grid = _placed_grid(dataset, name, gsd, assume_crs)
        if assume_gsd is not None:
            unused = info(
                "gsd-not-needed",
                "assume_gsd",
                "The scene has a coordinate system of its own: `assume_gsd` was not needed.",
            )
            grid = replace(grid, notes=(*grid.notes, unused))
    if grid.width * grid.height > MAX_PIXELS:
        raise SceneError(
            f"{name} would be {grid.width} x {grid.height} pixels at {gsd:g} m: its georeference must be "
            "wrong."
        )
    return grid


def _pixel_space_grid(dataset: DatasetReader, name: str, gsd: float, pixel: float) -> GroundGrid:
    if not (isfinite(pixel) and pixel > 0):
        raise UsageError(f"`assume_gsd` is {pixel:g}, but a pixel's size on the ground is greater than 0 m.")
    notes = (
        warning(
            "pixel-space",
            "assume_gsd",
            f"The scene has no coordinate system: it is classified in pixel space, pixels being {pixel:g} m "
            "as `assume_gsd` states, and the map has no coordinate system either.",
        ),
        *_sharpness_notes(name, pixel, gsd),
    )
    own = Affine(pixel, 0, 0, 0, -pixel, 0)
    source = SourceGeometry(PIXEL_SPACE, own)
    if abs(pixel / gsd - 1) <= TOLERANCE:
        return GroundGrid(None, own, dataset.width, dataset.height, None, source, source, notes)
    width, height = (ceil(size * pixel / gsd - 1e-6) for size in (dataset.width, dataset.height))
    resampling = _resampling(pixel, gsd)
    return GroundGrid(None, Affine(gsd, 0, 0, 0, -gsd, 0), width, height, resampling, source, source, notes)


@dataclass(frozen=True)
class _Placement:
    """Where a file's pixels lie: an affine mapping from (column, row) into a coordinate system."""

    name: str
    """The scene, for messages."""

    crs: CRS
    """The coordinate system."""

    transform: Affine
    """From pixels to its coordinates."""

    width: int
    """Pixels from left to right."""

    height: int
    """Pixels from top to bottom."""

    source: SourceGeometry
    """What GDAL does not find out from the file itself."""

    notes: tuple[Note, ...]
    """What was found or assumed."""

    @property
    def own(self) -> SourceGeometry:
        """Return how the file's own pixels lie."""
        return SourceGeometry(self.source.crs or self.crs, self.transform)

    @property
    def is_aligned(self) -> bool:
        """Return whether the pixels' sides are parallel to the axes."""
        t = self.transform
        return abs(t.b) + abs(t.d) < 1e-9 * (abs(t.a) + abs(t.e))

    def at(self, col: float, row: float) -> tuple[float, float]:
        """Return the coordinates of a place in the image."""
        t = self.transform
        return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f

    def lonlat_at(self, col: float, row: float) -> tuple[float, float]:
        """Return the longitude and latitude of a place in the image."""
        return _lonlat(self.crs, *self.at(col, row))


def _placed_grid(dataset: DatasetReader, name: str, gsd: float, assume_crs: str | None) -> GroundGrid:
    placement = _place(dataset, name, assume_crs)
    pixel = _ground_pixel(placement)
    size = sqrt(pixel[0] * pixel[1])
    placement = replace(placement, notes=(*placement.notes, *_sharpness_notes(name, size, gsd)))
    fits = all(abs(side / gsd - 1) <= TOLERANCE for side in pixel)
    if placement.is_aligned and fits and _is_true_to_ground(placement, pixel):
        return _own_grid(placement)
    return _resampled_grid(placement, pixel, gsd)


def _own_grid(placement: _Placement) -> GroundGrid:
    """Return the grid of the file's own pixels, turned north up if they are not."""
    t, width, height = placement.transform, placement.width, placement.height
    grid = GroundGrid(placement.crs, t, width, height, None, placement.source, placement.own, placement.notes)
    if t.a > 0 > t.e:
        return grid
    left, top = min(t.c, t.c + t.a * width), max(t.f, t.f + t.e * height)
    note = info("mirrored", None, "The image is stored upside down or mirrored; it is read north up.")
    return replace(
        grid,
        transform=Affine(abs(t.a), 0, left, 0, -abs(t.e), top),
        resampling=Resampling.nearest,  # the same pixels in another order: nearest changes none of them
        notes=(*placement.notes, note),
    )


def _resampled_grid(placement: _Placement, pixel: tuple[float, float], gsd: float) -> GroundGrid:
    """Return a grid of `gsd` metres in UTM; `pixel` is (width, height) of a source pixel in metres."""
    size = sqrt(pixel[0] * pixel[1])
    crs, keeps_crs = placement.crs, _is_true_utm(placement, size)
    target = crs if keeps_crs else _utm_at(*placement.lonlat_at(placement.width / 2, placement.height / 2))
    left, bottom, right, top = _extent(placement, target)
    if not (placement.is_aligned and target == crs):
        # Whole multiples of the pixel, as Sentinel-2's own grid. In the same system corners stay exact.
        left, top = floor(left / gsd) * gsd, ceil(top / gsd) * gsd
    width, height = (max(1, ceil(span / gsd - 1e-6)) for span in (right - left, top - bottom))
    resampling = _resampling(size, gsd)
    note = info(
        "resampled",
        None,
        f"Resampled ({resampling.name}) from ground pixels of {pixel[0]:.4g} x {pixel[1]:.4g} m in "
        f"{crs_name(crs)} to {gsd:g} m in {crs_name(target)}.",
    )
    transform = Affine(gsd, 0, left, 0, -gsd, top)
    notes = (*placement.notes, note)
    return GroundGrid(target, transform, width, height, resampling, placement.source, placement.own, notes)


def _place(dataset: DatasetReader, name: str, assume_crs: str | None) -> _Placement:
    """Return where the file's pixels lie: by its affine transform, else by its ground control points."""
    crs, notes = _coordinate_system(dataset, name, assume_crs)
    t = dataset.transform
    if t.is_identity:
        crs, t, note = _fit_control_points(dataset, name, crs)
        source, notes = SourceGeometry(crs, t), [*notes, note]
    elif crs.is_geographic and (centre := _beyond_dateline(dataset)) is not None:
        # The warper would look for what lies beyond the dateline on the other side of the Earth.
        source = SourceGeometry(CRS.from_proj4(f"{crs.to_proj4()} +lon_wrap={centre:.6f}"))
    else:
        source = SourceGeometry(crs if assume_crs else None)
    return _Placement(name, crs, t, dataset.width, dataset.height, source, tuple(notes))


def _coordinate_system(dataset: DatasetReader, name: str, assume_crs: str | None) -> tuple[CRS, list[Note]]:
    """Return the system of the scene's georeference; what the user states beats what the file says."""
    gcps, gcp_crs = dataset.gcps
    if dataset.transform.is_identity and not gcps:
        if dataset.rpcs:
            raise SceneError(
                f"{name} is placed by rational polynomials (RPC) only: orthorectify it with gdalwarp -rpc."
            )
        raise SceneError(
            f"{name} does not say where its pixels lie: georeference it, or classify it in pixel space with "
            "`assume_gsd` METRES."
        )
    found = dataset.crs or gcp_crs
    if assume_crs:
        stated = parse_crs(assume_crs)
        if found and found != stated:
            text = f"{crs_name(stated)} was used, as `assume_crs` states; the file says {crs_name(found)}."
            return stated, [warning("crs-overruled", "assume_crs", text)]
        return stated, []
    if not found:
        raise SceneError(
            f"{name} has no coordinate system: name it with `assume_crs` EPSG:CODE, or classify the scene in "
            "pixel space with `assume_gsd` METRES."
        )
    return found, []


def _beyond_dateline(dataset: DatasetReader) -> float | None:
    """Return the longitude in the middle of the image if it reaches beyond 180 degrees, east or west."""
    t = dataset.transform
    corners = ((col, row) for col in (0, dataset.width) for row in (0, dataset.height))
    x = [t.a * col + t.b * row + t.c for col, row in corners]
    return (min(x) + max(x)) / 2 if max(x) > 180 or min(x) < -180 else None


def _fit_control_points(dataset: DatasetReader, name: str, crs: CRS) -> tuple[CRS, Affine, Note]:
    """Return a UTM zone, the affine mapping into it that fits the ground control points best, and a note.

    Raises SceneError if it misses one of them by more than a pixel: then the image is bent (raw, or over
    mountains) and needs a tool made for that.
    """
    points = dataset.gcps[0]
    world = np.array([(p.x, p.y) for p in points])
    target = _utm_at(*_lonlat(crs, *world.mean(axis=0)))
    to_target = pyproj.Transformer.from_crs(crs.to_wkt(), target.to_wkt(), always_xy=True)
    ground = np.column_stack(to_target.transform(world[:, 0], world[:, 1]))
    design = np.array([(p.col, p.row, 1) for p in points])
    origin = ground.mean(axis=0)  # keeps digits
    fitted, _, rank, _ = np.linalg.lstsq(design, ground - origin, rcond=None)
    if rank < 3 or not np.isfinite(fitted).all():
        raise SceneError(f"{name} has too few ground control points to be placed: georeference it first.")
    miss = float(np.abs(design @ fitted + origin - ground).max())
    (a, d), (b, e), (c, f) = fitted.tolist()
    if miss > sqrt(abs(a * e - b * d)):
        raise SceneError(
            f"{name} has ground control points that no straight grid fits (one is missed by {miss:.0f} m): "
            "warp it first with gdalwarp -tps."
        )
    note = info(
        "control-points",
        None,
        f"Placed by {len(points)} ground control points, none missed by more than {miss:.1f} m.",
    )
    return target, Affine(a, b, c + origin[0], d, e, f + origin[1]), note


def parse_crs(text: str) -> CRS:
    """Return the coordinate system that a user names, such as EPSG:32633; UsageError if there is none."""
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise UsageError(
            f"`assume_crs` names '{text}', which is no coordinate system: write EPSG:CODE."
        ) from error


def crs_name(crs: CRS) -> str:
    """Return a short name of a coordinate system: its EPSG code, else its own name."""
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else pyproj.CRS.from_wkt(crs.to_wkt()).name


def _lonlat(crs: CRS, x: float, y: float) -> LonLat:
    to_degrees = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    return float(lon), float(lat)


def _ground_pixel(placement: _Placement) -> tuple[float, float]:
    """Return width and height in metres of the pixel at the scene's centre, measured on the ellipsoid.

    One measure for Web Mercator, degrees, feet and UTM alike.
    """
    col, row = placement.width / 2, placement.height / 2
    ends = ((col - 0.5, row), (col + 0.5, row)), ((col, row - 0.5), (col, row + 0.5))
    geod = pyproj.Geod(ellps="WGS84")
    try:
        metres = [geod.inv(*placement.lonlat_at(*a), *placement.lonlat_at(*b))[2] for a, b in ends]
    except (ProjError, ValueError) as error:
        raise SceneError(
            f"{placement.name} is in a coordinate system that cannot be placed on the Earth "
            f"({crs_name(placement.crs)}): name the right one with `assume_crs` EPSG:CODE."
        ) from error
    if not all(isfinite(m) and m > 0 for m in metres):
        raise SceneError(
            f"{placement.name} lies outside of its coordinate system {crs_name(placement.crs)}: is it the "
            "right one?"
        )
    return metres[0], metres[1]


def _sharpness_notes(name: str, pixel: float, gsd: float) -> list[Note]:
    if pixel > REFUSE_ABOVE * gsd:
        raise SceneError(
            f"{name} has ground pixels of {pixel:.4g} m, more than {REFUSE_ABOVE:g} times the model's "
            f"{gsd:g} m: too coarse to be classified."
        )
    if pixel > COARSE_ABOVE * gsd:
        return [
            warning(
                "pixels-coarse",
                None,
                f"The ground pixels are {pixel:.4g} m, the model was trained on {gsd:g} m: blurred tiles are "
                "classified less surely.",
            )
        ]
    return []


def _resampling(pixel: float, gsd: float) -> Resampling:
    return Resampling.average if pixel < AVERAGE_BELOW * gsd else Resampling.cubic


def _is_true_to_ground(placement: _Placement, pixel: tuple[float, float]) -> bool:
    """Return whether the sides of an aligned pixel are as long in the projection as on the ground."""
    if not placement.crs.is_projected:
        return False
    metres = placement.crs.linear_units_factor[1]
    sides = abs(placement.transform.a) * metres, abs(placement.transform.e) * metres
    return all(abs(side / ground - 1) <= TOLERANCE for side, ground in zip(sides, pixel, strict=True))


def _is_true_utm(placement: _Placement, pixel: float) -> bool:
    """Return whether the scene is in UTM (or ETRS89, NAD83 ...) already, and not far outside its zone."""
    crs, t = placement.crs, placement.transform
    if pyproj.CRS.from_wkt(crs.to_wkt()).utm_zone is None or crs.linear_units_factor[1] != 1:
        return False
    nominal = sqrt(hypot(t.a, t.d) * hypot(t.b, t.e))
    return abs(pixel / nominal - 1) <= TOLERANCE


def _utm_at(lon: float, lat: float) -> CRS:
    """Return the UTM zone of a place; beyond 84 N and 80 S the polar stereographic system."""
    if lat > 84 or lat < -80:
        return CRS.from_epsg(32661 if lat > 0 else 32761)
    zone = int((lon + 180) % 360 // 6) + 1
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def _extent(placement: _Placement, target: CRS) -> tuple[float, float, float, float]:
    """Return (left, bottom, right, top) of the scene's outline in the target system.

    Only the outline is projected, straight from system to system: a detour by degrees would take a scene
    across the dateline once around the world.
    """
    w, h, steps = placement.width, placement.height, np.linspace(0, 1, 33)
    cols = np.concatenate([steps * w, np.full(33, w), steps * w, np.zeros(33)])
    rows = np.concatenate([np.zeros(33), steps * h, np.full(33, h), steps * h])
    t, crs = placement.transform, placement.crs
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    if crs != target:
        x, y = pyproj.Transformer.from_crs(crs.to_wkt(), target.to_wkt(), always_xy=True).transform(x, y)
    left, bottom, right, top = (float(v) for v in (np.min(x), np.min(y), np.max(x), np.max(y)))
    if not max(right - left, top - bottom) <= MAX_WARPED_EXTENT:  # also catches infinity and NaN
        raise SceneError(
            f"{placement.name} spans more than {MAX_WARPED_EXTENT / 1000:g} km, too much for one UTM zone: "
            "cut it into parts, or reproject it to a metric system at the model's pixel size first."
        )
    return left, bottom, right, top
