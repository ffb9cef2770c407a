"""Areas: how many hectares of ground each class covers, and the table of them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from pipeline.files import write_file
from pipeline.maps.landcover_map import LandcoverMap

SQUARE_METRES_PER_HECTARE = 10_000.0


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
    """Return the planar area of each cell, (rows, cols) float64, in hectares.

    Cells on the right and lower edge may reach beyond the scene; only the part inside counts.
    """
    rows, cols = landcover.class_id.shape
    footprint_cols, footprint_rows = landcover.footprint
    inside_rows = np.clip(footprint_rows - np.arange(rows), 0.0, 1.0)
    inside_cols = np.clip(footprint_cols - np.arange(cols), 0.0, 1.0)
    square_metres = abs(landcover.transform.determinant) * metres_per_unit(landcover.crs) ** 2
    return np.outer(inside_rows, inside_cols) * (square_metres / SQUARE_METRES_PER_HECTARE)


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
