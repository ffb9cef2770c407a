"""The ground grid: every scene comes to lie in its true place, at the model's pixel size."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as project

from pipeline.errors import SceneError, UsageError
from pipeline.options import SceneOptions
from pipeline.scenes.scene import Scene, open_scene
from tests.support.cards import RGB_CARD
from tests.support.scenes import (
    NAMES,
    note_texts,
    read_all,
    reflectances,
)


def open_placed(write_raster, transform: Affine | None, crs: str | None, size=(70, 80), **options) -> Scene:
    path = write_raster(reflectances(*size), "p_l1c.tif", crs=crs, transform=transform, descriptions=NAMES)
    return open_scene(path, RGB_CARD, SceneOptions(**options))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", from_origin(399_960.123, 5_300_040.456, 10, 10)),
        ("EPSG:32633", from_origin(399_960, 5_300_040, 10.1, 9.9)),  # within 2 %
        ("EPSG:3035", from_origin(4_321_000, 3_210_000, 10, 10)),  # LAEA Europe
        ("EPSG:2154", from_origin(650_000, 6_860_000, 10, 10)),  # Lambert-93
        ("EPSG:2263", from_origin(980_000, 200_000, 32.808399, 32.808399)),  # New York, US survey feet
    ],
)
def test_a_projected_10_m_scene_is_used_as_it_is(write_raster, crs, transform):
    scene = open_placed(write_raster, transform, crs)
    assert scene.resampling is None
    assert scene.transform == transform
    assert (read_all(scene)[0] == reflectances()).all()


@pytest.mark.parametrize(
    ("crs", "transform", "resampling"),
    [
        ("EPSG:4326", from_origin(13.0, 48.0, 0.00013, 0.00009), "cubic"),
        ("EPSG:3857", from_origin(1_447_000, 6_100_000, 10, 10), "average"),  # 6.7 m on the ground at 48 N
        ("EPSG:3857", from_origin(1_447_000, 6_100_000, 17, 17), "cubic"),
        ("EPSG:3857", from_origin(1_500_000, 8_404_857.9, 20, 20), "cubic"),  # 10 m on the ground at 60 N
        ("EPSG:3395", from_origin(1_500_000, 8_362_700, 20, 20), "cubic"),  # the same on the ellipsoid
        ("EPSG:3413", from_origin(-200_000, -4_300_000, 11, 11), "cubic"),  # 50 N, true to scale at 70 N
        ("EPSG:3031", from_origin(-2_400_000, 1_400_000, 9.8, 9.8), "cubic"),  # at 65 S, true at 71 S
        ("EPSG:32633", from_origin(399_960, 5_300_040, 3, 3), "average"),
        ("EPSG:32633", from_origin(399_960, 5_300_040, 20, 20), "cubic"),
        ("EPSG:2263", from_origin(980_000, 200_000, 10, 10), "average"),  # feet, not metres
        ("EPSG:32733", from_origin(399_960, 8_300_040, 12, 12), "cubic"),  # south
    ],
)
def test_known_points_land_in_their_pixels(write_raster, crs, transform, resampling):
    """A bright 6 x 6 block in the source must be centred at its very coordinates on the ground grid."""
    pixels = np.full((3, 120, 120), 300, np.uint16)
    pixels[:, 57:63, 63:69] = 5000
    path = write_raster(pixels, "p_l1c.tif", crs=crs, transform=transform, descriptions=NAMES)
    scene = open_scene(path, RGB_CARD)
    assert scene.resampling == resampling
    assert (scene.transform.a, scene.transform.e) == (10, -10)
    values, valid = read_all(scene)
    weight = np.where(valid, values[0].astype(float) - 300, 0).clip(0)
    rows, cols = np.indices(weight.shape)
    found = np.array([(weight * (cols + 0.5)).sum(), (weight * (rows + 0.5)).sum()]) / weight.sum()
    (x,), (y,) = project(crs, scene.crs, *([v] for v in transform @ (66, 60)))
    np.testing.assert_allclose(found, ~scene.transform @ (x, y), atol=0.25)


def test_resampling_within_utm_keeps_the_corner(write_raster):
    scene = open_placed(write_raster, from_origin(399_961.5, 5_300_042.5, 20, 20), "EPSG:32633")
    assert (scene.transform.c, scene.transform.f) == (399_961.5, 5_300_042.5)
    assert (scene.width, scene.height) == (160, 140)


def test_south_up_scenes_are_turned(write_raster):
    pixels = reflectances()
    transform = Affine(10, 0, 399_960, 0, 10, 5_299_340)
    scene = open_placed(write_raster, transform, "EPSG:32633")
    assert scene.transform == from_origin(399_960, 5_300_040, 10, 10)
    assert (read_all(scene)[0] == pixels[:, ::-1]).all()


def test_rotated_scenes_are_warped(write_raster):
    transform = Affine.translation(399_960, 5_300_040) @ Affine.rotation(30) @ Affine.scale(10, -10)
    scene = open_placed(write_raster, transform, "EPSG:32633")
    _, valid = read_all(scene)
    assert scene.transform.b == scene.transform.d == 0
    assert valid.sum() == pytest.approx(70 * 80, rel=0.05)
    col, row = ~scene.transform @ (transform @ (40, 35))
    assert valid[int(row), int(col)]
    assert not valid[0, 0]


def write_control_points(
    write_raster, crs: str, bend: float = 0, columns: Iterable[int] = (0, 40, 80)
) -> Path:
    """Write a scene placed by points only; its true place is UTM 33N, upper left 399,960 5,300,040."""
    path = write_raster(reflectances(), "g_l1c.tif", crs=None, transform=None, descriptions=NAMES)
    points = []
    for row in (0, 35, 70):
        for col in columns:
            east, north = 399_960 + 10 * col + bend * (col - 40) ** 2 / 1600, 5_300_040 - 10 * row
            (x,), (y,) = project("EPSG:32633", crs, [east], [north])
            points.append(GroundControlPoint(row, col, x, y))
    with rasterio.open(path, "r+") as raster:
        raster.gcps = points, rasterio.CRS.from_user_input(crs)
    return path


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_ground_control_points_place_a_scene(write_raster, crs):
    scene = open_scene(write_control_points(write_raster, crs), RGB_CARD)
    assert scene.crs.to_epsg() == 32633
    assert scene.transform.almost_equals(from_origin(399_960, 5_300_040, 10, 10), precision=0.01)
    assert (read_all(scene)[0] == reflectances()).all()
    assert "9 ground control points" in note_texts(scene, "info")


def test_ground_control_points_that_fit_no_grid(write_raster):
    with pytest.raises(SceneError, match=r"no straight grid fits.*gdalwarp -tps"):
        open_scene(write_control_points(write_raster, "EPSG:32633", bend=60), RGB_CARD)
    with pytest.raises(SceneError, match="too few ground control points"):
        open_scene(write_control_points(write_raster, "EPSG:32633", columns=(40,)), RGB_CARD)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", from_origin(179.995, -16.0, 0.0001, 0.0001)),
        ("EPSG:4326", from_origin(-180.005, -16.0, 0.0001, 0.0001)),
        ("EPSG:3832", from_origin(3_339_000 - 300, 500_000, 10.6, 10.6)),  # PDC Mercator, centred on 150 E
        ("EPSG:32660", from_origin(834_000, 8_200_000, 12, 12)),
    ],
)
def test_the_dateline_does_not_go_around_the_world(write_raster, crs, transform):
    scene = open_placed(write_raster, transform, crs)
    assert max(scene.width, scene.height) < 150
    assert read_all(scene)[1].mean() > 0.8


@pytest.mark.parametrize("west", [179.97, -180.03])
def test_both_sides_of_the_dateline_are_read(write_raster, west):
    """Whichever way a file counts its degrees, it is the same place."""
    scene = open_placed(write_raster, from_origin(west, -16.0, 0.0005, 0.0005), "EPSG:4326", size=(40, 120))
    pixels, valid = read_all(scene)
    assert scene.crs.to_epsg() in (32701, 32760)
    assert valid.mean() > 0.94  # turned a little, it does not fill the upright grid
    assert pixels[:, valid].mean() == pytest.approx(reflectances(40, 120).mean(), rel=0.02)


def test_scenes_that_are_too_coarse_are_refused(write_raster):
    with pytest.raises(SceneError, match=r"ground pixels of 300(\.\d)? m.*too coarse"):
        open_placed(write_raster, from_origin(399_960, 5_300_040, 300, 300), "EPSG:32633")
    with pytest.raises(SceneError, match="too coarse"):
        open_placed(write_raster, from_origin(-180, 90, 4.5, 2.5), "EPSG:4326")


def test_a_scene_as_wide_as_a_continent_is_refused_in_degrees(tmp_path):
    path = tmp_path / "wide.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="400000" rasterYSize="100"><SRS>EPSG:4326</SRS>'
        "<GeoTransform>-20, 0.0001, 0, 50, 0, -0.0001</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>B{i + 1}</Description></VRTRasterBand>'
            for i in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    with pytest.raises(SceneError, match="too much for one UTM zone"):
        open_scene(path, RGB_CARD)


def test_coarse_pixels_are_warned_of(write_raster):
    scene = open_placed(write_raster, from_origin(399_960, 5_300_040, 60, 60), "EPSG:32633")
    assert "blurred" in note_texts(scene, "warning")


def test_a_missing_coordinate_system_has_to_be_stated(write_raster):
    transform = from_origin(399_960, 5_300_040, 10, 10)
    with pytest.raises(SceneError, match=r"no coordinate system.*`assume_crs`.*`assume_gsd`"):
        open_placed(write_raster, transform, None)
    placed = open_placed(write_raster, transform, None, assume_crs="EPSG:32633")
    assert (placed.crs.to_epsg(), placed.transform, placed.resampling) == (32633, transform, None)
    with pytest.raises(UsageError, match="no coordinate system"):
        open_placed(write_raster, transform, None, assume_crs="EPSG:0")
    with pytest.raises(UsageError, match="state one of them"):
        open_placed(write_raster, transform, None, assume_crs="EPSG:32633", assume_gsd=10)


def test_assume_crs_also_serves_the_warper(write_raster):
    scene = open_placed(write_raster, from_origin(13.0, 48.0, 0.00013, 0.00009), None, assume_crs="EPSG:4326")
    assert scene.crs.to_epsg() == 32633
    assert read_all(scene)[1].mean() > 0.9


@pytest.mark.parametrize(("pixel", "shape"), [(10.0, (70, 80)), (20.0, (140, 160)), (5.0, (35, 40))])
def test_pixel_space(write_raster, pixel, shape):
    with pytest.raises(SceneError, match=r"does not say where its pixels lie.*`assume_gsd`"):
        open_placed(write_raster, None, None)
    scene = open_placed(write_raster, None, None, assume_gsd=pixel)
    assert scene.crs is None
    assert scene.transform == Affine(10, 0, 0, 0, -10, 0)
    assert (scene.height, scene.width) == shape
    assert "pixel space" in note_texts(scene, "warning")
    pixels, valid = read_all(scene)
    assert valid.all()
    assert pixels[0].mean() == pytest.approx(reflectances()[0].mean(), rel=0.01)
    with pytest.raises(UsageError, match="greater than 0"):
        open_placed(write_raster, None, None, assume_gsd=-1)


def test_scenes_placed_by_rational_polynomials_only_are_refused(write_raster):
    path = write_raster(reflectances(), "r.tif", crs=None, transform=None, descriptions=NAMES)
    coefficients = " ".join(["1"] + ["0"] * 19)
    fields = dict.fromkeys(("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF"), "0")
    fields |= dict.fromkeys(("LINE_SCALE", "SAMP_SCALE", "LAT_SCALE", "LONG_SCALE", "HEIGHT_SCALE"), "1")
    fields |= dict.fromkeys(
        ("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF"), coefficients
    )
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ns="RPC", **fields)
    with pytest.raises(SceneError, match="gdalwarp -rpc"):
        open_scene(path, RGB_CARD)


def test_boadella_is_brought_from_degrees_to_utm(scenes):
    options = SceneOptions(bands=(("red", 4), ("green", 3), ("blue", 2)))
    scene = open_scene(scenes / "boadella_l2a_20210721.tif", RGB_CARD, options)
    assert (scene.crs.to_epsg(), scene.dtype, scene.resampling) == (32631, np.int16, "cubic")
    pixels, valid = read_all(scene)
    # The reservoir: dark in red, as it is in the file at the same longitude and latitude.
    with rasterio.open(scenes / "boadella_l2a_20210721.tif") as raster:
        source, lonlat = raster.read(4), raster.transform
    for row, col in ((60, 60), (190, 190), (300, 120)):
        (x,), (y,) = project("EPSG:4326", scene.crs, *([v] for v in lonlat @ (col + 0.5, row + 0.5)))
        to_col, to_row = (int(v) for v in ~scene.transform @ (x, y))
        assert valid[to_row, to_col]
        near = source[row - 1 : row + 2, col - 1 : col + 2]
        assert near.min() - 50 <= pixels[0, to_row, to_col] <= near.max() + 50
