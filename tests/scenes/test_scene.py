"""Scenes: whatever a user gives is read in the right bands, at the right place, with the right meaning."""

import pickle
import shutil
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as project

from pipeline.errors import LandcoverError, SceneError, UsageError
from pipeline.options import SceneOptions
from pipeline.scenes.gdal import REMOTE
from pipeline.scenes.scene import Scene, open_scene
from tests.support.cards import RGB_CARD as RGB

MULTI = replace(RGB, name="ms", bands=("B02", "B05", "B09"))
NAMES = ("B04", "B03", "B02")
STATED = (("red", 1), ("green", 2), ("blue", 3))


def read_all(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    with scene.open() as reader:
        return reader.read(0, 0, scene.height, scene.width)


def texts(scene: Scene, level: str) -> str:
    return "\n".join(note.text for note in scene.notes if note.level == level)


def reflectances(height: int = 70, width: int = 80, dark: int = 200, bands: int = 3) -> np.ndarray:
    """Make uint16 pixels as of a clear scene whose darkest hold `dark`."""
    return np.random.default_rng(1).integers(dark, dark + 2000, (bands, height, width), dtype=np.uint16)


# ---- bands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "descriptions",
    [
        ("B02", "B03", "B04", "B08"),
        ("B2", "B3", "B4", "B8"),
        ("blue", "green", "red", "nir"),
        ("Blue", "GREEN", "Red (665 nm)", "NIR"),
        ("B2, central wavelength 490 nm", "B3, central wavelength 560 nm", "B4 (665)", "B8A"),
        ("T33UVP_B02_10m", "T33UVP_B03_10m", "T33UVP_B04_10m", "red edge 1"),
    ],
)
def test_bands_are_found_by_description(write_raster, descriptions):
    pixels = reflectances(bands=4)
    scene = open_scene(write_raster(pixels, "a_L1C.tif", descriptions=descriptions), RGB)
    assert (read_all(scene)[0] == pixels[[2, 1, 0]]).all()
    assert "red=3, green=2, blue=1" in texts(scene, "info")


def test_what_the_user_states_beats_descriptions(write_raster):
    pixels = reflectances(bands=4)
    path = write_raster(pixels, "a_L1C.tif", descriptions=("B02", "B03", "B04", "B08"))
    scene = open_scene(path, RGB, SceneOptions(bands=(("red", 4), ("B3", 1))))
    assert (read_all(scene)[0] == pixels[[3, 0, 0]]).all()


def test_bands_are_found_by_colour_interpretation(write_raster):
    path = write_raster(reflectances(bands=4), "a_L1C.tif")
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    assert [layer.indexes for layer in open_scene(path, RGB).layers] == [(3, 2, 1)]


def test_three_unnamed_8_bit_bands_are_red_green_blue(write_raster):
    path = write_raster(reflectances().astype(np.uint8), photometric="MINISBLACK")
    scene = open_scene(path, RGB)
    assert scene.layers[0].indexes == (1, 2, 3)
    assert "not named" in texts(scene, "info")
    assert scene.encoding.level == "rgb8"
    assert "`level` tci" in texts(scene, "warning")


@pytest.mark.parametrize("count", [3, 8, 12, 13])
def test_unnamed_16_bit_bands_are_never_guessed(write_raster, count):
    with pytest.raises(SceneError, match=r"none of which is named.*`bands` red=1,green=2,blue=3"):
        open_scene(write_raster(reflectances(bands=count)), RGB)


def test_a_band_named_twice_is_an_error_until_it_is_stated(write_raster):
    path = write_raster(reflectances(bands=4), "a_L1C.tif", descriptions=("B04", "B03", "B02", "B04"))
    with pytest.raises(SceneError, match=r"B04 more than once \(bands 1 and 4\).*`bands` red=N"):
        open_scene(path, RGB)
    assert open_scene(path, RGB, SceneOptions(bands=(("red", 4),))).layers[0].indexes == (4, 2, 3)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ((("red", 9),), "has the bands 1 to 3"),
        ((("purple", 1),), "no Sentinel-2 band"),
        ((("red", 1), ("B04", 2)), "names red twice"),
    ],
)
def test_bands_that_cannot_be_meant(write_raster, bands, message):
    with pytest.raises(UsageError, match=message):
        open_scene(write_raster(reflectances()), RGB, SceneOptions(bands=bands))


def test_too_few_bands_are_listed(write_raster):
    path = write_raster(reflectances(bands=2), descriptions=("B04", "B03"))
    with pytest.raises(SceneError, match=r"2 bands \(B04, B03\).*needs 3: B04, B03, B02"):
        open_scene(path, RGB)


# ---- folders of band files -----------------------------------------------------------------------


@pytest.fixture
def band_folder(write_raster, tmp_path):
    """Write B02, B03, B04 of one scene and return (folder, pixels in the order B04, B03, B02)."""
    pixels = reflectances()
    for i, band in enumerate(("B04", "B03", "B02")):
        write_raster(pixels[i : i + 1], f"set/x_l1c_20200101_{band}.tif")
    return tmp_path / "set", pixels


def test_a_folder_of_band_files(band_folder):
    folder, pixels = band_folder
    scene = open_scene(folder, RGB)
    assert scene.name == "x_l1c_20200101"
    assert scene.encoding.level == "l1c"
    assert len(scene.files) == 3
    assert (read_all(scene)[0] == pixels).all()


def test_one_file_of_a_set_points_to_its_folder(band_folder):
    with pytest.raises(SceneError, match=r"is a single band.*give the folder .*set\b"):
        open_scene(band_folder[0] / "x_l1c_20200101_B02.tif", RGB)


def test_two_sets_in_one_folder_are_named(band_folder, write_raster):
    for band in RGB.bands:
        write_raster(reflectances()[:1], f"set/other_{band}.tif")
    with pytest.raises(SceneError, match=r"2 scenes \(other, x_l1c_20200101\)"):
        open_scene(band_folder[0], RGB)


def test_a_folder_that_lacks_a_band_says_what_it_has(band_folder):
    (band_folder[0] / "x_l1c_20200101_B03.tif").unlink()
    with pytest.raises(SceneError, match=r"x_l1c_20200101: B02, B04"):
        open_scene(band_folder[0], RGB)


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: p / "MTD_MSIL2A.xml"], ids=["folder", "metadata"])
def test_loose_band_files_beside_their_products_metadata(band_folder, wrap):
    folder, pixels = band_folder
    (folder / "MTD_MSIL2A.xml").write_text(metadata("l2a", offset=-100))
    scene = open_scene(wrap(folder), RGB)
    assert (scene.name, scene.encoding.level) == ("x_l1c_20200101", "l2a")
    assert (read_all(scene)[0] == pixels).all()


def test_bands_numbers_make_no_sense_for_a_folder(band_folder):
    with pytest.raises(UsageError, match="leave `bands` out"):
        open_scene(band_folder[0], RGB, SceneOptions(bands=STATED))


def test_files_named_by_colour_and_a_scene_classification(write_raster, tmp_path):
    pixels = reflectances()
    for i, colour in enumerate(("red", "green", "blue")):
        write_raster(pixels[i : i + 1], f"S2A_L2A/{colour}.tif")
    classes = np.full((1, 35, 40), 4, np.uint8)
    classes[0, :5, :5] = 9
    write_raster(classes, "S2A_L2A/SCL.tif", transform=from_origin(399_960, 5_300_040, 20, 20))
    scene = open_scene(tmp_path / "S2A_L2A", RGB)
    assert (scene.name, scene.encoding.level) == ("S2A_L2A", "l2a")
    valid = read_all(scene)[1]
    assert not valid[:10, :10].any()
    assert valid.sum() == valid.size - 100


def test_coarser_bands_come_onto_the_finest_bands_grid(write_raster, tmp_path):
    write_raster(reflectances(60, 60)[:1], "set/L1C_B02.tif")
    write_raster(
        np.full((1, 30, 30), 500, np.uint16),
        "set/L1C_B05.tif",
        transform=from_origin(399_960, 5_300_040, 20, 20),
    )
    write_raster(
        np.full((1, 10, 10), 700, np.uint16),
        "set/L1C_B09.tif",
        transform=from_origin(399_960, 5_300_040, 60, 60),
    )
    scene = open_scene(tmp_path / "set", MULTI)
    pixels, valid = read_all(scene)
    assert (scene.width, scene.height, scene.resampling) == (60, 60, None)
    assert (pixels[0] == reflectances(60, 60)[0]).all()
    assert (pixels[1] == 500).all()
    assert (pixels[2] == 700).all()
    assert valid.all()


# ---- SAFE products -------------------------------------------------------------------------------


def metadata(level: str, baseline: str = "04.00", offset: int | None = -1000) -> str:
    root, kind, prefix = ("Level-1C", "RADIO", "") if level == "l1c" else ("Level-2A", "BOA", "BOA_")
    offsets = (
        ""
        if offset is None
        else "".join(f'<{kind}_ADD_OFFSET band_id="{i}">{offset - i}</{kind}_ADD_OFFSET>' for i in range(13))
    )
    return (
        f'<?xml version="1.0"?><n1:{root}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/x">'
        f"<PROCESSING_LEVEL>{root}</PROCESSING_LEVEL><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
        f"<{prefix}QUANTIFICATION_VALUE>10000</{prefix}QUANTIFICATION_VALUE>{offsets}</n1:{root}_User_Product>"
    )


@pytest.fixture
def l1c_product(tmp_path):
    """Write a tiny L1C product, bands at 10, 20 and 60 m, the left third no data; return its folder."""
    product = tmp_path / "S2A_MSIL1C_20230105T101411_N0509_R022_T33UVP_20230105T120000.SAFE"
    images = product / "GRANULE/L1C_T33UVP_A1_20230105T101411/IMG_DATA"
    images.mkdir(parents=True)
    (product / "MTD_MSIL1C.xml").write_text(metadata("l1c", "05.09"))
    for band, metres in {"B02": 10, "B03": 10, "B04": 10, "B05": 20, "B09": 60}.items():
        size = 1440 // metres
        pixels = np.full((1, size, size), 1500 + int(band[1:]), np.uint16)
        pixels[:, :, : size // 3] = 0
        with rasterio.open(
            images / f"T33UVP_20230105T101411_{band}.jp2",
            "w",
            driver="JP2OpenJPEG",
            width=size,
            height=size,
            count=1,
            dtype="uint16",
            crs="EPSG:32633",
            transform=from_origin(399_960, 5_300_040, metres, metres),
            QUALITY=100,
            REVERSIBLE="YES",
        ) as file:
            file.write(pixels)
    return product


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder.parent / folder.stem), "zip", folder.parent, folder.name))


@pytest.mark.parametrize("wrap", [lambda p: p, zipped, lambda p: p / "MTD_MSIL1C.xml", lambda p: p.parent])
def test_an_l1c_product_in_every_wrapping(l1c_product, wrap):
    scene = open_scene(wrap(l1c_product), RGB)
    assert scene.name == l1c_product.stem
    assert scene.encoding.offset == (-1003, -1002, -1001)  # per band, by band_id
    assert scene.transform == from_origin(399_960, 5_300_040, 10, 10)
    assert scene.files
    pixels, valid = read_all(scene)
    assert (pixels[:, :, 50:] == np.array([1504, 1503, 1502])[:, None, None]).all()
    assert (valid == (np.arange(144) >= 48)).all()


@pytest.mark.parametrize("wrap", [lambda p: p, zipped])
def test_the_sun_of_a_products_day_lights_its_atmosphere(l1c_product, wrap):
    """In Scandinavia's winter it stands 75 degrees from the zenith, and the haze is twice as blue."""
    (granule,) = (l1c_product / "GRANULE").iterdir()
    (granule / "MTD_TL.xml").write_text(
        "<x><Mean_Sun_Angle><ZENITH_ANGLE unit='deg'>74.5</ZENITH_ANGLE></Mean_Sun_Angle></x>"
    )
    scene = open_scene(wrap(l1c_product), replace(RGB, level="l2a"))
    assert scene.encoding.sun_zenith == 74.5
    assert any("the sun 74°, by the granule's metadata, from the zenith" in note.text for note in scene.notes)
    (granule / "MTD_TL.xml").unlink()
    high = open_scene(l1c_product, replace(RGB, level="l2a"))
    assert scene.pixel_transform.bias[2] < high.pixel_transform.bias[2] - 20  # more haze comes off


@pytest.mark.parametrize("path", [".", "MTD_MSIL1C.xml", "GRANULE/.."])
def test_an_l1c_product_from_within(l1c_product, monkeypatch, path):
    monkeypatch.chdir(l1c_product)
    scene = open_scene(path, RGB)
    assert scene.name == l1c_product.stem
    assert scene.encoding.offset == (-1003, -1002, -1001)


def test_loose_images_of_a_product_from_within_find_its_metadata(l1c_product, monkeypatch):
    monkeypatch.chdir(next(l1c_product.rglob("IMG_DATA")))
    assert open_scene(".", RGB).encoding.offset == (-1003, -1002, -1001)


def test_a_product_brings_coarse_bands_to_10_m(l1c_product):
    scene = open_scene(l1c_product, MULTI)
    pixels, valid = read_all(scene)
    assert scene.encoding.offset == (-1001, -1004, -1009)
    assert (pixels[:, :, 60:] == np.array([1502, 1505, 1509])[:, None, None]).all()
    assert valid[:, 60:].all()
    assert not valid[:, :40].any()


def test_a_product_without_the_files_asked_for(l1c_product):
    with pytest.raises(SceneError, match=r"60 m file of band B04 .* at 10 m.*`safe_resolution` 10"):
        open_scene(l1c_product, RGB, SceneOptions(safe_resolution=60))
    next(l1c_product.rglob("*_B04.jp2")).unlink()
    with pytest.raises(SceneError, match="no file of band B04"):
        open_scene(l1c_product, RGB)


def test_a_file_that_declares_more_than_a_scene_is_refused_before_anything_is_read(write_raster):
    write_raster(np.ones((3, 64, 64), np.uint16), descriptions=("B04", "B03", "B02"))
    band = (
        '<VRTRasterBand dataType="UInt16" band="{0}"><Description>{1}</Description><SimpleSource>'
        "<SourceFilename relativeToVRT='1'>scene.tif</SourceFilename><SourceBand>{0}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
    )
    huge = write_raster(np.ones((1, 1, 1), np.uint8), "folder.tif").with_name("huge.vrt")
    huge.write_text(
        '<VRTDataset rasterXSize="1000000" rasterYSize="1000000">'
        + "".join(band.format(i + 1, name) for i, name in enumerate(("B04", "B03", "B02")))
        + "</VRTDataset>"
    )
    with pytest.raises(SceneError, match=r"huge declares 1,000,000 x 1,000,000 pixels .* cut it into parts"):
        open_scene(huge, RGB, SceneOptions(assume_gsd=10))


def test_metadata_that_cannot_be_trusted(l1c_product):
    document = l1c_product / "MTD_MSIL1C.xml"
    for text in ("<broken", metadata("l1c").replace("QUANTIFICATION", "Q")):
        document.write_text(text)
        with pytest.raises(SceneError, match="not readable Sentinel-2 product metadata"):
            open_scene(l1c_product, RGB)
    document.write_text('<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    with pytest.raises(SceneError, match="declares XML entities"):
        open_scene(l1c_product, RGB)


def test_zips_that_are_no_product(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(SceneError, match="holds no product of a known format"):
        open_scene(path, RGB)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(SceneError, match="damaged zip"):
        open_scene(path, RGB)


# ---- level and offset ----------------------------------------------------------------------------


def open_named(write_raster, pixels: np.ndarray, name: str = "scene.tif", tags: dict[str, str] | None = None,
               **options) -> Scene:  # fmt: skip
    path = write_raster(pixels, name, descriptions=NAMES, tags=tags)
    return open_scene(path, RGB, SceneOptions(**options))


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
    assert not texts(scene, "warning")


def test_level_by_metadata_beside_the_file(write_raster, tmp_path):
    (tmp_path / "MTD_MSIL2A.xml").write_text(metadata("l2a"))
    scene = open_named(write_raster, reflectances(dark=1100), "stack_l1c.tif")
    assert scene.encoding.level == "l2a"
    assert scene.encoding.offset == (-1003, -1002, -1001)


def test_level_by_values_is_a_guess_that_is_said(write_raster):
    """Blue seen through the air is never as dark as the surface can be."""
    hazy, clear = reflectances(dark=750), reflectances(dark=150)
    for pixels, level in ((hazy, "l1c"), (clear, "l2a")):
        scene = open_named(write_raster, pixels)
        assert scene.encoding.level == level
        assert "state `level`" in texts(scene, "warning")


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


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("https://host/a.tif", True),
        ("s3://bucket/a.tif", True),
        ("/vsicurl/https://host/a.tif", True),
        ("/vsizip//vsicurl/https://host/a.zip/b.tif", True),
        ("/vsizip/vsis3/bucket/a.zip/b.tif", True),
        ("zip+https://host/a.zip!b.tif", True),
        ("/data/a.tif", False),
        ("a.tif", False),
        ("C:/a.tif", False),
        ("file:///data/a.tif", False),
        ("zip:///data/a.zip!b.tif", False),
        ("/vsizip/{/data/a.zip}/b.tif", False),
    ],
)
def test_only_remote_images_are_opened_without_the_files_beside_them(path, remote):
    assert bool(REMOTE.match(path)) == remote


def test_the_user_beats_metadata(l1c_product):
    scene = open_scene(l1c_product, RGB, SceneOptions(level="l2a", offset=0))
    assert (scene.encoding.level, scene.encoding.offset) == ("l2a", (0, 0, 0))


def test_an_atmosphere_between_levels_is_said(write_raster):
    assert "clear atmosphere, the sun an assumed 40° from the zenith, was added" in texts(
        open_named(write_raster, reflectances(), "a_l2a.tif"), "info"
    )
    assert "atmosphere" not in texts(open_named(write_raster, reflectances(), "a_l1c.tif"), "info").replace(
        "of atm", ""
    )


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
    assert "offset" in texts(scene, said).lower()


def test_a_stated_offset_beats_what_was_found(write_raster):
    scene = open_named(write_raster, reflectances(dark=150), "S2A_MSIL2A_N0400_x.tif", offset=-1000)
    assert scene.encoding.offset == (-1000,) * 3


def test_scale_and_offset_tags_are_used(write_raster):
    path = write_raster(reflectances(dark=1100), "a_l2a.tif", descriptions=NAMES)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.0001,) * 3, (-0.1,) * 3
    scene = open_scene(path, RGB)
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
        assert not texts(scene, "warning")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_reflectance_is_not_silently_taken_for_a_picture(write_raster, dtype):
    pixels = reflectances().astype(dtype)
    with pytest.raises(SceneError, match=r"`level` tci states, is of 8 bit: use `level` l1c or l2a"):
        open_named(write_raster, pixels, level="tci")
    assert "of them lie above" in texts(open_named(write_raster, pixels, level="rgb8"), "warning")
    picture = (reflectances(dark=0) // 9).astype(dtype)
    picture[:, 0, :50] = 300  # less than a percent
    assert not texts(open_named(write_raster, picture, level="rgb8"), "warning")


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
    scene = open_scene(write_raster(pixels, name), RGB)
    assert (scene.encoding.level, scene.encoding.reflectance) == ("tci", origin)
    assert "ade from" in texts(scene, said)
    valid = read_all(scene)[1]
    assert not valid[:10].any()
    assert valid[10:].all()


def test_8_bit_values_are_no_reflectance(write_raster):
    path = write_raster(reflectances().astype(np.uint8))
    with pytest.raises(SceneError, match="8-bit values"):
        open_scene(path, RGB, SceneOptions(level="l1c"))
    with pytest.raises(UsageError, match="`offset` belongs to reflectance"):
        open_scene(path, RGB, SceneOptions(offset=-1000))
    with pytest.raises(UsageError, match="`level` is one of"):
        open_scene(path, RGB, SceneOptions(level="l3"))


# ---- the ground grid -----------------------------------------------------------------------------


def open_placed(write_raster, transform: Affine | None, crs: str | None, size=(70, 80), **options) -> Scene:
    path = write_raster(reflectances(*size), "p_l1c.tif", crs=crs, transform=transform, descriptions=NAMES)
    return open_scene(path, RGB, SceneOptions(**options))


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
    scene = open_scene(path, RGB)
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
    scene = open_scene(write_control_points(write_raster, crs), RGB)
    assert scene.crs.to_epsg() == 32633
    assert scene.transform.almost_equals(from_origin(399_960, 5_300_040, 10, 10), precision=0.01)
    assert (read_all(scene)[0] == reflectances()).all()
    assert "9 ground control points" in texts(scene, "info")


def test_ground_control_points_that_fit_no_grid(write_raster):
    with pytest.raises(SceneError, match=r"no straight grid fits.*gdalwarp -tps"):
        open_scene(write_control_points(write_raster, "EPSG:32633", bend=60), RGB)
    with pytest.raises(SceneError, match="too few ground control points"):
        open_scene(write_control_points(write_raster, "EPSG:32633", columns=(40,)), RGB)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", from_origin(179.995, -16.0, 0.0001, 0.0001)),
        ("EPSG:3832", from_origin(3_339_000 - 300, 500_000, 10.6, 10.6)),  # PDC Mercator, centred on 150 E
        ("EPSG:32660", from_origin(834_000, 8_200_000, 12, 12)),
    ],
)
def test_the_dateline_does_not_go_around_the_world(write_raster, crs, transform):
    scene = open_placed(write_raster, transform, crs)
    assert max(scene.width, scene.height) < 150
    assert read_all(scene)[1].mean() > 0.8


def test_scenes_that_cannot_be_one_map(write_raster):
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
        open_scene(path, RGB)


def test_coarse_pixels_earn_a_warning(write_raster):
    scene = open_placed(write_raster, from_origin(399_960, 5_300_040, 60, 60), "EPSG:32633")
    assert "blurred" in texts(scene, "warning")


def test_no_coordinate_system(write_raster):
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
    assert "pixel space" in texts(scene, "warning")
    pixels, valid = read_all(scene)
    assert valid.all()
    assert pixels[0].mean() == pytest.approx(reflectances()[0].mean(), rel=0.01)
    with pytest.raises(UsageError, match="greater than 0"):
        open_placed(write_raster, None, None, assume_gsd=-1)


def test_rational_polynomials_only(write_raster):
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
        open_scene(path, RGB)


# ---- validity ------------------------------------------------------------------------------------

TEN = from_origin(399_960, 5_300_040, 10, 10)
TWELVE = from_origin(399_960, 5_300_040, 12, 12)


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
        return open_scene(write_raster(pixels, name, transform=transform, descriptions=names, **profile), RGB)

    def corner(self, value: float, dtype: str = "uint16", bands: Iterable[int] = (0, 1, 2)) -> np.ndarray:
        pixels = reflectances(64, 64).astype(dtype)
        pixels[list(bands), :32, :32] = value
        return pixels

    def test_nothing_said_and_nothing_missing(self, write_raster, transform):
        assert read_all(self.open(write_raster, transform, reflectances(64, 64)))[1][:60, :60].all()

    def test_nodata_in_one_of_the_bands(self, write_raster, transform):
        scene = self.open(write_raster, transform, self.corner(65535, bands=[1]), nodata=65535)
        assert blank_corner(read_all(scene)[1])

    def test_nodata_does_not_bleed_into_its_neighbours(self, write_raster, transform):
        pixels, valid = read_all(self.open(write_raster, transform, self.corner(65535), nodata=65535))
        assert pixels[:, valid].max() < 3500

    def test_zero_in_all_bands_is_no_data_unless_something_else_was_declared(self, write_raster, transform):
        assert blank_corner(read_all(self.open(write_raster, transform, self.corner(0)))[1])
        assert read_all(self.open(write_raster, transform, self.corner(0, bands=[2])))[1][:60, :60].all()
        assert read_all(self.open(write_raster, transform, self.corner(0), nodata=65535))[1][:60, :60].all()

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
        pixels, valid = read_all(open_scene(path, RGB))
        assert blank_corner(valid)
        assert pixels[:, valid].max() < 3500

    @pytest.mark.parametrize("opaque", [255, 65535])
    def test_alpha_is_a_mask_and_no_band(self, write_raster, transform, opaque):
        pixels = np.concatenate([self.corner(9000), np.full((1, 64, 64), opaque, np.uint16)])
        pixels[3, :32, :32] = 0
        path = write_raster(pixels, "a_l1c.tif", transform=transform)
        with rasterio.open(path, "r+") as raster:
            raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        scene = open_scene(path, RGB)
        pixels, valid = read_all(scene)
        assert len(pixels) == 3
        assert blank_corner(valid)

    def test_an_8_bit_picture_with_black_in_it_is_all_valid(self, write_raster, transform):
        scene = self.open(write_raster, transform, self.corner(0, "uint8"))
        assert scene.encoding.level == "rgb8"
        assert read_all(scene)[1][:60, :60].all()

    def test_a_mask_of_the_users(self, write_raster, transform, tmp_path):
        """Zero is valid, on whatever grid; declared as nodata too, as masks often are."""
        path = write_raster(reflectances(64, 64), "u_l1c.tif", transform=transform, descriptions=NAMES)
        side = transform.a * 64
        mask = np.zeros((1, 32, 32), np.uint8)
        mask[:, :16, :16] = 3
        write_raster(
            mask, "mask.tif", transform=from_origin(399_960, 5_300_040, side / 32, side / 32), nodata=0
        )
        scene = open_scene(path, RGB, SceneOptions(mask=tmp_path / "mask.tif"))
        assert blank_corner(read_all(scene)[1])
        assert "mask mask.tif" in texts(scene, "info")
        assert tmp_path / "mask.tif" in scene.files

    def test_a_mask_without_a_georeference_lies_on_the_scenes_own_pixels(self, write_raster, transform):
        path = write_raster(reflectances(64, 64), "u_l1c.tif", transform=transform, descriptions=NAMES)
        mask = np.zeros((1, 64, 64), np.uint8)
        mask[:, :32, :32] = 1
        options = SceneOptions(mask=write_raster(mask, "mask.tif", crs=None, transform=None))
        assert blank_corner(read_all(open_scene(path, RGB, options))[1])

    @pytest.mark.parametrize("named", ["file", "description", "tag"])
    def test_a_scene_classification_of_the_users(self, write_raster, transform, tmp_path, named):
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
        scene = open_scene(path, RGB, SceneOptions(mask=mask))
        assert blank_corner(read_all(scene)[1])
        assert "scene classification" in texts(scene, "info")


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_validity_of_a_file_of_which_some_bands_are_read(write_raster, transform, kind):
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
    pixels, valid = read_all(open_scene(path, RGB))
    assert blank_corner(valid)
    assert [np.unique(band[valid]).tolist() for band in pixels] == [[600], [900], [1200]]


@pytest.mark.parametrize("value", [2, 4, 5, 6, 7, 11])
def test_valid_classes_stay(write_raster, tmp_path, value):
    path = write_raster(reflectances(), "u_l1c.tif", descriptions=NAMES)
    mask = write_raster(np.full((1, 70, 80), value, np.uint8), "SCL.tif")
    assert read_all(open_scene(path, RGB, SceneOptions(mask=mask)))[1].all()


def test_masks_that_do_not_belong_to_the_scene(write_raster, tmp_path):
    path = write_raster(reflectances(), "u_l1c.tif", descriptions=NAMES)
    far = write_raster(np.zeros((1, 9, 9), np.uint8), "far.tif", transform=from_origin(0, 0, 10, 10))
    with pytest.raises(SceneError, match="lies beside the scene"):
        open_scene(path, RGB, SceneOptions(mask=far))
    degrees = from_origin(30, 48, 0.1, 0.1)
    far = write_raster(np.zeros((1, 9, 9), np.uint8), "far.tif", crs="EPSG:4326", transform=degrees)
    with pytest.raises(SceneError, match="lies beside the scene"):
        open_scene(path, RGB, SceneOptions(mask=far))
    nowhere = write_raster(np.zeros((1, 9, 9), np.uint8), "nowhere.tif", crs=None, transform=None)
    with pytest.raises(SceneError, match="not its size either"):
        open_scene(path, RGB, SceneOptions(mask=nowhere))
    same_size = write_raster(np.ones((1, 70, 80), np.uint8), "same.tif", crs=None, transform=None)
    assert not read_all(open_scene(path, RGB, SceneOptions(mask=same_size)))[1].any()


def test_a_mask_of_the_whole_earth_lies_on_every_scene(write_raster):
    """Its corners, at the poles and half a world away, have no place in UTM."""
    path = write_raster(reflectances(64, 64), "u_l1c.tif", descriptions=NAMES)
    earth = np.ones((1, 180, 360), np.uint8)
    mask = write_raster(earth, "earth.tif", crs="EPSG:4326", transform=from_origin(-180, 90, 1, 1))
    assert not read_all(open_scene(path, RGB, SceneOptions(mask=mask)))[1].any()


def test_a_rotated_mask(write_raster):
    """Its pixels, not the upright box around them, have to lie on the scene."""
    path = write_raster(reflectances(64, 64), "u_l1c.tif", descriptions=NAMES)
    turned = Affine.rotation(45) @ Affine.scale(10, -10)
    ones = np.ones((1, 100, 100), np.uint8)
    centred = Affine.translation(400_280, 5_299_720) @ turned @ Affine.translation(-50, -50)
    mask = write_raster(ones, "on.tif", transform=centred)
    assert not read_all(open_scene(path, RGB, SceneOptions(mask=mask)))[1][10:54, 10:54].any()
    # The scene fills the empty corner of the box around this one.
    beside = Affine.translation(401_050, 5_298_950) @ turned @ Affine.translation(-50, -50)
    mask = write_raster(ones, "beside.tif", transform=beside)
    with pytest.raises(SceneError, match="lies beside the scene"):
        open_scene(path, RGB, SceneOptions(mask=mask))


# ---- what is no scene ----------------------------------------------------------------------------


def test_no_such_file(tmp_path):
    with pytest.raises(SceneError, match="There is no file or folder"):
        open_scene(tmp_path / "absent.tif", RGB)


def test_not_a_raster(tmp_path):
    (tmp_path / "a.tif").write_text("hello")
    with pytest.raises(SceneError, match="cannot be opened as a raster image"):
        open_scene(tmp_path / "a.tif", RGB)


def test_an_empty_folder(tmp_path):
    with pytest.raises(SceneError, match="none at all"):
        open_scene(tmp_path, RGB)


def test_complex_numbers(write_raster):
    with pytest.raises(SceneError, match="complex"):
        open_scene(write_raster(np.ones((3, 9, 9), np.complex64)), RGB)


def test_a_palette(write_raster):
    path = write_raster(np.ones((1, 9, 9), np.uint8), photometric="PALETTE")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {1: (9, 9, 9, 255)})
    with pytest.raises(SceneError, match=r"colour table.*-expand rgb"):
        open_scene(path, RGB)


def test_a_single_band(write_raster):
    with pytest.raises(SceneError, match="has a single band and the model needs B04, B03, B02"):
        open_scene(write_raster(reflectances(bands=1)), RGB)


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
def test_damage_half_way_through(write_raster, capfd, transform):
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
        read_all(open_scene(path, RGB, SceneOptions(level="l1c", offset=0)))
    assert capfd.readouterr().err == ""  # GDAL's own messages stay in the log


# ---- reading -------------------------------------------------------------------------------------


def test_windows_are_what_they_say(write_raster):
    pixels = reflectances()
    scene = open_scene(write_raster(pixels, "a_l1c.tif", descriptions=NAMES), RGB)
    with scene.open() as reader:
        window, valid = reader.read(10, 20, 30, 40)
        assert (window == pixels[:, 10:40, 20:60]).all()
        assert window.dtype == scene.dtype == np.uint16
        assert valid.shape == (30, 40)
        for outside in ((-1, 0, 5, 5), (0, 0, 71, 5), (0, 76, 5, 5), (0, 0, 0, 5)):
            with pytest.raises(ValueError, match="leaves the scene"):
                reader.read(*outside)


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
def test_a_scene_goes_to_threads_and_processes(write_raster, transform):
    path = write_raster(reflectances(), "a_l1c.tif", transform=transform, descriptions=NAMES)
    scene = pickle.loads(pickle.dumps(open_scene(path, RGB)))
    expected = read_all(scene)[0]
    same = []

    def work() -> None:
        same.append((read_all(scene)[0] == expected).all())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 4


def test_what_a_look_at_a_file_leaves_behind_is_none_of_its_files(write_raster, tmp_path):
    """The files tell whether a scene has changed: opening it in a viewer has not changed it."""
    path = write_raster(reflectances(512, 512), "a_l1c.tif", descriptions=NAMES)
    mosaic = tmp_path / "mosaic.vrt"
    mask = write_raster(np.zeros((1, 512, 512), np.uint8), "mask.tif", transform=None, crs=None)
    (tmp_path / "mask.tfw").write_text("10\n0\n0\n-10\n399965\n5300035\n")
    with rasterio.open(path) as raster:
        rasterio.shutil.copy(raster, mosaic, driver="VRT")
    options = SceneOptions(level="l1c", mask=mask)
    before = open_scene(mosaic, RGB, options).files
    assert {file.name for file in before} == {"mosaic.vrt", "a_l1c.tif", "mask.tif", "mask.tfw"}
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4])
    with rasterio.open(path) as raster:
        raster.statistics(1)
    left_behind = {file.name for file in tmp_path.iterdir()} - {file.name for file in before}
    assert left_behind == {"a_l1c.tif.ovr", "a_l1c.tif.aux.xml"}
    assert open_scene(mosaic, RGB, options).files == before
    with rasterio.open(path) as raster:  # GDAL itself does count them
        assert {"a_l1c.tif.ovr", "a_l1c.tif.aux.xml"} <= {Path(file).name for file in raster.files}
    assert set(open_scene(path, RGB, options).files) == set(before) - {mosaic}


@pytest.mark.parametrize(
    ("profile", "height"), [({}, None), ({"tiled": True, "blockxsize": 32, "blockysize": 32}, 32)]
)
def test_block_height_is_the_files(write_raster, profile, height):
    path = write_raster(reflectances(200, 200), "a_l1c.tif", descriptions=NAMES, **profile)
    with rasterio.open(path) as raster:
        height = height or raster.block_shapes[0][0]
    assert open_scene(path, RGB).block_height == height


def numbered_bands(count: int) -> np.ndarray:
    """Make pixels that are 300 in the first band, 600 in the second and so on."""
    return (
        np.full((count, 64, 64), 1, np.uint16)
        * (300 * np.arange(1, count + 1, dtype=np.uint16))[:, None, None]
    )


def bands_read(scene: Scene) -> list[list[int]]:
    """Return the values of each band, away from the borders."""
    pixels, valid = read_all(scene)
    assert valid[:60, :60].all()
    return [np.unique(band[:60, :60]).tolist() for band in pixels]


@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
@pytest.mark.parametrize("name", ["with space & ümläut.tif", "what?.tif", "a,b=c.tif"])
def test_odd_file_names(write_raster, monkeypatch, name, transform, nodata):
    names = ("B08", "B04", "B03", "B02", "B11")
    path = write_raster(numbered_bands(5), name, transform=transform, descriptions=names, nodata=nodata)
    monkeypatch.chdir(path.parent)
    for given in (path, path.name):
        scene = open_scene(given, RGB, SceneOptions(level="l1c"))
        assert scene.name == path.stem
        assert bands_read(scene) == [[600], [900], [1200]]


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
def test_signed_addresses(write_raster, transform):
    """What follows the `?` is neither part of the name nor lost on the way to the file."""
    names = ("B08", "B04", "B03", "B02", "B11")
    scene_file = write_raster(numbered_bands(5), "far_l1c.tif", transform=transform, descriptions=names)
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[:, 62:] = 1
    mask_file = write_raster(mask, "Clouds.tif", transform=transform)
    query = "?X-Amz-Signature=a.b%2Fc_SCL_L2A"
    addresses = []
    for file in (scene_file, mask_file):  # in memory, as there is no network to count on
        addresses.append(f"/vsimem/https://host/{file.name}{query}")
        rasterio.shutil.copy(file, addresses[-1], driver="GTiff")
    scene = open_scene(addresses[0], RGB, SceneOptions(mask=addresses[1]))
    assert (scene.name, scene.encoding.level) == ("far_l1c", "l1c")
    assert "by the mask Clouds.tif." in texts(scene, "info")
    assert bands_read(scene) == [[600], [900], [1200]]
    assert not read_all(scene)[1][-1].any()
    assert scene.files == ()


# ---- real scenes ---------------------------------------------------------------------------------


def test_every_real_file_opens_or_says_why_not(scenes):
    paths = [p for p in scenes.rglob("*") if p.is_file() and p.suffix not in (".xsd", ".safe")]
    assert len(paths) > 30
    said = []
    for path in [*paths, *(p for p in scenes.rglob("*") if p.is_dir())]:
        for options in (SceneOptions(), SceneOptions(bands=STATED, assume_gsd=10)):
            try:
                scene = open_scene(path, RGB, options)
                with scene.open() as reader:
                    pixels, valid = reader.read(0, 0, min(64, scene.height), min(64, scene.width))
                assert pixels.shape[1:] == valid.shape
            except LandcoverError as error:
                said.append(str(error))
    assert all(text.endswith(".") and "\n" not in text for text in said)


def test_innviertel(scenes):
    path = scenes / "innviertel_l2a_2dates.tif"
    with pytest.raises(SceneError, match="`bands` red=1,green=2,blue=3"):
        open_scene(path, RGB)
    scene = open_scene(path, RGB, SceneOptions(bands=STATED))
    assert (scene.encoding.level, scene.encoding.offset, scene.resampling) == ("l2a", (0,) * 3, None)
    assert scene.transform == from_origin(359_130, 5_352_340, 10, 10)
    assert not texts(scene, "warning")


def test_mol_is_a_folder_of_bands(scenes):
    scene = open_scene(scenes, RGB)
    assert (scene.name, scene.encoding.level) == ("mol_l1c_20190411", "l1c")
    assert (scene.width, scene.height) == (512, 1024)


def test_boadella_is_brought_from_degrees_to_utm(scenes):
    options = SceneOptions(bands=(("red", 4), ("green", 3), ("blue", 2)))
    scene = open_scene(scenes / "boadella_l2a_20210721.tif", RGB, options)
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


def test_the_cloudy_scene_is_not_taken_for_an_offset(scenes):
    options = SceneOptions(bands=(("red", 4), ("green", 3), ("blue", 2)))
    scene = open_scene(scenes / "boadella_l2a_20200118_cloud.tif", RGB, options)
    assert scene.encoding.offset == (0,) * 3
    assert "clouds" in texts(scene, "warning")


@pytest.fixture(scope="module")
def product(scenes) -> Path:
    return next((scenes / "safe").glob("*.SAFE"))


def test_a_real_product_without_its_10_m_files_says_so(product):
    with pytest.raises(
        SceneError, match=r"10 m file of band B04 is not in the product.*`safe_resolution` 60"
    ):
        open_scene(product, RGB)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_real_product_at_60_m(product, packed, tmp_path):
    path = product
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / product.stem), "zip", product.parent, product.name))
    scene = open_scene(path, RGB, SceneOptions(safe_resolution=60))
    assert scene.name == product.stem
    assert (scene.encoding.level, scene.encoding.offset) == ("l2a", (-1000,) * 3)
    assert (scene.transform, scene.width, scene.height) == (
        from_origin(499_980, 5_900_040, 10, 10),
        10980,
        10980,
    )
    assert scene.crs.to_epsg() == 32629
    with rasterio.open(next(product.rglob("*_SCL_60m.jp2"))) as raster:
        row, col = np.argwhere(np.isin(raster.read(1), (4, 5)))[0].tolist()
        classes = raster.read(1, window=((row, row + 10), (col, col + 10)))
    with scene.open() as reader:
        _, valid = reader.read(row * 6, col * 6, 60, 60)
    assert valid[:6, :6].all()
    expected = np.isin(classes, (2, 4, 5, 6, 7, 11)).repeat(6, axis=0).repeat(6, axis=1)
    assert (valid == expected).mean() > 0.95  # cubic drops what its kernel cannot reach


def test_a_real_true_colour_image_looks_like_its_bands(product):
    """ESA's TCI and the bands of the same product must give the model the same values."""
    assert open_scene(product, RGB, SceneOptions(safe_resolution=60)).encoding.sun_zenith == pytest.approx(
        57.82, abs=0.01
    )
    bands = open_scene(product, RGB, SceneOptions(safe_resolution=60))
    image = open_scene(next(product.rglob("*_TCI_60m.jp2")), RGB)
    assert (image.encoding.level, image.encoding.reflectance) == ("tci", "l2a")
    with rasterio.open(next(product.rglob("*_SCL_60m.jp2"))) as raster:
        clear = np.isin(raster.read(1), (4, 5)).reshape(61, 30, 61, 30).sum(axis=(1, 3))
    row, col = (int(i) * 180 for i in np.unravel_index(clear.argmax(), clear.shape))
    values, valid = [], True
    for scene in (bands, image):
        with scene.open() as reader:
            pixels, ok = reader.read(row, col, 180, 180)
        values.append(scene.pixel_transform.apply(pixels))
        valid = valid & ok
    unsaturated = valid & (values[1] < 240).all(axis=0)
    assert unsaturated.mean() > 0.5
    assert np.abs(values[0] - values[1])[:, unsaturated].mean() < 1
