"""Areas: how many hectares of ground each class covers, on the ellipsoid, and the table of them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj
from rasterio.crs import CRS
from rasterio.transform import Affine

from pipeline.files import write_file
from pipeline.maps.landcover_map import LandcoverMap

SQUARE_METRES_PER_HECTARE = 10_000.0

AREA_NODES = 33
"""Of so many cells along each axis the area is computed: over a whole UTM zone it is right to 0.001 %."""


@dataclass(frozen=True)
class ClassArea:
    """The area of one class in a map."""

    class_id: int
    """The class's value in the map, 0 for "no data"."""

    class_name: str
    """The class's name, or "no data"."""

    hectares: float
    """Its area on the ground."""

    share_percent: float | None
    """Its share of the classified area; None for "no data"."""


def metres_per_unit(crs: CRS | None) -> float:
    """Return the length of one unit of a map's coordinates in metres, 1 for a map without a CRS.

    Raises:
        ValueError: the CRS is geographic. Maps never are: scenes in degrees are warped to UTM first.
    """
    if crs is None:
        return 1.0
    if not crs.is_projected:
        raise ValueError(f"areas need a projected coordinate reference system, found {crs}")
    return float(crs.linear_units_factor[1])


def cell_hectares(landcover: LandcoverMap) -> np.ndarray:
    """Return the area on the ground of each cell, (rows, cols) float64, in hectares.

    Only the part of a cell that a scene shows counts, see `LandcoverMap.covered`. No projection's metres are
    quite those of the ground (UTM's own are 0.08 % too long in area on the central meridian, and 0.2 % too
    short at the edges of the zone): here areas are those on the ellipsoid.
    """
    return landcover.covered * (_cell_square_metres(landcover) / SQUARE_METRES_PER_HECTARE)


def _cell_square_metres(landcover: LandcoverMap) -> np.ndarray:
    """Return the area on the ellipsoid of each whole cell, (rows, cols), or one for all in pixel space.

    It changes so little from cell to cell that it is computed for a few and interpolated between them.
    """
    if landcover.crs is None:
        return np.asarray(abs(landcover.transform.determinant))
    at_all = landcover.class_id.shape
    rows, cols = (np.linspace(0, n - 1, min(n, AREA_NODES)) for n in at_all)
    at_nodes = _square_metres_at(landcover.crs, landcover.transform, *np.meshgrid(cols, rows))
    down, across = (_weights(n, nodes) for n, nodes in zip(at_all, (rows, cols), strict=True))
    return down @ at_nodes @ across.T


def _weights(count: int, nodes: np.ndarray) -> np.ndarray:
    """Return the weights (count, nodes) with which values at the nodes are interpolated at 0, 1, 2 ..."""
    places = np.arange(count)
    return np.stack([np.interp(places, nodes, one) for one in np.eye(len(nodes))], axis=1)


def _square_metres_at(crs: CRS, transform: Affine, col: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return the areas of cells: of the parallelograms of the lines through their centres, in space.

    Coordinates in space have neither poles nor a dateline to mind.
    """
    system = pyproj.CRS.from_wkt(crs.to_wkt())
    degrees, geod = system.geodetic_crs, system.get_geod()
    assert degrees is not None  # maps of another planet have them, too
    assert geod is not None
    to_degrees = pyproj.Transformer.from_crs(system, degrees, always_xy=True)

    def place(right: float, down: float) -> np.ndarray:
        x, y = transform @ (col + right, row + down)
        lon, lat = np.radians(to_degrees.transform(x, y))
        normal = geod.a / np.sqrt(1 - geod.es * np.sin(lat) ** 2)
        east, north = normal * np.cos(lat) * np.cos(lon), normal * np.cos(lat) * np.sin(lon)
        return np.stack([east, north, normal * (1 - geod.es) * np.sin(lat)], axis=-1)

    across, along = place(1, 0.5) - place(0, 0.5), place(0.5, 1) - place(0.5, 0)
    return np.linalg.norm(np.cross(across, along), axis=-1)


def class_areas(landcover: LandcoverMap) -> tuple[ClassArea, ...]:
    """Return the area of each class, 0 for absent ones, and at the end the area without data."""
    hectares = np.bincount(
        landcover.class_id.ravel(), weights=cell_hectares(landcover).ravel(), minlength=256
    )
    classified = hectares[1:].sum()
    areas = (
        ClassArea(
            class_id=entry.id,
            class_name=entry.name,
            hectares=float(hectares[entry.id]),
            share_percent=100.0 * float(hectares[entry.id] / classified) if classified else 0.0,
        )
        for entry in landcover.classes
    )
    return (*areas, ClassArea(0, "no data", float(hectares[0]), None))


def write_areas(landcover: LandcoverMap, path: Path) -> None:
    """Write the table of areas as CSV: hectares to the square metre, shares to 0.01 %.

    Raises:
        OutputError: the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class_id", "class_name", "hectares", "share_percent"])
    for area in class_areas(landcover):
        share = "" if area.share_percent is None else f"{area.share_percent:.2f}"
        table.writerow([area.class_id, area.class_name, f"{area.hectares:.4f}", share])
    write_file(path, text.getvalue().encode())
