"""Rasters that are valid COGs, with their colours, names and tags."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from pipeline.maps.cog import write_confidence, write_landcover, write_names, write_probabilities
from tests.support.maps import CLASSES, UTM33, make_map

CHECKERED = [[0, 1, 2], [3, 3, 1]]


def random_classes(rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, (rows, cols), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (700, 1300)])
def test_the_map_is_a_valid_cog_with_every_cell_in_its_place(tmp_path: Path, size: tuple[int, int]) -> None:
    landcover = make_map(random_classes(*size))
    path = tmp_path / "scene_landcover.tif"

    write_landcover(landcover, path)

    valid, errors, warnings = cog_validate(path, strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(source.read(1), landcover.class_id)
        assert source.transform == landcover.transform
        assert source.crs == UTM33
        assert source.dtypes == ("uint8",)
        assert source.nodata == 0
        assert source.block_shapes == [(512, 512)]
        assert source.compression.value == "DEFLATE"
        assert bool(source.overviews(1)) == (max(size) > 512)


def test_the_map_carries_its_colours_and_its_model(tmp_path: Path) -> None:
    path = tmp_path / "scene_landcover.tif"

    write_landcover(make_map(CHECKERED), path, {"model": "eurosat", "model_digest": "abc"})

    with rasterio.open(path) as source:
        colormap = source.colormap(1)
        tags = source.tags()
    assert colormap[0][3] == 0
    assert colormap[1] == (0x1B, 0x7A, 0x34, 255)
    assert colormap[3] == (0x4F, 0xC3, 0xF7, 255)
    assert tags["model"] == "eurosat"
    assert tags["model_digest"] == "abc"
    assert tags["CLASS_NAMES"] == "1=Forest, 2=Pasture, 3=River"


def test_the_side_file_names_and_counts_the_classes(tmp_path: Path) -> None:
    path = tmp_path / "scene_landcover.tif"

    write_names(make_map(CHECKERED), path.with_name(f"{path.name}.aux.xml"))

    band = ElementTree.parse(f"{path}.aux.xml").find("PAMRasterBand")
    assert band is not None
    assert [entry.text for entry in band.iter("Category")] == ["no data", "Forest", "Pasture", "River"]
    assert [entry.text for entry in band.iter("Name")] == ["Value", "Count", "Class", "Red", "Green", "Blue"]
    rows = [[cell.text for cell in row] for row in band.iter("Row")]
    assert rows[2] == ["3", "2", "River", "79", "195", "247"]


def test_ids_with_gaps_keep_their_own_names(tmp_path: Path) -> None:
    path = tmp_path / "scene_landcover.tif.aux.xml"

    write_names(replace(make_map([[1, 3]]), classes=(CLASSES[0], CLASSES[2])), path)

    categories = [entry.text for entry in ElementTree.parse(path).iter("Category")]
    assert categories == ["no data", "Forest", None, "River"]


def test_overviews_of_the_map_hold_the_most_frequent_class(tmp_path: Path) -> None:
    class_id = np.full((1024, 1024), 2)
    class_id[::2, ::2] = 1
    path = tmp_path / "scene_landcover.tif"

    write_landcover(make_map(class_id), path)

    with rasterio.open(path, overview_level=0) as overview:
        assert np.unique(overview.read(1)).tolist() == [2]


def test_confidence_is_percent_and_its_overviews_leave_out_no_data(tmp_path: Path) -> None:
    class_id = np.ones((1024, 1024))
    class_id[:, ::2] = 0
    path = tmp_path / "scene_confidence.tif"

    write_confidence(make_map(class_id, confidence=90), path)

    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as source:
        assert source.nodata == 255
        assert source.dtypes == ("uint8",)
        assert source.read(1)[0, :4].tolist() == [255, 90, 255, 90]
    with rasterio.open(path, overview_level=0) as overview:
        assert np.unique(overview.read(1)).tolist() == [90]


def test_probabilities_have_a_named_band_a_class(tmp_path: Path) -> None:
    landcover = make_map(CHECKERED)
    path = tmp_path / "scene_probabilities.tif"

    write_probabilities(landcover, path, {"model": "eurosat"})

    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as source:
        assert source.descriptions == ("Forest", "Pasture", "River")
        assert source.dtypes == ("float32",) * 3
        assert np.isnan(source.nodata)
        assert source.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        assert source.tags()["model"] == "eurosat"
        np.testing.assert_array_equal(source.read(), landcover.probabilities)


def test_probabilities_that_were_not_kept_cannot_be_written(tmp_path: Path) -> None:
    landcover = replace(make_map(CHECKERED), probabilities=None)

    with pytest.raises(ValueError, match="keep_probabilities"):
        write_probabilities(landcover, tmp_path / "scene_probabilities.tif")


def test_a_map_in_pixel_space_has_no_crs_but_its_transform(tmp_path: Path) -> None:
    landcover = make_map(CHECKERED, crs=None)
    path = tmp_path / "scene_landcover.tif"

    write_landcover(landcover, path)

    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as source:
        assert source.crs is None
        assert source.transform == landcover.transform
