"""Scenes: uploaded or from the served folder, described, and classified as the command does."""

import io
import json
import zipfile

import numpy as np
import rasterio
from PIL import Image

from pipeline.classify import classify_scene
from pipeline.options import ClassifyOptions


def test_a_scene_is_described(browser, scene):
    key = browser.upload(scene)
    described = browser.describe(key)
    assert described["description"]["ground grid"] == "448x448 pixels of 10 m"
    assert [entry["tiles"] for entry in described["strides"]] == [49, 169, 625, 2401]
    assert any("Level-1C" in note["text"] for note in described["notes"])
    picture = browser.http.get(f"/api/scenes/{key}/picture")
    assert Image.open(io.BytesIO(picture.content)).size == (448, 448)


def test_a_scene_gets_the_map_that_classify_writes(browser, scene, light_predictor, tmp_path):
    key = browser.upload(scene)
    browser.describe(key)
    assert browser.classify(key, stride=32, probabilities=True)["state"] == "done"
    described = browser.request("GET", f"/api/map?scene={key}")
    cells = np.frombuffer(browser.http.get(f"/api/cells?scene={key}").content, np.uint8).reshape(2, 14, 14)
    expected = classify_scene(str(scene), tmp_path, light_predictor, ClassifyOptions(stride=32))
    for layer, kind in zip(cells, ("landcover", "confidence"), strict=True):
        with rasterio.open(expected.files[kind]) as dataset:
            np.testing.assert_array_equal(layer, dataset.read(1))
    assert [entry["hectares"] for entry in described["classes"]] == [area.hectares for area in expected.areas]

    answer = browser.http.get(f"/api/outputs.zip?scene={key}")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    endings = {name.removeprefix(scene.stem) for name in archive.namelist()}
    written = {file.name.removeprefix(scene.stem) for file in expected.files.values()}
    assert endings == written | {"_probabilities.tif", "_landcover.png"}
    record = json.loads(archive.read(f"{scene.stem}_run.json"))
    assert record["scene"] == scene.name  # and not its path on the server


def test_single_band_files_are_one_scene(browser, write_raster):
    bands = np.random.default_rng(0).integers(300, 2500, (3, 128, 128)).astype(np.uint16)
    files = [
        write_raster(band[None], f"T33UUP_20230601_{name}.tif", tags={"PRODUCT_LEVEL": "Level-1C"})
        for name, band in zip(("B04", "B03", "B02"), bands, strict=True)
    ]
    assert browser.describe(browser.upload(*files))["description"]["scene"] == "T33UUP_20230601"


def test_what_is_stated_about_the_pixels_is_used(browser, write_raster):
    pixels = np.random.default_rng(0).integers(300, 2500, (4, 128, 128)).astype(np.uint16)
    key = browser.upload(write_raster(pixels, "unnamed.tif"))
    error = browser.describe(key, 422)["error"]
    assert error.startswith("unnamed.tif has 4 bands, none of which is named")  # without the server's folder
    assert "“Bands”" in error
    described = browser.describe(key, bands={"B04": 3, "B03": 2, "B02": 1}, level="l2a", offset=0)
    texts = " ".join(note["text"] for note in described["notes"])
    assert "red=3, green=2, blue=1" in texts
    assert "“Level”" in texts
    assert "`" not in texts


def test_a_scene_of_the_served_folder_is_classified_and_the_folder_left_unchanged(browser, root):
    before = sorted(root.rglob("*"))
    key = browser.add_scene(path="made.tif")
    browser.describe(key)
    assert browser.classify(key)["state"] == "done"
    assert sorted(root.rglob("*")) == before
    browser.request("PUT", f"/api/scenes/{key}/files/made.tif", 409, content=b"II*\0")


def test_a_scene_that_reads_files_outside_of_the_served_folder_is_refused(browser):
    key = browser.add_scene(path="points-out.vrt")
    assert "outside of the served folder" in browser.describe(key, 422)["error"]
