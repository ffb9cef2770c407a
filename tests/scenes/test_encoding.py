"""Encoding: product level, offset and scale are found, guessed with a warning, or refused."""

import numpy as np
import pytest
import rasterio

from pipeline.errors import SceneError, UsageError
from pipeline.options import SceneOptions
from pipeline.scenes.scene import open_scene
from tests.support.cards import RGB_CARD
from tests.support.safe import metadata_xml
from tests.support.scenes import (
    NAMES,
    note_texts,
    open_named,
    read_all,
    reflectances,
)


@pytest.mark.parametrize(
    ("name", "tags", "level"),
    [
        ("S2A_MSIL1C_20190101T0_N0207_R1_T33UVP.tif", None, "l1c"),
        ("mine_l2a_2019.tif", None, "l2a"),
        ("mine.tif", {"PROCESSING_LEVEL": "Level-2A"}, "l2a"),
        ("mine.tif", {"PRODUCT_TYPE": "S2MSI1C"}, "l1c"),
    ],
)
def test_level_by_name_or_tags(write_raster, name, tags, level):
    scene = open_named(write_raster, reflectances(), name, tags)
    assert scene.encoding.level == level
    assert not note_texts(scene, "warning")


def test_level_by_metadata_beside_the_file(write_raster, tmp_path):
    (tmp_path / "MTD_MSIL2A.xml").write_text(metadata_xml("l2a"))
    scene = open_named(write_raster, reflectances(dark=1100), "stack_l1c.tif")
    assert scene.encoding.level == "l2a"
    assert scene.encoding.offset == (-1003, -1002, -1001)


def test_level_by_values_is_a_guess_that_is_said(write_raster):
    """Blue seen through the air is never as dark as the surface can be."""
    hazy, clear = reflectances(dark=750), reflectances(dark=150)
    for pixels, level in ((hazy, "l1c"), (clear, "l2a")):
        scene = open_named(write_raster, pixels)
        assert scene.encoding.level == level
        assert "state `level`" in note_texts(scene, "warning")


@pytest.mark.parametrize("side", [300, 1000, 2000])  # read whole; read whole and thinned; read in windows
def test_the_values_of_scenes_of_any_size_tell_level_and_offset(write_raster, side):
    """A twentieth of the scene is dark, in stripes, and a tenth holds no data, which is not dark."""
    pixels = reflectances(side, side, dark=2500)
    rows, columns = np.indices((side, side))
    pixels[:, (rows + columns) // 16 % 20 == 0] = 1100
    pixels[:, : side // 10] = 0
    scene = open_named(write_raster, pixels)
    assert scene.encoding.level == "l2a"  # 100 without the offset: no air in front of it
    assert scene.encoding.offset == (-1000,) * 3


def test_the_user_beats_metadata(l1c_product):
    scene = open_scene(l1c_product, RGB_CARD, SceneOptions(level="l2a", offset=0))
    assert (scene.encoding.level, scene.encoding.offset) == ("l2a", (0, 0, 0))


def test_an_atmosphere_between_levels_is_said(write_raster):
    surface = open_named(write_raster, reflectances(), "a_l2a.tif")
    assert "clear atmosphere, the sun an assumed 40° from the zenith, was added" in note_texts(
        surface, "info"
    )
    same_level = open_named(write_raster, reflectances(), "a_l1c.tif")
    assert "clear atmosphere" not in note_texts(same_level, "info")


@pytest.mark.parametrize(
    ("name", "tags", "dark", "offset", "said"),
    [
        ("S2A_MSIL2A_20221005T115411_N0400_R023.tif", None, 1050, -1000, "info"),
        ("S2A_MSIL2A_20220101T115411_N0301_R023.tif", None, 1050, 0, "info"),  # the baseline decides
        ("S2A_MSIL2A_20180101T115411_N0500_R023.tif", None, 1050, -1000, "info"),  # ... not the date
        ("a_l2a.tif", {"PROCESSING_BASELINE": "05.09"}, 1050, -1000, "info"),
        ("S2A_MSIL2A_20221005T115411_N0400_R023.tif", None, 150, 0, "warning"),  # removed already
        ("a_l2a.tif", None, 150, 0, "info"),
        ("a_l2a.tif", None, 1080, -1000, "warning"),
        ("a_l2a.tif", None, 4000, 0, "warning"),  # clouds
    ],
)
def test_offset(write_raster, name, tags, dark, offset, said):
    scene = open_named(write_raster, reflectances(dark=dark), name, tags)
    assert scene.encoding.offset == (offset,) * 3
    assert "offset" in note_texts(scene, said).lower()


def test_a_stated_offset_beats_what_was_found(write_raster):
    scene = open_named(write_raster, reflectances(dark=150), "S2A_MSIL2A_N0400_x.tif", offset=-1000)
    assert scene.encoding.offset == (-1000,) * 3


def test_scale_and_offset_tags_are_used(write_raster):
    path = write_raster(reflectances(dark=1100), "a_l2a.tif", descriptions=NAMES)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.0001,) * 3, (-0.1,) * 3
    scene = open_scene(path, RGB_CARD)
    assert scene.encoding.offset == pytest.approx((-1000,) * 3)
    assert scene.encoding.scale == (0.0001,) * 3


@pytest.mark.parametrize(("factor", "scale"), [(1e-4, 1.0), (1.0, 1e-4)])
def test_floating_point_reflectance(write_raster, factor, scale):
    pixels = (reflectances() * factor).astype(np.float32)
    pixels[:, :3] = np.nan
    scene = open_named(write_raster, pixels, "a_l1c.tif")
    assert scene.encoding.scale == (scale,) * 3
    valid = read_all(scene)[1]
    assert not valid[:3].any()
    assert valid[3:].all()


def test_values_too_small_for_reflectance_are_not_guessed(write_raster):
    for dtype in (np.uint16, np.float32):
        pixels = (reflectances(dark=0) // 9).astype(dtype)
        with pytest.raises(SceneError, match="state `level` rgb8, l1c or l2a"):
            open_named(write_raster, pixels)
        scene = open_named(write_raster, pixels, level="rgb8")
        assert scene.pixel_transform.gain == (1.0,) * 3
        assert not note_texts(scene, "warning")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_reflectance_is_not_silently_taken_for_a_picture(write_raster, dtype):
    pixels = reflectances().astype(dtype)
    with pytest.raises(SceneError, match=r"`level` tci states, is of 8 bit: use `level` l1c or l2a"):
        open_named(write_raster, pixels, level="tci")
    assert "of them lie above" in note_texts(open_named(write_raster, pixels, level="rgb8"), "warning")
    picture = (reflectances(dark=0) // 9).astype(dtype)
    picture[:, 0, :50] = 300  # less than a percent
    assert not note_texts(open_named(write_raster, picture, level="rgb8"), "warning")


def test_signed_integers(write_raster):
    pixels = reflectances().astype(np.int16)
    pixels[:, 0, 0] = -50
    scene = open_named(write_raster, pixels, "a_l2a.tif")
    assert scene.dtype == np.int16
    assert read_all(scene)[0][0, 0, 0] == -50


@pytest.mark.parametrize(
    ("name", "origin", "said"),
    [
        ("T33UVP_20230105T101411_TCI_10m.tif", "l2a", "info"),
        ("T33UVP_20230105T101411_TCI.tif", "l1c", "info"),
        ("S2B_MSIL2A_TCI.tif", "l2a", "info"),
        ("my_TCI.tif", "l1c", "warning"),
    ],
)
def test_true_colour_image(write_raster, name, origin, said):
    pixels = (reflectances() // 20).astype(np.uint8) + 1
    pixels[:, :10] = 0
    scene = open_scene(write_raster(pixels, name), RGB_CARD)
    assert (scene.encoding.level, scene.encoding.reflectance) == ("tci", origin)
    assert "ade from" in note_texts(scene, said)
    valid = read_all(scene)[1]
    assert not valid[:10].any()
    assert valid[10:].all()


def test_8_bit_values_are_no_reflectance(write_raster):
    path = write_raster(reflectances().astype(np.uint8))
    with pytest.raises(SceneError, match="8-bit values"):
        open_scene(path, RGB_CARD, SceneOptions(level="l1c"))
    with pytest.raises(UsageError, match="`offset` belongs to reflectance"):
        open_scene(path, RGB_CARD, SceneOptions(offset=-1000))
    with pytest.raises(UsageError, match="`level` is one of"):
        open_scene(path, RGB_CARD, SceneOptions(level="l3"))


def test_the_cloudy_scene_is_not_taken_for_an_offset(scenes):
    options = SceneOptions(bands=(("red", 4), ("green", 3), ("blue", 2)))
    scene = open_scene(scenes / "boadella_l2a_20200118_cloud.tif", RGB_CARD, options)
    assert scene.encoding.offset == (0,) * 3
    assert "clouds" in note_texts(scene, "warning")
