"""Which maps may be joined, and what is said of those that may not."""

from dataclasses import replace

import pytest

from pipeline.errors import UsageError
from tests.support.maps import CLASSES, make_map
from tests.support.mosaics import MODEL, join, put, put_two_zones, refused


def test_maps_of_two_zones_are_refused_and_one_zone_can_be_chosen(tmp_path):
    zones = put_two_zones(tmp_path / "maps")
    message = refused(UsageError, zones, tmp_path / "map.tif")
    assert "EPSG:32632 (1 map), EPSG:32633 (2 maps)" in message
    assert "`crs` EPSG:3263" in message

    assert join(zones, tmp_path / "map.tif", crs="EPSG:32633").maps == 2
    assert "EPSG:32632 (1 map)" in refused(UsageError, zones, tmp_path / "m.tif", crs="EPSG:32634")
    assert "`crs`" in refused(UsageError, zones, tmp_path / "m.tif", crs="zone 33")


@pytest.mark.parametrize(
    ("other", "tags", "message"),
    [
        (
            make_map([[1]]),
            MODEL | {"model_digest": "sha256:fedcba9876543210"},
            "sha256:01234567 (1 map), rgb sha256:fed",
        ),
        (
            make_map([[1]], cell=160.0),
            MODEL,
            r"160 m (1 map), 640 m (1 map): classify all scenes with one `stride`",
        ),
        (replace(make_map([[1]]), classes=CLASSES[:2]), MODEL, "other classes"),
        (make_map([[1]], crs=None), MODEL, "none (1 map): join one at a time, such as `crs` EPSG:32633"),
    ],
    ids=["model", "stride", "classes", "pixel space"],
)
def test_maps_that_do_not_belong_together_are_refused(tmp_path, other, tags, message):
    put(tmp_path / "maps", "a", make_map([[1]]))
    put(tmp_path / "maps", "b", other, tags)

    assert message in refused(UsageError, tmp_path / "maps", tmp_path / "map.tif")


def test_maps_without_a_coordinate_system_are_refused(tmp_path):
    put(tmp_path / "maps", "a", make_map([[1]], crs=None))

    assert "`assume_crs`" in refused(UsageError, tmp_path / "maps", tmp_path / "map.tif")


def test_a_folder_without_maps_is_refused(tmp_path):
    (tmp_path / "maps").mkdir()
    assert "no finished map" in refused(UsageError, tmp_path / "maps", tmp_path / "map.tif")
