"""Maps in folders, as `classify` leaves them, for the tests of what finds and joins them."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import strategies as st
from rasterio.crs import CRS

from pipeline.maps.cog import write_confidence, write_landcover
from pipeline.maps.landcover_map import LandcoverMap
from pipeline.maps.mosaic import MosaicResult, join_maps
from pipeline.options import MosaicOptions
from tests.support.maps import make_map

MODEL = {"model": "rgb", "model_digest": "sha256:0123456789abcdef"}
CELL = 640.0
LEFT, TOP = 400_000.0, 5_400_000.0

layouts = st.lists(
    st.tuples(
        st.integers(1, 5), st.integers(1, 5), st.floats(-8, 8), st.floats(-8, 8), st.integers(0, 2**32 - 1)
    ),
    min_size=1,
    max_size=6,
)
"""Maps: rows, columns, how many cells they start to the right of and below another, and a seed."""


def put(folder: Path, name: str, landcover: LandcoverMap, tags: dict[str, str] = MODEL) -> Path:
    """Write a map as `classify` leaves it; returns its raster."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_landcover.tif"
    write_landcover(landcover, path, tags)
    write_confidence(landcover, folder / f"{name}_confidence.tif", tags)
    (folder / f"{name}_run.json").write_text("{}")
    return path


def at(col: float, row: float) -> tuple[float, float]:
    """Return the origin of a map that starts so many cells to the right of and below another."""
    return LEFT + col * CELL, TOP - row * CELL


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def join(folder: Path, output: Path, **options: str | bool) -> MosaicResult:
    return join_maps(folder, output, MosaicOptions(**options))


def refused(error: type[Exception], folder: Path, output: Path, **options: str | bool) -> str:
    """Return the message with which joining is refused; nothing is written."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(error) as caught:
        join(folder, output, **options)
    assert sorted(folder.parent.rglob("*")) == before
    return str(caught.value)


def put_two_zones(folder: Path) -> Path:
    """Write one map in UTM zone 32 and two in 33; returns their folder."""
    for name, zone in [("a", 32632), ("b", 32633), ("c", 32633)]:
        put(folder, name, make_map([[1]], crs=CRS.from_epsg(zone)))
    return folder
