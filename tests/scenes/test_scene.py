"""Scenes: opened whatever they are called, read in windows, handed to threads and processes."""

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

from pipeline.errors import LandcoverError, SceneError
from pipeline.options import SceneOptions
from pipeline.scenes.scene import open_scene
from tests.support.cards import RGB_CARD
from tests.support.scenes import (
    NAMES,
    RGB_BY_POSITION,
    TEN,
    TWELVE,
    bands_read,
    note_texts,
    numbered_bands,
    read_all,
    reflectances,
)


def test_windows_are_what_they_say(write_raster):
    pixels = reflectances()
    scene = open_scene(write_raster(pixels, "a_l1c.tif", descriptions=NAMES), RGB_CARD)
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
    scene = pickle.loads(pickle.dumps(open_scene(path, RGB_CARD)))
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


def test_a_fingerprint_changes_with_the_files_and_not_with_their_folder(write_raster, tmp_path):
    path = write_raster(reflectances(), "a/x_l1c.tif", descriptions=NAMES)
    before = open_scene(path, RGB_CARD).fingerprint()
    stat = path.stat()
    assert before == {
        "files": [{"name": "x_l1c.tif", "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}]
    }
    moved = (tmp_path / "a").rename(tmp_path / "b") / "x_l1c.tif"
    assert open_scene(moved, RGB_CARD).fingerprint() == before
    os.utime(moved, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert open_scene(moved, RGB_CARD).fingerprint() != before


def test_what_a_viewer_writes_beside_a_file_is_not_one_of_the_scenes_files(write_raster, tmp_path):
    """The files tell whether a scene has changed: opening it in a viewer has not changed it."""
    path = write_raster(reflectances(512, 512), "a_l1c.tif", descriptions=NAMES)
    mosaic = tmp_path / "mosaic.vrt"
    mask = write_raster(np.zeros((1, 512, 512), np.uint8), "mask.tif", transform=None, crs=None)
    (tmp_path / "mask.tfw").write_text("10\n0\n0\n-10\n399965\n5300035\n")
    with rasterio.open(path) as raster:
        rasterio.shutil.copy(raster, mosaic, driver="VRT")
    options = SceneOptions(level="l1c", mask=mask)
    before = open_scene(mosaic, RGB_CARD, options).files
    assert {file.name for file in before} == {"mosaic.vrt", "a_l1c.tif", "mask.tif", "mask.tfw"}
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4])
    with rasterio.open(path) as raster:
        raster.statistics(1)
    left_behind = {file.name for file in tmp_path.iterdir()} - {file.name for file in before}
    assert left_behind == {"a_l1c.tif.ovr", "a_l1c.tif.aux.xml"}
    assert open_scene(mosaic, RGB_CARD, options).files == before
    with rasterio.open(path) as raster:  # GDAL itself does count them
        assert {"a_l1c.tif.ovr", "a_l1c.tif.aux.xml"} <= {Path(file).name for file in raster.files}
    assert set(open_scene(path, RGB_CARD, options).files) == set(before) - {mosaic}


@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
@pytest.mark.parametrize("name", ["with space & ümläut.tif", "what?.tif", "a,b=c.tif"])
def test_odd_file_names_are_read_like_others(write_raster, monkeypatch, name, transform, nodata):
    names = ("B08", "B04", "B03", "B02", "B11")
    path = write_raster(numbered_bands(5), name, transform=transform, descriptions=names, nodata=nodata)
    monkeypatch.chdir(path.parent)
    for given in (path, path.name):
        scene = open_scene(given, RGB_CARD, SceneOptions(level="l1c"))
        assert scene.name == path.stem
        assert bands_read(scene) == [[600], [900], [1200]]


@pytest.mark.parametrize("transform", [TEN, TWELVE], ids=["as-it-is", "warped"])
def test_the_signature_of_an_address_is_used_and_not_shown(write_raster, transform):
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
    scene = open_scene(addresses[0], RGB_CARD, SceneOptions(mask=addresses[1]))
    assert (scene.name, scene.encoding.level) == ("far_l1c", "l1c")
    assert "by the mask Clouds.tif." in note_texts(scene, "info")
    assert bands_read(scene) == [[600], [900], [1200]]
    assert not read_all(scene)[1][-1].any()
    assert scene.files == ()
    assert scene.fingerprint() == {"path": addresses[0].removesuffix(query)}


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
        open_scene(huge, RGB_CARD, SceneOptions(assume_gsd=10))


def test_every_real_file_opens_or_says_why_it_does_not(scenes):
    paths = [p for p in scenes.rglob("*") if p.is_file() and p.suffix not in (".xsd", ".safe")]
    assert len(paths) > 30
    said = []
    for path in [*paths, *(p for p in scenes.rglob("*") if p.is_dir())]:
        for options in (SceneOptions(), SceneOptions(bands=RGB_BY_POSITION, assume_gsd=10)):
            try:
                scene = open_scene(path, RGB_CARD, options)
                with scene.open() as reader:
                    pixels, valid = reader.read(0, 0, min(64, scene.height), min(64, scene.width))
                assert pixels.shape[1:] == valid.shape
            except LandcoverError as error:
                said.append(str(error))
    assert all(text.endswith(".") and "\n" not in text for text in said)


def test_innviertel(scenes):
    path = scenes / "innviertel_l2a_2dates.tif"
    with pytest.raises(SceneError, match="`bands` red=N,green=N,blue=N"):
        open_scene(path, RGB_CARD)
    scene = open_scene(path, RGB_CARD, SceneOptions(bands=RGB_BY_POSITION))
    assert (scene.encoding.level, scene.encoding.offset, scene.resampling) == ("l2a", (0,) * 3, None)
    assert scene.transform == from_origin(359_130, 5_352_340, 10, 10)
    assert not note_texts(scene, "warning")
