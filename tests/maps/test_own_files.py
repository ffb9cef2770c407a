"""Files of maps and mosaics are known again, also under other names, and others are not."""

import shutil

import numpy as np
import pytest

from pipeline.batch.inputs import find_scenes
from pipeline.maps.cog import write_confidence, write_landcover, write_probabilities
from pipeline.maps.mosaic import join_maps
from pipeline.maps.own_files import is_own_file
from tests.support.maps import make_map

MODEL = {"model": "rgb", "model_digest": "sha256:0123456789abcdef"}


@pytest.mark.parametrize("suffix", [".tif", ".vrt"])
def test_a_mosaic_among_the_scenes_is_none(tmp_path, write_raster, suffix):
    write_raster(np.ones((3, 9, 9), np.uint16), "in/scene.tif", tags={"PROCESSING_LEVEL": "L1C"})
    for i in range(2):
        landcover = make_map([[1, 2], [3, 1]], origin=(400_000 + 1280 * i, 5_400_000))
        write_landcover(landcover, tmp_path / "in" / f"m{i}_landcover.tif", MODEL)
        write_confidence(landcover, tmp_path / "in" / f"m{i}_confidence.tif", MODEL)
        (tmp_path / "in" / f"m{i}_run.json").write_text("{}")
    join_maps(tmp_path / "in", tmp_path / "in" / f"all{suffix}")
    shutil.copy(tmp_path / "in" / f"all{suffix}", tmp_path / "in" / f"renamed{suffix}")
    scenes = find_scenes([str(tmp_path / "in")], tmp_path / "out")
    assert [scene.name for scene in scenes] == ["scene"]


@pytest.mark.parametrize("write", [write_landcover, write_confidence, write_probabilities])
def test_every_raster_of_a_large_map_is_known_by_its_tags(tmp_path, write):
    class_id = np.random.default_rng(0).integers(0, 4, (700, 900)).astype(np.uint8)
    write(make_map(class_id), tmp_path / "renamed.tif", MODEL)
    assert is_own_file(tmp_path / "renamed.tif")


def test_other_files_are_not_ours(tmp_path, write_raster):
    assert not is_own_file(write_raster(np.ones((3, 9, 9), np.uint16), tags={"model": "of a camera"}))
    assert not is_own_file(tmp_path / "absent.tif")
