"""The table of outputs: a row that is added takes part in everything."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.batch.inputs import find_scenes
from pipeline.classify import classify_scene
from pipeline.maps import outputs
from pipeline.maps.mosaic import join_maps
from pipeline.maps.outputs import Output, OutputContext, file_name, is_output, possible_files, write_outputs
from pipeline.options import NO_POLYGONS, POLYGON_FORMATS, ClassifyOptions, MosaicOptions
from pipeline.scenes.synthetic import write_scene
from tests.support.maps import make_map

EVERYTHING = ClassifyOptions(probabilities=True, preview=True)


def write_counts(context: OutputContext, path: Path) -> None:
    """Write how many cells each class has: an output that there is not."""
    counts = np.bincount(context.landcover.class_id.ravel(), minlength=11)
    path.write_text(" ".join(map(str, counts)))


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Add an output to the table, by one row. Its suffix is one that a search for scenes looks for."""
    row = Output("counts", "_counts.tif", write_counts, applies=lambda options: options.polygons == "fgb")
    monkeypatch.setattr(outputs, "TABLE", (*outputs.TABLE, row))
    return row


def listed(record: Path) -> dict[str, str]:
    return json.loads(record.read_text())["files"]


def cells(path: Path) -> int:
    return sum(map(int, path.read_text().split()))


def test_an_added_output_is_written_and_listed_for_a_scene_and_removed_when_it_is_not_wanted(
    counts, tmp_path, light_predictor
):
    scene, folder = str(write_scene(tmp_path / "scene.tif", size=128)), tmp_path / "maps"

    with_it = classify_scene(scene, folder, light_predictor, ClassifyOptions(polygons="fgb"))

    assert with_it.files["counts"] == folder / "scene_counts.tif"
    assert listed(with_it.files["run"])["counts"] == "scene_counts.tif"
    assert cells(with_it.files["counts"]) == 4

    (folder / "scene_counts.tif.aux.xml").write_text("statistics of another program")
    without = classify_scene(scene, folder, light_predictor, ClassifyOptions(overwrite=True))

    assert "counts" not in without.files
    assert {path.name for path in folder.iterdir()} == {path.name for path in without.files.values()}


@pytest.mark.parametrize("suffix", [".tif", ".vrt"])
def test_an_added_output_is_written_and_listed_for_a_mosaic_and_removed_when_it_is_not_wanted(
    counts, tmp_path, light_predictor, suffix
):
    scene = str(write_scene(tmp_path / "scene.tif", size=128))
    classify_scene(scene, tmp_path / "maps", light_predictor)
    output = tmp_path / "joined" / f"map{suffix}"

    with_it = join_maps(tmp_path / "maps", output, MosaicOptions(polygons="fgb"))

    assert with_it.files["counts"] == output.with_name("map_counts.tif")
    assert listed(with_it.files["record"])["counts"] == "map_counts.tif"
    assert cells(with_it.files["counts"]) == 4

    without = join_maps(tmp_path / "maps", output)

    assert "counts" not in without.files
    assert {path.name for path in output.parent.iterdir()} == {path.name for path in without.files.values()}


def test_an_added_output_is_no_scene_for_a_search(counts, tmp_path):
    for name in ("a.tif", "a_counts.tif", "a_landcover.tif"):
        (tmp_path / name).touch()

    for source in (str(tmp_path), str(tmp_path / "*.tif")):
        assert [scene.name for scene in find_scenes([source], tmp_path / "maps")] == ["a"]


def test_rows_of_one_kind_exclude_each_other_and_no_two_write_the_same_file():
    endings = [row.ending for row in outputs.TABLE]
    assert len(set(endings)) == len(endings)
    for polygons in (*POLYGON_FORMATS, NO_POLYGONS):
        options = ClassifyOptions(probabilities=True, preview=True, polygons=polygons)
        kinds = [row.kind for row in outputs.scene_outputs() if row.applies(options)]
        assert len(set(kinds)) == len(kinds)
        assert ("polygons" in kinds) == (polygons != NO_POLYGONS)


@pytest.mark.parametrize("row", outputs.TABLE, ids=lambda row: row.ending)
def test_every_row_writes_its_own_file_and_no_other(row, tmp_path):
    context = OutputContext(make_map([[1, 2], [3, 0]]), "scene", {"model": "rgb", "model_digest": "abc"})

    files = write_outputs([row], context, tmp_path)

    assert files == {row.kind: tmp_path / f"scene{row.ending}"}
    assert list(tmp_path.iterdir()) == [tmp_path / f"scene{row.ending}"]
    assert is_output(files[row.kind].name)


def test_an_output_that_a_map_cannot_have_is_left_out_with_a_warning(tmp_path, caplog):
    in_pixel_space = OutputContext(make_map([[1]], crs=None), "scene")
    wanted = [row for row in outputs.TABLE if row.kind in ("areas", "polygons") and row.applies(EVERYTHING)]

    assert set(write_outputs(wanted, in_pixel_space, tmp_path)) == {"areas"}
    assert "scene: no polygons, since GeoJSON is in WGS 84" in caplog.text


def test_side_files_of_other_programs_are_known():
    possible = possible_files("a", outputs.scene_outputs())

    assert {"a_confidence.tif.aux.xml", "a_landcover.gpkg-wal", "a_landcover.gpkg-journal"} <= possible
    assert file_name("a", "landcover") in possible


def test_a_mosaic_never_removes_what_only_scenes_have():
    possible = possible_files("a", outputs.mosaic_outputs())

    assert {"a.tif", "a.geojson", "a_confidence.tif", "a_areas.csv"} <= possible
    assert not {"a.png", "a_probabilities.tif"} & possible


def test_the_names_of_outputs_are_known_without_what_writes_them():
    """A batch searches for scenes, and waits for neither geopandas nor GDAL to know which are maps."""
    script = (
        "import sys, pipeline.batch.inputs, pipeline.maps.outputs\n"
        "heavy = {'rasterio', 'geopandas', 'pandas', 'matplotlib', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
