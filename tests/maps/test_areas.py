"""Hectares and shares, in the table and in the polygons."""

import csv
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from pipeline.maps.areas import cell_hectares, class_areas, metres_per_unit, write_areas
from pipeline.maps.landcover_map import LandcoverMap
from pipeline.maps.polygons import landcover_polygons
from tests.support.maps import make_map


def test_cells_on_the_edge_count_only_their_part_inside_the_scene() -> None:
    # A scene of 74 x 70 pixels of 10 m: the second column is 10 pixels wide, the second row 6 high.
    hectares = cell_hectares(make_map([[1, 1], [1, 1]], footprint=(74 / 64, 70 / 64)))

    np.testing.assert_allclose(hectares, [[40.96, 6.4], [3.84, 0.6]], rtol=1e-3)
    assert hectares.sum() == pytest.approx(0.01 * 74 * 70, rel=1e-3)


def test_a_scene_smaller_than_a_cell_has_its_own_area() -> None:
    assert cell_hectares(make_map([[1]], footprint=(0.5, 0.25))).sum() == pytest.approx(5.12, rel=1e-3)


def test_shares_are_of_the_classified_area() -> None:
    forest, pasture, river, no_data = class_areas(make_map([[0, 1, 1, 3]]))

    assert (forest.hectares, forest.share_percent) == pytest.approx((81.92, 200 / 3), rel=1e-3)
    assert (pasture.hectares, pasture.share_percent) == (0.0, 0.0)
    assert (river.hectares, river.share_percent) == pytest.approx((40.96, 100 / 3), rel=1e-3)
    assert (no_data.class_id, no_data.class_name) == (0, "no data")
    assert no_data.hectares == pytest.approx(40.96, rel=1e-3)
    assert no_data.share_percent is None


def test_a_map_without_data_has_no_shares() -> None:
    assert [area.share_percent for area in class_areas(make_map([[0, 0]]))] == [0.0, 0.0, 0.0, None]


def test_units_other_than_metres_are_converted() -> None:
    us_feet = CRS.from_epsg(2263)
    (forest, *_) = class_areas(make_map([[1]], crs=us_feet, cell=2100.0, origin=(1e6, 2e5)))

    assert forest.hectares == pytest.approx((2100 * 1200 / 3937) ** 2 / 1e4, rel=1e-3)


def test_without_a_crs_the_unit_is_the_metre() -> None:
    assert class_areas(make_map([[1]], crs=None))[0].hectares == pytest.approx(40.96)


def test_a_degree_has_no_length_in_metres() -> None:
    with pytest.raises(ValueError, match="projected"):
        metres_per_unit(CRS.from_epsg(4326))


def on_the_ellipsoid(landcover: LandcoverMap, window: tuple[slice, slice] = np.s_[:, :]) -> float:
    """Return the hectares of a rectangle of cells as `Geod` measures it, along a densely set outline."""
    (top, bottom, _), (left, right, _) = (
        part.indices(size) for part, size in zip(window, landcover.class_id.shape, strict=True)
    )
    right, bottom = min(right, landcover.footprint[0]), min(bottom, landcover.footprint[1])
    outline = shapely.segmentize(shapely.box(left, top, right, bottom), max(right, bottom) / 500)
    x, y = landcover.transform @ shapely.get_coordinates(outline).T
    crs = pyproj.CRS.from_wkt(landcover.crs.to_wkt())
    lon, lat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    return abs(crs.get_geod().polygon_area_perimeter(lon, lat)[0]) / 1e4


@pytest.mark.parametrize(
    ("code", "origin"),
    [
        (32633, (500_000, 5_300_000)),  # on the central meridian, 0.08 % less than planar
        (32633, (170_000, 40_000)),  # at the edge of the zone near the equator, where it is 0.2 % more
        (32733, (400_000, 2_000_000)),
        (32660, (833_000, 8_200_000)),  # across the dateline
        (32661, (1_990_000, 2_010_000)),  # around the pole
        (3857, (1_500_000, 50_000)),  # a sphere's formulas on an ellipsoid: 0.7 % at the equator
        (2263, (1_000_000, 200_000)),  # feet
        (3035, (4_300_000, 3_200_000)),
        (2154, (600_000, 6_600_000)),
        (31467, (3_500_000, 5_500_000)),  # another ellipsoid
    ],
)
@pytest.mark.parametrize(("cell", "size"), [(640.0, 4), (80.0, 100), (2000.0, 120)])
def test_areas_are_those_on_the_ground(
    code: int, origin: tuple[float, float], cell: float, size: int
) -> None:
    class_id = np.random.default_rng(0).integers(1, 4, (size, size + 3))
    footprint = size + 2.5, size - 0.25
    landcover = make_map(class_id, crs=CRS.from_epsg(code), origin=origin, cell=cell, footprint=footprint)

    hectares = cell_hectares(landcover)

    assert hectares.sum() == pytest.approx(on_the_ellipsoid(landcover), rel=1e-5)
    for window in (np.s_[:1, :1], np.s_[-2:, -3:], np.s_[1:3, 2:4]):
        assert hectares[window].sum() == pytest.approx(on_the_ellipsoid(landcover, window), rel=1e-4)
    of_classes = class_areas(landcover)
    assert sum(area.hectares for area in of_classes) == pytest.approx(hectares.sum())
    if size < 100:
        polygons = landcover_polygons(landcover)
        assert polygons.area_ha.sum() == pytest.approx(hectares.sum(), rel=1e-4)


@settings(max_examples=40)
@given(zone=st.integers(32601, 32660), north=st.floats(0, 9_200_000), east=st.floats(-250_000, 250_000))
def test_areas_are_those_on_the_ground_all_over_a_zone(zone: int, north: float, east: float) -> None:
    origin = 500_000 + east, north + 64_000
    landcover = make_map(np.ones((100, 100), int), crs=CRS.from_epsg(zone), origin=origin)
    assert cell_hectares(landcover).sum() == pytest.approx(on_the_ellipsoid(landcover), rel=1e-5)


def test_the_table_and_the_polygons_agree(tmp_path: Path) -> None:
    class_id = np.random.default_rng(2).integers(0, 4, (40, 30))
    landcover = make_map(class_id, footprint=(29.3125, 39.0625))

    write_areas(landcover, tmp_path / "scene_areas.csv")

    polygons = landcover_polygons(landcover)
    with (tmp_path / "scene_areas.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["class_name"] for row in table] == ["Forest", "Pasture", "River", "no data"]
    for row in table[:3]:
        of_class = polygons[polygons.class_id == int(row["class_id"])]
        assert of_class.area_ha.sum() == pytest.approx(float(row["hectares"]), abs=1e-3)
        assert of_class.area.sum() / 1e4 == pytest.approx(float(row["hectares"]), rel=1e-3)
    assert sum(float(row["share_percent"]) for row in table[:3]) == pytest.approx(100, abs=0.02)
    assert table[3]["share_percent"] == ""
