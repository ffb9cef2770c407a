"""Maps joined into one, against the map of the whole and against the rule applied cell by cell."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings
from rio_cogeo.cogeo import cog_validate

import cli
from pipeline.classify import classify_scene
from pipeline.errors import OutputError, SceneError, UsageError
from pipeline.options import ClassifyOptions
from pipeline.scenes.synthetic import BANDS, make_scene
from tests.support.maps import UTM33, make_map
from tests.support.mosaics import CELL, LEFT, TOP, at, join, layouts, put, put_two_zones, read, refused

# A real model's maps of a scene and of its halves


WIDTH, HEIGHT, SEAM = 640, 600, 384  # the lowest cells hang over the scene


@pytest.fixture(scope="module")
def classified(tmp_path_factory, light_predictor) -> Path:
    """Return a folder with the maps of a scene (`whole`) and of its overlapping halves (`halves/…`)."""
    folder = tmp_path_factory.mktemp("classified")
    pixels = make_scene(WIDTH).pixels[:, :HEIGHT]
    for name, first, last in [("whole", 0, WIDTH), ("halves/west", 0, SEAM), ("halves/far/east", 320, WIDTH)]:
        scene = folder / "scenes" / f"{Path(name).name}.tif"
        scene.parent.mkdir(exist_ok=True)
        with rasterio.open(
            scene,
            "w",
            driver="GTiff",
            width=last - first,
            height=HEIGHT,
            count=len(BANDS),
            dtype="uint16",
            crs=UTM33,
            transform=Affine(10, 0, LEFT + 10 * first, 0, -10, TOP),
        ) as raster:
            raster.write(pixels[:, :, first:last])
            raster.descriptions = BANDS
            raster.update_tags(PROCESSING_LEVEL="Level-1C")
        options = ClassifyOptions(polygons="gpkg")
        classify_scene(str(scene), folder / Path(name).parent / "maps", light_predictor, options)
    return folder


@pytest.mark.parametrize("suffix", [".tif", ".vrt"])
def test_the_mosaic_of_two_halves_is_the_map_of_the_whole(classified, tmp_path, suffix):
    whole = classified / "maps"

    result = join(classified / "halves", tmp_path / f"map{suffix}", polygons="gpkg")

    assert result.maps == 2
    for kind, name in {"landcover": "whole_landcover.tif", "confidence": "whole_confidence.tif"}.items():
        with rasterio.open(result.files[kind]) as joined, rasterio.open(whole / name) as expected:
            assert np.array_equal(joined.read(), expected.read())
            assert joined.transform == expected.transform
            assert joined.crs == expected.crs
            assert joined.nodata == expected.nodata
            assert joined.tags().items() >= {
                (k, v) for k, v in expected.tags().items() if k != "AREA_OR_POINT"
            }
            assert joined.colorinterp == expected.colorinterp
    with (
        rasterio.open(result.files["landcover"]) as joined,
        rasterio.open(whole / "whole_landcover.tif") as expected,
    ):
        assert [joined.colormap(1)[i] for i in range(11)] == [expected.colormap(1)[i] for i in range(11)]
    for mine, its in [("areas", "whole_areas.csv"), ("style", "whole_landcover.qml")]:
        assert result.files[mine].read_text() == (whole / its).read_text()
    assert sum(area.hectares for area in result.areas) == pytest.approx(WIDTH * HEIGHT / 100, rel=1e-3)


def test_polygons_cross_the_seam_as_one(classified, tmp_path):
    result = join(classified / "halves", tmp_path / "map.tif", polygons="gpkg")

    joined = geopandas.read_file(result.files["polygons"])
    expected = geopandas.read_file(classified / "maps" / "whole_landcover.gpkg")
    assert joined.drop(columns="geometry").equals(expected.drop(columns="geometry"))
    assert joined.geometry.geom_equals(expected.geometry).all()
    for seam in (LEFT + 10 * 320, LEFT + 10 * SEAM):
        assert ((joined.bounds.minx < seam) & (joined.bounds.maxx > seam)).any()


def test_the_map_is_a_valid_cog_with_names(classified, tmp_path):
    result = join(classified / "halves", tmp_path / "map.tif")

    assert cog_validate(result.files["landcover"], strict=True)[0]
    names = [entry.text for entry in ElementTree.parse(result.files["names"]).iter("Category")]
    assert names[1] == "AnnualCrop"
    assert len(names) == 11


def test_the_record_says_what_was_joined(classified, tmp_path):
    result = join(classified / "halves", tmp_path / "map.tif")

    record = json.loads(result.files["record"].read_text())
    assert [(m["name"], m["row"], m["col"]) for m in record["maps"]] == [
        ("far/maps/east", 0, 5),
        ("maps/west", 0, 0),
    ]
    assert record["model"]["name"] == "eurosat-rgb-mobilenetv2"
    assert record["crs"] == "EPSG:32633"
    assert set(record["files"].values()) == {path.name for path in tmp_path.iterdir()}


# Which cell is taken


def test_the_surer_class_is_shown_and_no_data_never_replaces_one(tmp_path):
    put(tmp_path / "maps", "a", make_map([[1, 1, 1, 0, 0]], [[90, 50, 70, 0, 0]]))
    put(tmp_path / "maps", "b", make_map([[2, 2, 2, 2, 0]], [[80, 60, 70, 10, 0]]))

    result = join(tmp_path / "maps", tmp_path / "map.tif")

    assert read(result.files["landcover"]).tolist() == [[1, 2, 1, 2, 0]]
    assert read(result.files["confidence"]).tolist() == [[90, 60, 70, 10, 255]]


def test_a_class_beats_a_cell_too_unsure_to_have_one(tmp_path):
    unsure = make_map([[1, 1, 0]])
    unsure = replace(
        unsure, class_id=np.zeros((1, 3), np.uint8), confidence=np.array([[45, 45, 255]], np.uint8)
    )
    put(tmp_path / "maps", "unsure", unsure)
    put(tmp_path / "maps", "other", make_map([[2, 0, 0]], 30))

    result = join(tmp_path / "maps", tmp_path / "map.tif")

    assert read(result.files["landcover"]).tolist() == [[2, 0, 0]]
    assert read(result.files["confidence"]).tolist() == [[30, 45, 255]]


def test_maps_that_touch_with_padding_join_without_a_seam(tmp_path):
    put(tmp_path / "maps", "west", make_map([[1, 1, 0], [1, 1, 0]]))
    put(tmp_path / "maps", "east", make_map([[0, 1, 1], [0, 1, 3]], origin=at(1, 0)))

    result = join(tmp_path / "maps", tmp_path / "map.tif", polygons="gpkg")

    polygons = geopandas.read_file(result.files["polygons"])
    assert polygons.class_id.tolist() == [1, 3]
    assert polygons.area_ha.tolist() == pytest.approx([7 * 40.96, 40.96], rel=1e-3)


@settings(max_examples=6)  # each writes files
@given(layouts)
def test_each_cell_shows_the_surest_of_the_maps_that_cover_it(tmp_path_factory, layout):
    folder = tmp_path_factory.mktemp("maps")
    cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, (rows, cols, col, row, seed) in enumerate(layout):
        rng = np.random.default_rng(seed)
        class_id, confidence = rng.integers(0, 4, (rows, cols)), rng.integers(20, 24, (rows, cols))
        put(folder, str(i), make_map(class_id, confidence, origin=at(round(col), round(row))))
        for r, c in np.argwhere(class_id):
            found = cells.setdefault((round(row) + r, round(col) + c), [])
            found.append((-confidence[r, c], i, class_id[r, c]))

    result = join(folder, folder / "map.tif", polygons="none")

    top = min(round(row) for *_, row, _ in layout)
    left = min(round(col) for _, _, col, _, _ in layout)
    expected = np.zeros(result.shape, int)
    for (row, col), found in cells.items():
        expected[row - top, col - left] = min(found)[2]
    assert np.array_equal(read(result.files["landcover"]), expected)


# Maps between each other's cells


def test_a_map_between_the_cells_is_moved_to_the_nearest_and_a_note_says_so(tmp_path, caplog):
    put(tmp_path / "maps", "a", make_map([[1, 1]], origin=at(2.375, 0.25)))
    put(tmp_path / "maps", "b", make_map([[2, 2]], origin=at(0, 0)))
    put(tmp_path / "maps", "c", make_map([[3, 3]], origin=at(0, 1)))

    result = join(tmp_path / "maps", tmp_path / "map.tif")

    assert read(result.files["landcover"]).tolist() == [[2, 2, 1, 1], [3, 3, 0, 0]]
    with rasterio.open(result.files["landcover"]) as raster:
        assert raster.transform == Affine(CELL, 0, LEFT, 0, -CELL, TOP)
    assert "1 of 3 maps" in caplog.text
    assert "up to 240 m" in caplog.text
    record = json.loads(result.files["record"].read_text())
    assert record["maps"][0]["moved"] == pytest.approx([-0.375, -0.25])


def test_neighbouring_sentinel_2_granules_join_without_a_gap(tmp_path, caplog):
    """Their corners (T33UUP, T33UVP, T33UUQ) lie multiples of 20 m apart, never of 640 m."""
    size = 10_980 / 64
    for name, left, top in [
        ("UUP", 300_000, 5_400_000),
        ("UVP", 399_960, 5_400_000),
        ("UUQ", 300_000, 5_500_020),
    ]:
        cells = np.ones((172, 172), np.uint8)
        put(tmp_path / "maps", name, make_map(cells, origin=(left, top), footprint=(size, size)))

    result = join(tmp_path / "maps", tmp_path / "map.tif", polygons="gpkg")

    assert "half a cell at most" in caplog.text
    assert len(geopandas.read_file(result.files["polygons"])) == 1
    with rasterio.open(result.files["landcover"]) as raster:
        for bound, true in zip(raster.bounds, (300_000, 5_290_200, 509_760, 5_500_020), strict=True):
            assert abs(bound - true) <= 640


# A VRT


@pytest.fixture
def two_maps(tmp_path) -> Path:
    """Maps that disagree where they overlap: `a` is surer in one cell, `b` in the mean."""
    put(tmp_path / "deep" / "maps", "a", make_map([[1, 1, 1]], [[95, 20, 20]]))
    put(tmp_path / "deep" / "maps" / "b & ü", "b", make_map([[2, 0, 2]], 80, origin=at(0.25, 0)))
    return tmp_path / "deep" / "maps"


def test_a_vrt_shows_the_surest_map_on_top_and_everything_beside_it_agrees(two_maps):
    result = join(two_maps, two_maps.parent / "map.vrt", polygons="gpkg")

    assert read(result.files["landcover"]).tolist() == [[2, 1, 2]]
    assert read(result.files["confidence"]).tolist() == [[80, 20, 80]]
    # `b` was moved by a quarter of a cell, its scene was not.
    hectares = {area.class_id: area.hectares for area in result.areas if area.hectares}
    assert hectares == pytest.approx({1: 40.96, 2: 2.25 * 40.96}, rel=1e-3)
    assert geopandas.read_file(result.files["polygons"]).class_id.tolist() == [2, 1, 2]
    with rasterio.open(result.files["landcover"]) as raster:
        assert raster.colormap(1)[3] == (0x4F, 0xC3, 0xF7, 255)
    names = [entry.text for entry in ElementTree.parse(result.files["landcover"]).iter("Category")]
    assert names == ["no data", "Forest", "Pasture", "River"]


def test_a_vrt_says_where_its_confidence_is_not_that_of_the_class_shown(tmp_path, caplog):
    """GDAL paints a VRT's classes and confidences apart: of a cell too unsure for a class only the latter."""
    hidden = make_map([[3, 3, 3]], [[99, 30, 99]])
    hidden = replace(hidden, class_id=np.array([[3, 0, 3]], np.uint8))
    put(tmp_path / "maps", "on top", hidden)
    put(tmp_path / "maps", "below", make_map([[1, 1, 1]], 70))

    result = join(tmp_path / "maps", tmp_path / "map.vrt")

    assert read(result.files["landcover"]).tolist() == [[3, 1, 3]]
    assert read(result.files["confidence"]).tolist() == [[99, 30, 99]]
    assert "In 1 cell map_confidence.vrt shows how unsure" in caplog.text
    caplog.clear()
    assert read(join(tmp_path / "maps", tmp_path / "map.tif").files["confidence"]).tolist() == [[99, 70, 99]]
    assert "how unsure" not in caplog.text


def test_a_vrt_moves_with_its_maps(two_maps, tmp_path):
    join(two_maps, two_maps.parent / "map.vrt")

    shutil.move(two_maps.parent, tmp_path / "elsewhere")

    assert read(tmp_path / "elsewhere" / "map.vrt").tolist() == [[2, 1, 2]]
    assert read(tmp_path / "elsewhere" / "map_confidence.vrt").tolist() == [[80, 20, 80]]


# What is found, and what is refused


def test_a_mosaic_among_its_maps_is_not_joined_again(tmp_path, caplog):
    put(tmp_path, "scene", make_map([[1, 2]]))
    first = join(tmp_path, tmp_path / "all_landcover.tif")
    put(tmp_path, "another", make_map([[3]], origin=at(2, 0)))

    second = join(tmp_path, tmp_path / "all_landcover.tif", polygons="gpkg")

    assert (first.maps, second.maps) == (1, 2)
    assert read(second.files["landcover"]).tolist() == [[1, 2, 3]]
    assert not (tmp_path / "all_landcover.geojson").exists(), "polygons of the earlier mosaic"
    assert not caplog.text


def test_files_of_others_are_replaced_only_with_overwrite(tmp_path):
    put(tmp_path / "maps", "scene", make_map([[1]]))

    assert "`overwrite`" in refused(OutputError, tmp_path / "maps", tmp_path / "maps" / "scene.tif")
    assert join(tmp_path / "maps", tmp_path / "map.tif").maps == 1
    assert join(tmp_path / "maps", tmp_path / "map.tif").maps == 1
    (tmp_path / "map_mosaic.json").unlink()
    assert "map.tif is there already" in refused(OutputError, tmp_path / "maps", tmp_path / "map.tif")
    assert join(tmp_path / "maps", tmp_path / "map.tif", overwrite=True).maps == 1


def test_a_mosaic_that_was_killed_while_it_was_published_is_made_again(tmp_path, monkeypatch):
    put(tmp_path / "maps", "scene", make_map([[1]]))

    def killed(staging, folder, last, stale):
        shutil.copytree(staging, folder / ".map.0123abcd.part")
        staged = folder / ".map.0123abcd.part"
        (staged / "map.tif").replace(folder / "map.tif")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.maps.mosaic.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            join(tmp_path / "maps", tmp_path / "map.tif")

    result = join(tmp_path / "maps", tmp_path / "map.tif")

    assert {path.name for path in tmp_path.iterdir()} == {
        "maps",
        *(file.name for file in result.files.values()),
    }


def test_a_damaged_map_is_refused_before_anything_is_written(tmp_path):
    path = put(tmp_path / "maps", "bad", make_map([[1]]))
    path.write_bytes(path.read_bytes()[:100])
    assert "bad_landcover.tif cannot be read" in refused(SceneError, tmp_path / "maps", tmp_path / "map.tif")


def test_a_mosaic_is_a_tif_or_a_vrt(tmp_path):
    put(tmp_path / "maps", "a", make_map([[1]]))
    assert ".tif nor a .vrt" in refused(UsageError, tmp_path / "maps", tmp_path / "map.png")


def test_the_command_joins_and_says_where(tmp_path):
    zones = put_two_zones(tmp_path / "maps")
    arguments = ["mosaic", str(zones), "-o", str(tmp_path / "out" / "map.vrt")]

    failed = CliRunner().invoke(cli.main, arguments)
    done = CliRunner().invoke(cli.main, [*arguments, "--crs", "EPSG:32633", "--polygons", "none"])

    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: ")
    assert "EPSG:32632 (1 map)" in failed.stderr
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith("map.vrt: 2 maps, 1 x 1 cells")
    assert f"map: {tmp_path / 'out' / 'map.vrt'}" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "map.vrt",
        "map_confidence.vrt",
        "map.qml",
        "map_areas.csv",
        "map_mosaic.json",
    }
