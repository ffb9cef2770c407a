"""SAFE products: folder, zip and metadata all open as the same scene, with the product's own calibration."""

import re
import shutil
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from pipeline.errors import SceneError
from pipeline.options import SceneOptions
from pipeline.scenes.scene import open_scene
from pipeline.scenes.sentinel2 import parse_metadata
from tests.support.cards import RGB_CARD
from tests.support.safe import metadata_xml
from tests.support.scenes import (
    MULTI_CARD,
    read_all,
)


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder.parent / folder.stem), "zip", folder.parent, folder.name))


@pytest.mark.parametrize("wrap", [lambda p: p, zipped, lambda p: p / "MTD_MSIL1C.xml", lambda p: p.parent])
def test_an_l1c_product_opens_as_folder_zip_metadata_and_parent_folder(l1c_product, wrap):
    scene = open_scene(wrap(l1c_product), RGB_CARD)
    assert scene.name == l1c_product.stem
    assert scene.encoding.offset == (-1003, -1002, -1001)  # per band, by band_id
    assert scene.transform == from_origin(399_960, 5_300_040, 10, 10)
    assert scene.acquired == datetime(2023, 1, 5, 10, 14, 11, 24_000, tzinfo=UTC)
    assert scene.files
    pixels, valid = read_all(scene)
    assert (pixels[:, :, 50:] == np.array([1504, 1503, 1502])[:, None, None]).all()
    assert (valid == (np.arange(144) >= 48)).all()


@pytest.mark.parametrize("wrap", [lambda p: p, zipped])
def test_the_atmosphere_is_lit_by_the_sun_of_the_products_day(l1c_product, wrap):
    """In Scandinavia's winter it stands 75 degrees from the zenith, and the haze is twice as blue."""
    (granule,) = (l1c_product / "GRANULE").iterdir()
    (granule / "MTD_TL.xml").write_text(
        "<x><Mean_Sun_Angle><ZENITH_ANGLE unit='deg'>74.5</ZENITH_ANGLE></Mean_Sun_Angle></x>"
    )
    scene = open_scene(wrap(l1c_product), replace(RGB_CARD, level="l2a"))
    assert scene.encoding.sun_zenith == 74.5
    assert any("the sun 74°, by the granule's metadata, from the zenith" in note.text for note in scene.notes)
    (granule / "MTD_TL.xml").unlink()
    high = open_scene(l1c_product, replace(RGB_CARD, level="l2a"))
    assert scene.pixel_transform.bias[2] < high.pixel_transform.bias[2] - 20  # more haze comes off


@pytest.mark.parametrize("path", [".", "MTD_MSIL1C.xml", "GRANULE/.."])
def test_an_l1c_product_opens_from_inside_its_folder(l1c_product, monkeypatch, path):
    monkeypatch.chdir(l1c_product)
    scene = open_scene(path, RGB_CARD)
    assert scene.name == l1c_product.stem
    assert scene.encoding.offset == (-1003, -1002, -1001)


def test_a_folder_of_a_products_images_finds_the_products_metadata(l1c_product, monkeypatch):
    monkeypatch.chdir(next(l1c_product.rglob("IMG_DATA")))
    assert open_scene(".", RGB_CARD).encoding.offset == (-1003, -1002, -1001)


def test_a_product_brings_coarse_bands_to_10_m(l1c_product):
    scene = open_scene(l1c_product, MULTI_CARD)
    pixels, valid = read_all(scene)
    assert scene.encoding.offset == (-1001, -1004, -1009)
    assert (pixels[:, :, 60:] == np.array([1502, 1505, 1509])[:, None, None]).all()
    assert valid[:, 60:].all()
    assert not valid[:, :40].any()


def test_a_product_that_lacks_the_files_asked_for_says_which_it_has(l1c_product):
    with pytest.raises(SceneError, match=r"60 m file of band B04 .* at 10 m.*`safe_resolution` 10"):
        open_scene(l1c_product, RGB_CARD, SceneOptions(safe_resolution=60))
    next(l1c_product.rglob("*_B04.jp2")).unlink()
    with pytest.raises(SceneError, match="no file of band B04"):
        open_scene(l1c_product, RGB_CARD)


def test_damaged_and_dangerous_metadata_is_refused(l1c_product):
    document = l1c_product / "MTD_MSIL1C.xml"
    for text in ("<broken", metadata_xml("l1c").replace("QUANTIFICATION", "Q")):
        document.write_text(text)
        with pytest.raises(SceneError, match="not readable Sentinel-2 product metadata"):
            open_scene(l1c_product, RGB_CARD)
    document.write_text('<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    with pytest.raises(SceneError, match="declares XML entities"):
        open_scene(l1c_product, RGB_CARD)


@pytest.mark.parametrize(
    ("tag", "time", "acquired"),
    [
        ("PRODUCT_START_TIME", "2022-10-05T11:54:11Z", datetime(2022, 10, 5, 11, 54, 11, tzinfo=UTC)),
        ("DATATAKE_SENSING_START", "2022-10-05T11:54:11", datetime(2022, 10, 5, 11, 54, 11, tzinfo=UTC)),
        ("PRODUCT_START_TIME", "some day", None),
        ("OTHER", "2022-10-05T11:54:11Z", None),
    ],
)
def test_the_acquisition_time_is_in_utc_and_may_be_missing(tag, time, acquired):
    element = f"<{tag}>{time}</{tag}>"
    text = re.sub("<PRODUCT_START_TIME>.*</PRODUCT_START_TIME>", element, metadata_xml("l2a"))
    assert parse_metadata(text.encode(), "MTD_MSIL2A.xml").acquired == acquired


EARLY_L2A = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-12.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
  <n1:General_Info>
    <L2A_Product_Info>
      <PRODUCT_START_TIME>2017-06-13T10:10:31.026Z</PRODUCT_START_TIME>
      <PROCESSING_LEVEL>Level-2Ap</PROCESSING_LEVEL>
      <PROCESSING_BASELINE>02.05</PROCESSING_BASELINE>
    </L2A_Product_Info>
    <L2A_Product_Image_Characteristics>
      <L1C_L2A_Quantification_Values_List>
        <L1C_TOA_QUANTIFICATION_VALUE unit="none">1000</L1C_TOA_QUANTIFICATION_VALUE>
        <L2A_BOA_QUANTIFICATION_VALUE unit="none">10000</L2A_BOA_QUANTIFICATION_VALUE>
        <L2A_AOT_QUANTIFICATION_VALUE unit="none">1000.0</L2A_AOT_QUANTIFICATION_VALUE>
      </L1C_L2A_Quantification_Values_List>
    </L2A_Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-2A_User_Product>"""


def test_metadata_of_early_l2a_products():
    facts = parse_metadata(EARLY_L2A.encode(), "MTD_MSIL2A.xml")
    assert (facts.level, facts.baseline) == ("l2a", "02.05")
    assert set(facts.scales.values()) == {1e-4}
    assert set(facts.offsets.values()) == {0.0}


@pytest.mark.parametrize("wrap", [lambda p: p, zipped, lambda p: next(p.glob("*.xml"))])
def test_products_in_the_format_before_december_2016(l1c_product, wrap):
    (granule,) = (l1c_product / "GRANULE").iterdir()
    sun = "<x><Mean_Sun_Angle><ZENITH_ANGLE unit='deg'>74.5</ZENITH_ANGLE></Mean_Sun_Angle></x>"
    (granule / "S2A_OPER_MTD_L1C_TL_SGS__20160105T120000_A000001_T33UVP.xml").write_text(sun)
    name = "S2A_OPER_MTD_SAFL1C_PDMC_20160105T120000_R022_V20160105T101411.xml"
    (l1c_product / "MTD_MSIL1C.xml").unlink()
    (l1c_product / name).write_text(metadata_xml("l1c", "02.01", offset=None))
    scene = open_scene(wrap(l1c_product), RGB_CARD)
    assert (scene.name, scene.encoding.offset) == (l1c_product.stem, (0, 0, 0))
    assert scene.encoding.sun_zenith == 74.5


@pytest.mark.parametrize("wrap", [lambda p: p, zipped])
def test_damaged_metadata_of_a_granule_is_what_the_error_names(l1c_product, wrap):
    (granule,) = (l1c_product / "GRANULE").iterdir()
    (granule / "MTD_TL.xml").write_text("<x><Mean_Sun_Angle><ZEN")
    with pytest.raises(
        SceneError, match=r"MTD_TL\.xml is not readable .*download the product again"
    ) as error:
        open_scene(wrap(l1c_product), RGB_CARD)
    assert "MTD_MSIL1C" not in str(error.value)


@pytest.mark.parametrize("missing", ["MTD_MSIL1C.xml", "GRANULE"])
def test_an_incomplete_product_says_what_was_looked_for(l1c_product, missing):
    path = l1c_product / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(SceneError, match=r"is incomplete: looked for MTD_MSIL1C\.xml .* download the whole"):
        open_scene(l1c_product, RGB_CARD)


def test_one_granule_of_several_is_given_by_its_images(l1c_product):
    (granule,) = (l1c_product / "GRANULE").iterdir()
    shutil.copytree(granule, granule.with_name("L1C_T33UVQ_A1_20230105T101411"))
    with pytest.raises(SceneError, match=r"has 2 granules .* give the folder IMG_DATA of one"):
        open_scene(l1c_product, RGB_CARD)
    assert open_scene(granule / "IMG_DATA", RGB_CARD).encoding.offset == (-1003, -1002, -1001)


def test_a_quantification_of_0_is_refused():
    text = metadata_xml("l2a").replace(">10000<", ">0<")
    with pytest.raises(SceneError, match="not readable Sentinel-2 product metadata"):
        parse_metadata(text.encode(), "MTD_MSIL2A.xml")


def test_zips_that_are_no_product(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(SceneError, match=r"holds no product: looked for MTD_MSIL1C\.xml"):
        open_scene(path, RGB_CARD)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(SceneError, match="damaged zip"):
        open_scene(path, RGB_CARD)


@pytest.fixture(scope="module")
def product(scenes) -> Path:
    return next((scenes / "safe").glob("*.SAFE"))


def test_a_real_product_without_its_10_m_files_says_so(product):
    with pytest.raises(
        SceneError, match=r"10 m file of band B04 is not in the product.*`safe_resolution` 60"
    ):
        open_scene(product, RGB_CARD)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_real_product_at_60_m(product, packed, tmp_path):
    path = product
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / product.stem), "zip", product.parent, product.name))
    scene = open_scene(path, RGB_CARD, SceneOptions(safe_resolution=60))
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
    assert open_scene(
        product, RGB_CARD, SceneOptions(safe_resolution=60)
    ).encoding.sun_zenith == pytest.approx(57.82, abs=0.01)
    bands = open_scene(product, RGB_CARD, SceneOptions(safe_resolution=60))
    image = open_scene(next(product.rglob("*_TCI_60m.jp2")), RGB_CARD)
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
