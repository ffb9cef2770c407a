"""Finished maps are found and described; unfinished and damaged ones are named."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import SceneError
from pipeline.maps.cog import write_confidence
from pipeline.maps.finished import find_maps, read_cells
from tests.support.maps import CLASSES, make_map
from tests.support.mosaics import at, put


def test_an_unfinished_map_is_left_out_and_named(tmp_path, caplog):
    put(tmp_path / "maps", "done", make_map([[1]]))
    put(tmp_path / "maps" / "sub", "half", make_map([[2]], origin=at(1, 0)))
    (tmp_path / "maps" / "sub" / "half_run.json").unlink()
    put(tmp_path / "maps" / ".later.1234.part", "later", make_map([[3]], origin=at(2, 0)))

    assert [m.name for m in find_maps(tmp_path / "maps")] == ["done"]
    assert "not finished" in caplog.text
    assert "sub/half." in caplog.text
    assert "later" not in caplog.text


def test_a_mosaic_among_the_maps_is_not_taken_for_an_unfinished_map(tmp_path, caplog):
    put(tmp_path, "scene", make_map([[1, 2]]))
    put(tmp_path, "all", make_map([[1, 2]]))
    (tmp_path / "all_run.json").rename(tmp_path / "all_landcover_mosaic.json")

    assert [m.name for m in find_maps(tmp_path)] == ["scene"]
    assert not caplog.text


def test_a_map_keeps_class_names_with_commas(tmp_path):
    classes = (replace(CLASSES[0], name="Forest, mixed = 3"), *CLASSES[1:])
    put(tmp_path, "scene", replace(make_map([[1]]), classes=classes))

    assert find_maps(tmp_path)[0].classes == classes


def test_a_map_that_cannot_be_read_is_named(tmp_path):
    path = put(tmp_path, "bad", make_map([[1]]))
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(SceneError, match=r"bad_landcover\.tif cannot be read"):
        find_maps(tmp_path)


def test_a_confidence_that_is_missing_or_of_another_map_is_named(tmp_path):
    put(tmp_path, "bad", make_map([[1]]))
    (map_file,) = find_maps(tmp_path)
    map_file.confidence.unlink()
    with pytest.raises(SceneError, match=r"bad_confidence\.tif cannot be read"):
        read_cells(map_file)

    write_confidence(make_map([[1, 2]]), map_file.confidence)
    with pytest.raises(SceneError, match=r"bad_confidence\.tif does not belong to the map"):
        read_cells(map_file)


def test_a_raster_that_is_no_map_is_named(tmp_path, write_raster):
    write_raster(np.ones((1, 2, 2), np.uint8), "maps/x_landcover.tif")
    (tmp_path / "maps" / "x_run.json").write_text("{}")

    with pytest.raises(SceneError, match=r"x_landcover\.tif lacks the tags that say what its cells are"):
        find_maps(tmp_path)
