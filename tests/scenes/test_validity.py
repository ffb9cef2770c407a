"""Pixels that hold no data although no file says so."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

from pipeline.options import SceneOptions
from pipeline.scenes.reader import read_blocks
from pipeline.scenes.scene import Scene, open_scene
from pipeline.tiles import TileGrid
from tests.support.cards import RGB_CARD
from tests.support.scenes import NAMES, TEN, TWELVE, read_all

FLOAT_MINIMUM = float(np.finfo("float32").min)


def ground(dtype: str = "int16", offset: int = 0) -> np.ndarray:
    """Make reflectance x 10,000 of a place with a dark shadow, 96 x 96 pixels."""
    random = np.random.default_rng(0)
    pixels = random.normal([[[700]], [[800]], [[500]]], [[[250]], [[200]], [[150]]], (3, 96, 96))
    return (np.clip(pixels, 120, 6000) + offset).astype(dtype)


def collared(pixels: np.ndarray, value: float) -> np.ndarray:
    """Fill the left half."""
    pixels = pixels.copy()
    pixels[:, :, :48] = value
    return pixels


def codes(scene: Scene) -> set[str]:
    return {note.code for note in scene.notes}


def check_left_half_is_empty(scene: Scene, source: np.ndarray) -> None:
    """Check that the left half is invalid, and the rest valid and made of the right half's values only."""
    pixels, valid = read_all(scene)
    half = scene.width // 2
    bottom = slice(0, scene.height - 3)
    assert not valid[:, : half - 2].any()
    assert valid[bottom, half + 3 : scene.width - 3].all()
    right = source[:, :, 48:].astype(float)
    reach = 0.3 * (right.max() - right.min())  # a cubic kernel overshoots a little
    assert right.min() - reach <= pixels[:, valid].min()
    assert pixels[:, valid].max() <= right.max() + reach


on_both_grids = pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])


@on_both_grids
@pytest.mark.parametrize(
    ("value", "dtype", "nodata"),
    [
        (-9999, "int16", None),
        (-9999, "int16", -32768),
        (-32768, "int16", None),
        (32767, "int16", 0),
        (65535, "uint16", None),
        (65535, "uint16", 0),
        (-9999, "float32", None),
        (-9999, "float32", np.nan),
        (1e20, "float32", None),
        (FLOAT_MINIMUM, "float32", -3.40282e38),
        (FLOAT_MINIMUM, "float64", -1.79e308),
    ],
)
def test_values_that_no_reflectance_can_have(write_raster, transform, value, dtype, nodata):
    """They steer neither the guess of the offset nor their neighbours."""
    pixels = collared(ground(dtype, offset=1000), value)
    path = write_raster(pixels, "s_l2a.tif", transform=transform, nodata=nodata, descriptions=NAMES)
    scene = open_scene(path, RGB_CARD)
    assert scene.encoding.offset == (-1000,) * 3
    assert "nodata-by-values" in codes(scene)
    check_left_half_is_empty(scene, pixels)


@on_both_grids
@pytest.mark.parametrize("value", [-1, 9999, 255, -9999, 1e20, FLOAT_MINIMUM])
def test_filled_floating_point_reflectance_of_0_to_1(write_raster, transform, value):
    pixels = collared(ground("float32") / np.float32(1e4), value)
    scene = open_scene(write_raster(pixels, "s_l2a.tif", transform=transform, descriptions=NAMES), RGB_CARD)
    assert scene.encoding.scale == (1,) * 3
    check_left_half_is_empty(scene, pixels)


@on_both_grids
@pytest.mark.parametrize("nodata", [65535, 7, None])
def test_zero_in_all_bands_is_no_data_whatever_is_declared(write_raster, transform, nodata):
    pixels = collared(ground("uint16"), 0)
    pixels[2, :, 48:70] = 0  # a single band may be
    path = write_raster(pixels, "s_l2a.tif", transform=transform, nodata=nodata, descriptions=NAMES)
    scene = open_scene(path, RGB_CARD)
    assert ("zero-is-nodata" in codes(scene)) is (nodata is not None)
    check_left_half_is_empty(scene, pixels)


@on_both_grids
@pytest.mark.parametrize("value", [-9999, 0])
def test_a_filling_that_the_alpha_band_does_not_know(write_raster, transform, value):
    """Nor what alpha hides is seen."""
    pixels = collared(ground("int16"), value)
    pixels = np.concatenate([pixels, np.full((1, 96, 96), 255, np.int16)])
    pixels[:3, :20, 60:] = 25_000
    pixels[3, :20, 60:] = 0
    path = write_raster(pixels, "s_l2a.tif", transform=transform)
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    pixels, valid = read_all(open_scene(path, RGB_CARD))
    half, hidden = valid.shape[1] // 2, int(20 * transform.a / 10)
    assert not valid[:, : half - 2].any()
    assert not valid[: hidden - 2, -30:].any()
    assert valid[hidden + 3 : -3, half + 3 : -3].all()
    assert pixels[:, valid].min() >= 0
    assert pixels[:, valid].max() < 3000


@on_both_grids
def test_the_bands_of_a_vrt_declare_each_its_own_value(write_raster, transform, tmp_path):
    filled = (0, 65535, 9)
    pixels = collared(ground("uint16"), 0)
    for i, value in enumerate(filled):
        pixels[i, :, :48] = value
        pixels[i, 40:50, 60:] = filled[i - 1]  # means nothing in this band, where others hold data
    pixels[:, 40:50, 60:] = pixels[:, :10, 60:]
    path = write_raster(pixels, "s.tif", transform=transform)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>{name}</Description>'
        f"<NoDataValue>{value}</NoDataValue><SimpleSource><SourceFilename>{path}</SourceFilename>"
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (name, value) in enumerate(zip(NAMES, filled, strict=True), start=1)
    )
    with rasterio.open(path) as raster:
        placed = ", ".join(map(repr, raster.transform.to_gdal()))
    vrt = tmp_path / "s_l2a.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="96" rasterYSize="96"><SRS>EPSG:32633</SRS><GeoTransform>{placed}'
        f"</GeoTransform>{bands}</VRTDataset>"
    )
    check_left_half_is_empty(open_scene(vrt, RGB_CARD), pixels)


@on_both_grids
def test_nodata_of_one_band_leaves_zeros_in_the_others(write_raster, transform, tmp_path):
    pixels = ground("uint16")
    pixels[0, :, :48] = 65535
    pixels[2, :, 60:80] = 0
    path = write_raster(pixels, "s.tif", transform=transform, descriptions=NAMES)
    vrt = tmp_path / "s_l2a.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    text = vrt.read_text()
    at = text.index("</Description>") + len("</Description>")
    vrt.write_text(f"{text[:at]}<NoDataValue>65535</NoDataValue>{text[at:]}")
    check_left_half_is_empty(open_scene(vrt, RGB_CARD), pixels)


def test_a_collar_with_a_blurred_edge_is_a_collar(write_raster):
    """As interpolation without a declared nodata value leaves it."""
    pixels = collared(ground(), -9999)
    pixels[:, :, 46:48] = np.random.default_rng(0).integers(-9500, -6000, (3, 96, 2))
    scene = open_scene(write_raster(pixels, "s_l2a.tif", descriptions=NAMES), RGB_CARD)
    assert not read_all(scene)[1][:, :48].any()


def test_numbers_of_another_meaning_are_not_taken_for_a_filling(write_raster):
    """Whether they can be reflectance at all is not for the search for missing pixels to decide."""
    pixels = ground("int32") * 1000
    path = write_raster(pixels, "s_l2a.tif", descriptions=NAMES)
    scene = open_scene(path, RGB_CARD, SceneOptions(level="l2a", offset=0))
    assert "nodata-by-values" not in codes(scene)
    assert read_all(scene)[1].all()


def test_reflectance_that_tags_scale_is_judged_as_they_say(write_raster):
    """Of Landsat's numbers 65535 is 1.6, which clouds may well have."""
    pixels = collared(np.round((ground("float64") / 1e4 + 0.2) / 2.75e-5).astype("uint16"), 65535)
    path = write_raster(pixels, "s_l2a.tif", descriptions=NAMES)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (2.75e-5,) * 3, (-0.2,) * 3
    assert read_all(open_scene(path, RGB_CARD, SceneOptions(level="l2a")))[1].all()


def test_the_map_has_no_class_where_the_filling_is(write_raster):
    pixels = np.full((3, 256, 256), -9999, np.int16)
    pixels[:, :, 128:] = np.tile(ground(), (1, 3, 3))[:, :256, :128]
    scene = open_scene(write_raster(pixels, "s_l2a.tif", descriptions=NAMES), RGB_CARD)
    blocks = list(read_blocks(scene, TileGrid(scene.width, scene.height)))
    cells = np.concatenate([block.cell_valid for block in blocks])
    assert cells.tolist() == [[False, False, True, True]] * 4


def turned_picture() -> tuple[np.ndarray, np.ndarray]:
    """Make an 8-bit picture turned by 15 degrees in a black frame, with a black lake; and where it is."""
    rows, cols = np.indices((200, 200))
    turned = ~(Affine.translation(100, 100) @ Affine.rotation(15)) @ (cols + 0.5, rows + 0.5)
    inside = np.maximum(*np.abs(turned)) < 75
    lake = np.maximum(abs(rows - 100), abs(cols - 90)) < 12
    pixels = np.random.default_rng(0).integers(20, 200, (3, 200, 200), dtype=np.uint8)
    return np.where(inside & ~lake, pixels, 0).astype(np.uint8), inside


def test_the_black_border_of_a_picture_is_no_data_and_black_inside_is_not(write_raster):
    pixels, inside = turned_picture()
    scene = open_scene(write_raster(pixels, "p.tif"), RGB_CARD)
    assert "black-border" in codes(scene)
    assert (read_all(scene)[1] == inside).all()
    with scene.open() as reader:  # whatever part is read
        valid = reader.read(60, 70, 50, 40)[1]
    assert (valid == inside[60:110, 70:110]).all()


def test_the_black_border_of_a_resampled_picture_is_not_mixed_in(write_raster):
    pixels, inside = turned_picture()
    scene = open_scene(write_raster(pixels, "p.tif", transform=TWELVE), RGB_CARD)
    pixels, valid = read_all(scene)
    at = ((np.indices(valid.shape) + 0.5) * 10 / 12).astype(int)
    assert (valid == inside[*at]).mean() > 0.99
    assert valid[115:125, 105:112].all()  # the lake
    edge = valid & ~np.roll(valid, 3, axis=1)
    assert pixels[:, edge].mean() > 90


def test_a_picture_without_black_corners_has_no_border(write_raster):
    pixels = np.random.default_rng(0).integers(20, 200, (3, 90, 90), dtype=np.uint8)
    pixels[:, 30:60, :20] = 0
    scene = open_scene(write_raster(pixels, "p.tif"), RGB_CARD)
    assert "black-border" not in codes(scene)
    assert read_all(scene)[1].all()


@pytest.mark.parametrize("level", ["rgb8", "l2a"])
def test_a_filling_in_colours_of_more_bits(write_raster, level):
    pixels = collared(np.random.default_rng(0).integers(20, 200, (3, 96, 96)).astype("int16"), -9999)
    scene = open_scene(write_raster(pixels, "p.tif", descriptions=NAMES), RGB_CARD, SceneOptions(level=level))
    check_left_half_is_empty(scene, pixels)


def test_products_are_taken_at_their_word(l1c_product: Path):
    """Nobody can have changed their numbers, and a sample of JPEG 2000 costs seconds."""
    scene = open_scene(l1c_product, RGB_CARD)
    assert not any(layer.limits or layer.zero_is_nodata for layer in scene.layers)


def test_scenes_of_many_blocks_are_found_filled_too(write_raster):
    """Where the sample is a few windows, a collar is in those at the edges."""
    pixels = np.tile(ground("int16"), (1, 18, 18))
    pixels[:, :, :100] = -9999
    path = write_raster(
        pixels, "s_l2a.tif", descriptions=NAMES, transform=from_origin(399_960, 5_300_040, 12, 12)
    )
    scene = open_scene(path, RGB_CARD)
    assert "nodata-by-values" in codes(scene)
    pixels, valid = read_all(scene)
    assert not valid[:, :118].any()
    assert pixels[:, valid].min() > 0
