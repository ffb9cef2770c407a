"""Polygons that are the map, in every format."""

import json
import sqlite3
import time
import warnings
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from rasterio.features import rasterize

from pipeline.errors import OutputError
from pipeline.maps.areas import class_areas
from pipeline.maps.polygons import landcover_polygons, polygons_possible, write_polygons
from pipeline.options import POLYGON_FORMATS
from tests.support.maps import UTM33, make_map

FIELDS = ["class_id", "class_name", "area_ha", "confidence", "geometry"]
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def read(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


@settings(max_examples=60, deadline=None)
@given(
    class_id=arrays(np.uint8, SIZES, elements=st.integers(0, 3)),
    last_cell=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)),
)
def test_polygons_are_the_map(class_id: np.ndarray, last_cell: tuple[float, float]) -> None:
    rows, cols = class_id.shape
    landcover = make_map(class_id, footprint=(cols - 1 + last_cell[0], rows - 1 + last_cell[1]))

    polygons = landcover_polygons(landcover)

    assert polygons.is_valid.all()
    assert (polygons.geom_type == "Polygon").all()
    # Edge cells may be so narrow that their centre is outside: look at a point that is surely inside.
    inside = landcover.transform @ landcover.transform.translation(0.005 - 0.5, 0.005 - 0.5)
    shapes = zip(polygons.geometry, polygons.class_id, strict=True)
    burnt = rasterize(shapes, class_id.shape, transform=inside) if len(polygons) else np.zeros_like(class_id)
    np.testing.assert_array_equal(burnt, class_id)
    for area in class_areas(landcover)[:-1]:
        of_class = polygons[polygons.class_id == area.class_id]
        assert of_class.area.sum() / 1e4 == pytest.approx(area.hectares, rel=1e-3)
        assert of_class.area_ha.sum() == pytest.approx(area.hectares, abs=1e-4 * max(1, len(of_class)))
        # Regions of one class touch at corners at most, otherwise they would be one.
        assert shapely.union_all(of_class.geometry).area == pytest.approx(of_class.area.sum())


def test_a_region_is_one_polygon_with_its_holes() -> None:
    polygons = landcover_polygons(make_map([[1, 1, 1], [1, 2, 1], [1, 1, 1]]))

    forest, pasture = (polygons[polygons.class_name == name] for name in ("Forest", "Pasture"))
    assert len(forest) == len(pasture) == 1
    assert len(forest.geometry.iloc[0].interiors) == 1
    assert forest.area_ha.item() == pytest.approx(8 * 40.96, rel=1e-3)


def test_cells_that_touch_at_a_corner_are_two_regions() -> None:
    assert len(landcover_polygons(make_map([[1, 0], [0, 1]]))) == 2


def test_confidence_is_the_mean_of_the_region_alone() -> None:
    landcover = make_map([[1, 1, 0, 1]], confidence=[[70, 81, 99, 40]])

    polygons = landcover_polygons(landcover)

    assert sorted(polygons.confidence) == [40.0, 75.5]


def test_polygons_end_where_the_scene_ends() -> None:
    landcover = make_map([[1, 2], [2, 1]], footprint=(1.25, 1.5))

    assert landcover_polygons(landcover).total_bounds.tolist() == [400_000, 5_399_040, 400_800, 5_400_000]


@pytest.mark.parametrize("cell", [80.0, 640.0])
def test_in_geojson_neighbours_stay_neighbours(tmp_path: Path, cell: float) -> None:
    """Straight lines bend in degrees: between outlines with other points there would be gaps."""
    class_id = np.random.default_rng(3).integers(1, 4, (40, 60)).repeat(3, axis=0).repeat(5, axis=1)
    class_id[60:] = 2
    landcover = make_map(class_id, cell=cell, footprint=(299.5, 119.25))
    path = tmp_path / "scene_landcover.geojson"

    write_polygons(landcover, path, "geojson")

    polygons = geopandas.read_file(path)
    whole = shapely.union_all(polygons.geometry)
    assert whole.geom_type == "Polygon"
    assert not whole.interiors
    assert whole.area == pytest.approx(polygons.area.sum(), rel=1e-12)
    assert polygons.is_valid.all()
    longest = polygons.to_crs(landcover.crs).geometry.apply(
        lambda polygon: np.hypot(*np.diff(shapely.get_coordinates(polygon.exterior), axis=0).T).max()
    )
    assert longest.max() <= 1001


@pytest.mark.parametrize("file_format", POLYGON_FORMATS)
def test_every_format_has_the_same_features(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"scene_landcover.{file_format}"

    write_polygons(make_map([[1, 2], [3, 3]], confidence=85), path, file_format)

    polygons = read(path).sort_values("class_id")
    assert list(polygons.columns) == FIELDS
    assert polygons.class_id.tolist() == [1, 2, 3]
    assert polygons.class_name.tolist() == ["Forest", "Pasture", "River"]
    assert polygons.area_ha.tolist() == pytest.approx([40.96, 40.96, 81.92], rel=1e-3)
    assert polygons.confidence.tolist() == [85.0, 85.0, 85.0]
    assert polygons.crs.to_epsg() == (4326 if file_format == "geojson" else 32633)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("file_format", POLYGON_FORMATS)
def test_a_map_without_data_is_a_valid_file_without_features(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"scene_landcover.{file_format}"

    write_polygons(make_map([[0, 0]]), path, file_format)

    polygons = read(path)
    assert len(polygons) == 0
    if file_format == "geojson":  # which has no fields apart from its features'
        assert json.loads(path.read_text())["features"] == []
    else:
        assert list(polygons.columns) == FIELDS
        assert polygons.class_id.dtype == np.int32
        assert polygons.area_ha.dtype == polygons.confidence.dtype == np.float64
        assert polygons.crs == UTM33


def test_geojson_follows_rfc_7946(tmp_path: Path) -> None:
    class_id = np.random.default_rng(3).choice(4, (30, 30), p=[0.05, 0.7, 0.15, 0.1])
    path = tmp_path / "scene_landcover.geojson"

    write_polygons(make_map(class_id), path, "geojson")

    text = path.read_text()
    collection = json.loads(text, parse_float=str)
    assert "crs" not in collection
    rings = [ring for feature in collection["features"] for ring in feature["geometry"]["coordinates"]]
    assert max(len(number.partition(".")[2]) for ring in rings for point in ring for number in point) <= 7
    polygons = [shapely.geometry.shape(feature["geometry"]) for feature in json.loads(text)["features"]]
    assert all(polygon.is_valid for polygon in polygons)
    assert all(polygon.exterior.is_ccw for polygon in polygons)
    assert all(not hole.is_ccw for polygon in polygons for hole in polygon.interiors)
    assert sum(len(polygon.interiors) for polygon in polygons) > 0


def test_long_edges_follow_the_projection_in_geojson(tmp_path: Path) -> None:
    # The straight upper edge of this lake is 102 km long; as one segment in degrees it would be 230 m off.
    landcover = make_map(np.full((3, 160), 3), origin=(300_000, 5_400_000))
    path = tmp_path / "scene_landcover.geojson"

    write_polygons(landcover, path, "geojson")

    back = geopandas.read_file(path).to_crs(UTM33)
    expected = landcover_polygons(landcover)
    assert back.hausdorff_distance(expected, align=False).item() < 0.1


def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path) -> None:
    landcover = make_map(np.ones((5, 20)), crs=CRS.from_epsg(32601), origin=(160_000, 100_000))
    path = tmp_path / "scene_landcover.geojson"

    write_polygons(landcover, path, "geojson")

    (geometry,) = geopandas.read_file(path).geometry
    assert geometry.geom_type == "MultiPolygon"
    assert geometry.is_valid
    assert sorted(part.bounds[0] < 0 for part in geometry.geoms) == [False, True]
    assert all(part.bounds[2] - part.bounds[0] < 1 for part in geometry.geoms)
    assert geometry.bounds[0] == -180
    assert geometry.bounds[2] == 180


@pytest.mark.parametrize("file_format", ["gpkg", "fgb", "parquet"])
def test_pixel_space_has_polygons_without_a_crs(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"scene_landcover.{file_format}"

    assert polygons_possible(file_format, None)
    with warnings.catch_warnings(action="error"):
        write_polygons(make_map([[1, 2]], crs=None), path, file_format)

    polygons = read(path)
    assert polygons.total_bounds.tolist() == [400_000, 5_399_360, 401_280, 5_400_000]
    assert polygons.crs is None or polygons.crs.name.startswith("Undefined")


def test_pixel_space_cannot_be_geojson(tmp_path: Path) -> None:
    assert not polygons_possible("geojson", None)
    with pytest.raises(OutputError, match="no coordinate reference system"):
        write_polygons(make_map([[1]], crs=None), tmp_path / "scene_landcover.geojson", "geojson")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file_format", POLYGON_FORMATS)
def test_the_same_map_gives_the_same_bytes_later(tmp_path: Path, file_format: str) -> None:
    first, second = tmp_path / "1" / f"map.{file_format}", tmp_path / "2" / f"map.{file_format}"
    for path in (first, second):
        path.parent.mkdir()
        write_polygons(make_map([[1, 2], [3, 3]]), path, file_format)
        time.sleep(1.1)  # a GeoPackage holds the time of its last change

    assert first.read_bytes() == second.read_bytes()


def test_the_date_that_a_user_chooses_for_a_geopackage_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OGR_CURRENT_DATE", "2024-05-06T07:08:09.000Z")

    write_polygons(make_map([[1]]), tmp_path / "map.gpkg", "gpkg")

    with closing(sqlite3.connect(tmp_path / "map.gpkg")) as database:
        assert database.execute("select last_change from gpkg_contents").fetchall() == [
            ("2024-05-06T07:08:09.000Z",)
        ]
