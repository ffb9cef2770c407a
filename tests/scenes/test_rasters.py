"""The files of a scene: which pixels are valid, by the file itself, by masks and by scene classifications."""

from collections.abc import Iterable

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

from pipeline.errors import SceneError
from pipeline.options import SceneOptions
from pipeline.scenes.scene import Scene, open_scene
from tests.support.cards import RGB_CARD
from tests.support.scenes import (
    NAMES,
    TEN,
    TWELVE,
    note_texts,
    numbered_bands,
    read_all,
    reflectances,
)


def blank_corner(valid: np.ndarray) -> bool:
    """Tell whether just the upper left quarter (give or take the kernel) is invalid."""
    h, w = (size // 2 for size in valid.shape)
    return not valid[: h - 3, : w - 3].any() and valid[h + 3 :].all() and valid[:, w + 3 :].all()


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
class TestValidity:
    def open(
        self, write_raster, transform: Affine, pixels: np.ndarray, name: str = "v_l1c.tif", **profile
    ) -> Scene:
        names = ("B04", "B03", "B02", "B08")[: len(pixels)]
        return open_scene(
            write_raster(pixels, name, transform=transform, descriptions=names, **profile), RGB_CARD
        )

    def corner(self, value: float, dtype: str = "uint16", bands: Iterable[int] = (0, 1, 2)) -> np.ndarray:
        pixels = reflectances(64, 64).astype(dtype)
        pixels[list(bands), :32, :32] = value
        return pixels

    def test_all_is_valid_where_nothing_is_declared_or_missing(self, write_raster, transform):
        assert read_all(self.open(write_raster, transform, reflectances(64, 64)))[1][:60, :60].all()

    def test_nodata_in_one_of_the_bands(self, write_raster, transform):
        scene = self.open(write_raster, transform, self.corner(65535, bands=[1]), nodata=65535)
        assert blank_corner(read_all(scene)[1])

    def test_nodata_does_not_bleed_into_its_neighbours(self, write_raster, transform):
        pixels, valid = read_all(self.open(write_raster, transform, self.corner(65535), nodata=65535))
        assert pixels[:, valid].max() < 3500

    def test_zero_in_all_bands_is_no_data_and_in_one_of_them_is_not(self, write_raster, transform):
        assert blank_corner(read_all(self.open(write_raster, transform, self.corner(0)))[1])
        assert read_all(self.open(write_raster, transform, self.corner(0, bands=[2])))[1][:60, :60].all()

    def test_nan(self, write_raster, transform):
        for nodata in (None, float("nan")):
            scene = self.open(write_raster, transform, self.corner(np.nan, "float32"), nodata=nodata)
            pixels, valid = read_all(scene)
            assert blank_corner(valid)
            assert np.isfinite(pixels[:, valid]).all()

    def test_mask_inside_the_file(self, write_raster, transform):
        path = write_raster(self.corner(9000), "m_l1c.tif", transform=transform, descriptions=NAMES)
        mask = np.full((64, 64), 255, np.uint8)
        mask[:32, :32] = 0
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
            raster.write_mask(mask)
        pixels, valid = read_all(open_scene(path, RGB_CARD))
        assert blank_corner(valid)
        assert pixels[:, valid].max() < 3500

    @pytest.mark.parametrize("opaque", [255, 65535])
    def test_alpha_is_a_mask_and_no_band(self, write_raster, transform, opaque):
        pixels = np.concatenate([self.corner(9000), np.full((1, 64, 64), opaque, np.uint16)])
        pixels[3, :32, :32] = 0
        path = write_raster(pixels, "a_l1c.tif", transform=transform)
        with rasterio.open(path, "r+") as raster:
            raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        scene = open_scene(path, RGB_CARD)
        pixels, valid = read_all(scene)
        assert len(pixels) == 3
        assert blank_corner(valid)

    def test_an_8_bit_picture_with_black_in_it_is_all_valid(self, write_raster, transform):
        pixels = reflectances(64, 64).astype("uint8")
        pixels[:, 20:40, 20:40] = 0
        scene = self.open(write_raster, transform, pixels)
        assert scene.encoding.level == "rgb8"
        assert read_all(scene)[1][:60, :60].all()

    def test_a_mask_from_the_user(self, write_raster, transform, tmp_path):
        """Zero is valid, on whatever grid; declared as nodata too, as masks often are."""
        path = write_raster(reflectances(64, 64), "u_l1c.tif", transform=transform, descriptions=NAMES)
        side = transform.a * 64
        mask = np.zeros((1, 32, 32), np.uint8)
        mask[:, :16, :16] = 3
        write_raster(
            mask, "mask.tif", transform=from_origin(399_960, 5_300_040, side / 32, side / 32), nodata=0
        )
        scene = open_scene(path, RGB_CARD, SceneOptions(mask=tmp_path / "mask.tif"))
        assert blank_corner(read_all(scene)[1])
        assert "mask mask.tif" in note_texts(scene, "info")
        assert tmp_path / "mask.tif" in scene.files

    def test_a_mask_without_a_georeference_lies_on_the_scenes_own_pixels(self, write_raster, transform):
        path = write_raster(reflectances(64, 64), "u_l1c.tif", transform=transform, descriptions=NAMES)
        mask = np.zeros((1, 64, 64), np.uint8)
        mask[:, :32, :32] = 1
        options = SceneOptions(mask=write_raster(mask, "mask.tif", crs=None, transform=None))
        assert blank_corner(read_all(open_scene(path, RGB_CARD, options))[1])

    @pytest.mark.parametrize("named", ["file", "description", "tag"])
    def test_a_scene_classification_from_the_user(self, write_raster, transform, tmp_path, named):
        path = write_raster(reflectances(64, 64), "u_l1c.tif", transform=transform, descriptions=NAMES)
        classes = np.full((1, 64, 64), 5, np.uint8)
        for i, bad in enumerate((0, 1, 3, 8, 9, 10)):
            classes[:, :32, i * 32 // 6 : (i + 1) * 32 // 6] = bad
        mask = write_raster(
            classes,
            "T33UVP_SCL_20m.tif" if named == "file" else "classes.tif",
            transform=transform,
            descriptions=("SCL",) if named == "description" else (),
            tags={"TITLE": "Scene classification"} if named == "tag" else None,
        )
        scene = open_scene(path, RGB_CARD, SceneOptions(mask=mask))
        assert blank_corner(read_all(scene)[1])
        assert "scene classification" in note_texts(scene, "info")


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_validity_holds_when_only_some_bands_are_read(write_raster, transform, kind):
    pixels = numbered_bands(6)
    blank = np.where(np.indices((64, 64)).max(axis=0) < 32, 0, 255)
    if kind == "alpha":
        pixels[5] = blank
    names = ("B08", "B04", "B03", "B02", "B11")
    path = write_raster(pixels, "p_l1c.tif", transform=transform, descriptions=names)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        if kind == "alpha":
            raster.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * 4 + [ColorInterp.alpha]
        else:
            raster.write_mask(blank.astype(np.uint8))
    pixels, valid = read_all(open_scene(path, RGB_CARD))
    assert blank_corner(valid)
    assert [np.unique(band[valid]).tolist() for band in pixels] == [[600], [900], [1200]]


@pytest.mark.parametrize("value", [2, 4, 5, 6, 7, 11])
def test_valid_classes_of_a_scene_classification_stay(write_raster, tmp_path, value):
    path = write_raster(reflectances(), "u_l1c.tif", descriptions=NAMES)
    mask = write_raster(np.full((1, 70, 80), value, np.uint8), "SCL.tif")
    assert read_all(open_scene(path, RGB_CARD, SceneOptions(mask=mask)))[1].all()


def test_masks_that_miss_the_scene_are_refused(write_raster, tmp_path):
    path = write_raster(reflectances(), "u_l1c.tif", descriptions=NAMES)
    far = write_raster(np.zeros((1, 9, 9), np.uint8), "far.tif", transform=from_origin(0, 0, 10, 10))
    with pytest.raises(SceneError, match="lies beside the scene"):
        open_scene(path, RGB_CARD, SceneOptions(mask=far))
    degrees = from_origin(30, 48, 0.1, 0.1)
    far = write_raster(np.zeros((1, 9, 9), np.uint8), "far.tif", crs="EPSG:4326", transform=degrees)
    with pytest.raises(SceneError, match="lies beside the scene"):
        open_scene(path, RGB_CARD, SceneOptions(mask=far))
    nowhere = write_raster(np.zeros((1, 9, 9), np.uint8), "nowhere.tif", crs=None, transform=None)
    with pytest.raises(SceneError, match="not its size either"):
        open_scene(path, RGB_CARD, SceneOptions(mask=nowhere))
    same_size = write_raster(np.ones((1, 70, 80), np.uint8), "same.tif", crs=None, transform=None)
    assert not read_all(open_scene(path, RGB_CARD, SceneOptions(mask=same_size)))[1].any()


def test_a_mask_of_the_whole_earth_lies_on_every_scene(write_raster):
    """Its corners, at the poles and half a world away, have no place in UTM."""
    path = write_raster(reflectances(64, 64), "u_l1c.tif", descriptions=NAMES)
    earth = np.ones((1, 180, 360), np.uint8)
    mask = write_raster(earth, "earth.tif", crs="EPSG:4326", transform=from_origin(-180, 90, 1, 1))
    assert not read_all(open_scene(path, RGB_CARD, SceneOptions(mask=mask)))[1].any()


def test_a_rotated_mask_has_to_reach_the_scene_itself(write_raster):
    """Its pixels, not the upright box around them, have to lie on the scene."""
    path = write_raster(reflectances(64, 64), "u_l1c.tif", descriptions=NAMES)
    turned = Affine.rotation(45) @ Affine.scale(10, -10)
    ones = np.ones((1, 100, 100), np.uint8)
    centred = Affine.translation(400_280, 5_299_720) @ turned @ Affine.translation(-50, -50)
    mask = write_raster(ones, "on.tif", transform=centred)
    assert not read_all(open_scene(path, RGB_CARD, SceneOptions(mask=mask)))[1][10:54, 10:54].any()
    # The scene fills the empty corner of the box around this one.
    beside = Affine.translation(401_050, 5_298_950) @ turned @ Affine.translation(-50, -50)
    mask = write_raster(ones, "beside.tif", transform=beside)
    with pytest.raises(SceneError, match="lies beside the scene"):
        open_scene(path, RGB_CARD, SceneOptions(mask=mask))


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
def test_damage_in_the_middle_of_a_file_is_reported(write_raster, capfd, transform):
    path = write_raster(
        reflectances(1000, 300),
        "b_l1c.tif",
        transform=transform,
        descriptions=NAMES,
        compress="deflate",
    )
    content = bytearray(path.read_bytes())  # the directory lies at the end: spoil what is before
    content[len(content) // 2 : -4000] = b"\0" * (len(content) - len(content) // 2 - 4000)
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"b_l1c\.tif cannot be read at rows"):
        read_all(open_scene(path, RGB_CARD, SceneOptions(level="l1c", offset=0)))
    assert capfd.readouterr().err == ""  # GDAL's own messages stay in the log


@pytest.mark.parametrize(
    ("profile", "height"), [({}, None), ({"tiled": True, "blockxsize": 32, "blockysize": 32}, 32)]
)
def test_block_height_is_the_files(write_raster, profile, height):
    path = write_raster(reflectances(200, 200), "a_l1c.tif", descriptions=NAMES, **profile)
    with rasterio.open(path) as raster:
        height = height or raster.block_shapes[0][0]
    assert open_scene(path, RGB_CARD).block_height == height
