"""Hectares and shares, in the table and in the polygons."""

import csv
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS

from pipeline.maps.areas import cell_hectares, class_areas, write_areas
from pipeline.maps.polygons import landcover_polygons
from tests.support.maps import make_map


def test_cells_on_the_edge_count_only_their_part_inside_the_scene() -> None:
    # A scene of 74 x 70 pixels of 10 m: the second column is 10 pixels wide, the second row 6 high.
    hectares = cell_hectares(make_map([[1, 1], [1, 1]], footprint=(74 / 64, 70 / 64)))

    np.testing.assert_allclose(hectares, [[40.96, 6.4], [3.84, 0.6]])
    assert hectares.sum() == pytest.approx(0.01 * 74 * 70)


def test_a_scene_smaller_than_a_cell_has_its_own_area() -> None:
    assert cell_hectares(make_map([[1]], footprint=(0.5, 0.25))).sum() == pytest.approx(5.12)


def test_shares_are_of_the_classified_area() -> None:
    forest, pasture, river, no_data = class_areas(make_map([[0, 1, 1, 3]]))

    assert (forest.hectares, forest.share_percent) == pytest.approx((81.92, 200 / 3))
    assert (pasture.hectares, pasture.share_percent) == (0.0, 0.0)
    assert (river.hectares, river.share_percent) == pytest.approx((40.96, 100 / 3))
    assert (no_data.class_id, no_data.class_name) == (0, "no data")
    assert no_data.hectares == pytest.approx(40.96)
    assert no_data.share_percent is None


def test_a_map_without_data_has_no_shares() -> None:
    assert [area.share_percent for area in class_areas(make_map([[0, 0]]))] == [0.0, 0.0, 0.0, None]


def test_units_other_than_metres_are_converted() -> None:
    us_feet = CRS.from_epsg(2263)
    (forest, *_) = class_areas(make_map([[1]], crs=us_feet, cell=2100.0))

    assert forest.hectares == pytest.approx((2100 * 1200 / 3937) ** 2 / 1e4)


def test_without_a_crs_the_unit_is_the_metre() -> None:
    assert class_areas(make_map([[1]], crs=None))[0].hectares == pytest.approx(40.96)


def test_degrees_are_refused() -> None:
    with pytest.raises(ValueError, match="projected"):
        class_areas(make_map([[1]], crs=CRS.from_epsg(4326), cell=0.01))


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
        assert of_class.area.sum() / 1e4 == pytest.approx(float(row["hectares"]), abs=1e-3)
    assert sum(float(row["share_percent"]) for row in table[:3]) == pytest.approx(100, abs=0.02)
    assert table[3]["share_percent"] == ""
