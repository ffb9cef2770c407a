"""`landcover classify`: maps, exit statuses, one clear sentence for each mistake."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform as transform_points

import cli
from tests.support.command import LIGHT, fails, landcover


def test_classify_writes_a_map_and_prints_where(scene, tmp_path):
    result = landcover("classify", scene, "-o", tmp_path / "maps", *LIGHT)
    assert result.exit_code == 0
    assert f"map: {tmp_path / 'maps' / 'scene_landcover.tif'}" in result.output
    assert re.search(r"[A-Z]\w+ +[\d.,]+ ha +[\d.]+ %", result.output)
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {
        "scene_landcover.tif",
        "scene_landcover.tif.aux.xml",
        "scene_confidence.tif",
        "scene_landcover.geojson",
        "scene_landcover.qml",
        "scene_areas.csv",
        "scene_run.json",
    }


def test_one_bad_scene_does_not_stop_the_others(scene, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"not a raster")
    result = landcover("classify", bad, scene, "-o", tmp_path / "maps", *LIGHT)
    assert result.exit_code == 1
    assert (tmp_path / "maps" / "scene_run.json").is_file()
    assert "1 of 2 scenes failed" in result.stderr
    assert "bad.tif" in result.stderr


def test_a_real_process_runs_and_keeps_stdout_free_of_progress(scene, tmp_path):
    command = [sys.executable, "-m", "cli", "classify", str(scene), "-o", str(tmp_path / "maps"), *LIGHT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(cli.__file__).parent)
    assert done.stderr == ""
    assert "map:" in done.stdout


def test_no_such_scene(tmp_path):
    assert "absent.tif" in fails(1, "classify", tmp_path / "absent.tif", "-o", tmp_path / "maps", *LIGHT)


def test_unknown_model_names_those_that_ship(scene, tmp_path):
    message = fails(2, "classify", scene, "-o", tmp_path / "maps", "--model", "resnet9000")
    assert "eurosat-rgb-mobilenetv2" in message


def test_a_card_that_does_not_fit_its_weights(scene, tmp_path, light):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((light.path / "model.safetensors").read_bytes())
    card = json.loads((light.path / "card.json").read_text())
    card["mlm:architecture"] = "resnet50"
    (folder / "card.json").write_text(json.dumps(card))
    assert "does not fit" in fails(2, "classify", scene, "-o", tmp_path / "maps", "--model", folder)


def test_cuda_is_asked_for_but_absent(scene, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert "CUDA" in fails(2, "classify", scene, "-o", tmp_path / "maps", *LIGHT, "--device", "cuda")


@pytest.mark.parametrize("stride", [7, 65, "x"])
def test_stride_out_of_range(scene, tmp_path, stride):
    assert "stride" in fails(2, "classify", scene, "-o", tmp_path / "maps", *LIGHT, "--stride", stride)


@pytest.mark.parametrize("bands", ["red", "red=²", "red=0", "red=1,red=2", "1,2,3"])
def test_bands_that_make_no_sense(scene, tmp_path, bands):
    assert "bands" in fails(2, "classify", scene, "-o", tmp_path / "maps", *LIGHT, "--bands", bands)


def test_a_band_that_the_file_lacks(scene, tmp_path):
    message = fails(2, "classify", scene, "-o", tmp_path / "maps", *LIGHT, "--bands", "red=9,green=2,blue=3")
    assert "red=9" in message


def test_scene_without_the_bands_of_the_model(write_raster, tmp_path):
    two = write_raster(np.ones((2, 64, 64), np.uint16), transform=from_origin(0, 0, 10, 10))
    assert "needs 3: B04, B03, B02" in fails(1, "classify", two, "-o", tmp_path / "maps", *LIGHT)


def test_wrong_use_for_one_scene_does_not_stop_the_others(scene, write_raster, tmp_path):
    four = write_raster(np.full((4, 64, 64), 900, np.uint16), "four.tif")
    bands = ["--bands", "red=4,green=2,blue=3"]
    result = landcover("classify", scene, four, "-o", tmp_path / "maps", *LIGHT, *bands)
    assert result.exit_code == 1
    assert (tmp_path / "maps" / "four_run.json").is_file()


def test_two_scenes_of_one_name_do_not_overwrite_each_other(scene, write_raster, tmp_path):
    other = write_raster(np.full((3, 64, 64), 90, np.uint8), "elsewhere/SCENE.tif")
    result = landcover("classify", scene, other, "-o", tmp_path / "maps", *LIGHT, "--overwrite")
    assert result.exit_code == 1
    assert "another scene named SCENE" in result.stderr
    with rasterio.open(tmp_path / "maps" / "scene_landcover.tif") as land_cover:
        assert land_cover.shape == (2, 3)


def test_several_scenes_share_one_loaded_model(scene, write_raster, tmp_path, monkeypatch):
    from pipeline.commands import classify as command

    loads = []
    load = command.load_network
    monkeypatch.setattr(command, "load_network", lambda bundle: loads.append(bundle) or load(bundle))
    other = write_raster(np.full((3, 64, 64), 90, np.uint8), "other.tif")
    assert landcover("classify", scene, other, "-o", tmp_path / "maps", *LIGHT).exit_code == 0
    assert len(loads) == 1


def test_a_file_where_the_output_folder_should_be(scene, tmp_path):
    (tmp_path / "maps").write_text("")
    assert "maps" in fails(1, "classify", scene, "-o", tmp_path / "maps" / "below", *LIGHT)


def test_a_full_disk_fails_with_one_sentence(scene, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        message = fails(1, "classify", scene, "-o", small, *LIGHT)
        assert "no space left" in message
        assert not [p for p in small.iterdir() if p.name.startswith(".") or p.name.endswith("_run.json")]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_pixel_space_must_be_asked_for(write_raster, tmp_path):
    pixels = np.full((3, 128, 128), 1000, np.uint16)
    scene = write_raster(pixels, crs=None, transform=None, descriptions=("B04", "B03", "B02"))
    assert "--assume-gsd" in fails(1, "classify", scene, "-o", tmp_path / "maps", *LIGHT)
    result = landcover("classify", scene, "-o", tmp_path / "maps", *LIGHT, "--assume-gsd", 10)
    assert result.exit_code == 0
    with rasterio.open(tmp_path / "maps" / "scene_landcover.tif") as raster:
        assert raster.crs is None
        assert raster.shape == (2, 2)


def test_debug_shows_the_traceback_and_changes_nothing_else(scene, tmp_path):
    absent = tmp_path / "absent.tif"
    result = landcover("classify", absent, scene, "-o", tmp_path / "maps", *LIGHT, "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert (tmp_path / "maps" / "scene_run.json").is_file()


def test_the_demo_shows_several_classes_with_the_default_model(tmp_path):
    from pipeline.scenes.synthetic import write_scene

    write_scene(tmp_path / "demo.tif", size=1024)
    result = landcover("classify", tmp_path / "demo.tif", "-o", tmp_path / "maps", "--preview")
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"^  [A-Z]\w+ +[\d.,]+ ha +[\d.]+ %$", result.output, re.MULTILINE)) >= 5
    assert (tmp_path / "maps" / "demo_landcover.png").is_file()


MAPPED = {"scenes", "RGBA.uint16.tif", "all-nodata.tif"}
REFUSED = {
    "boadella_l2a_20200118_cloud.tif": "--bands",
    "boadella_l2a_20210721.tif": "--bands",
    "innviertel_l2a_2dates.tif": "--bands",
    "mol_l1c_20190411_B02.tif": "give the folder",
    "mol_l1c_20190411_B03.tif": "give the folder",
    "mol_l1c_20190411_B04.tif": "give the folder",
    "mol_l1c_20190411_B08.tif": "give the folder",
    "RGB.byte.tif": "too coarse",
    "RGBA.byte.tif": "too coarse",
    "cog_cmap.tif": "colour table",
    "cog_dateline.tif": "single band",
    "cog_gcps_ovr.tif": "single band",
    "cog_mask_nodata.tif": "too coarse",
    "cog_nodata_nan.tif": "single band",
    "cog_uint8_rgba.tif": "too coarse",
    "corrupt.tif": "damaged",
    "float32.tif": "single band",
    "rotated.tif": "single band",
    "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.SAFE": "--safe-resolution 60",
}


def test_every_shared_scene_gives_a_map_or_one_clear_sentence(scenes, tmp_path):
    """What users really send: nothing ends in a traceback, a hang, or half a file."""
    inputs = [
        scenes,
        *scenes.glob("*.tif"),
        *(scenes / "awkward").glob("*.tif"),
        *(scenes / "safe").iterdir(),
    ]
    assert {path.name for path in inputs} == MAPPED | REFUSED.keys()
    for path in inputs:
        output = tmp_path / path.stem
        if path.name in MAPPED:
            assert landcover("classify", path, "-o", output, *LIGHT).exit_code == 0, path.name
            (run,) = output.glob("*_run.json")
            assert json.loads(run.read_text())["cells"]["rows"] > 0
        else:
            message = fails(1, "classify", path, "-o", output, *LIGHT)
            assert REFUSED[path.name] in message
            assert not list(output.glob("*"))


WATER, FOREST, RESIDENTIAL = (9, 10), (2,), (8,)


@pytest.mark.parametrize(
    ("name", "bands", "places"),
    [
        (
            "innviertel_l2a_2dates",
            "red=1,green=2,blue=3",
            {"the Inn": (272, 310, WATER), "woods": (65, 87, FOREST), "village": (312, 103, RESIDENTIAL)},
        ),
        ("boadella_l2a_20210721", "red=4,green=3,blue=2", {"reservoir": (273, 161, WATER)}),
        ("boadella_l2a_20200118_cloud", "red=4,green=3,blue=2", {}),
    ],
)
def test_the_shipped_model_finds_what_the_eye_sees(scenes, tmp_path, name, bands, places):
    """Places, as (column, row, classes that are right), were looked up in the scenes by eye."""
    scene = scenes / f"{name}.tif"
    result = landcover("classify", scene, "-o", tmp_path, "--stride", 16, "--bands", bands)
    assert result.exit_code == 0, result.output
    with rasterio.open(scene) as source, rasterio.open(tmp_path / f"{name}_landcover.tif") as land_cover:
        class_id = land_cover.read(1)
        for place, (column, row, right) in places.items():
            x, y = source.xy(row, column)
            (x,), (y,) = transform_points(source.crs, land_cover.crs, [x], [y])
            assert class_id[land_cover.index(x, y)] in right, place


@pytest.mark.slow
def test_a_safe_product_is_mapped_without_its_clouds(scenes, tmp_path):
    safe = next((scenes / "safe").iterdir())
    assert "--safe-resolution 60" in fails(1, "classify", safe, "-o", tmp_path, *LIGHT)
    result = landcover("classify", safe, "-o", tmp_path, *LIGHT, "--safe-resolution", 60)
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / f"{safe.stem}_landcover.tif") as raster:
        assert raster.crs.to_epsg() == 32629
        assert raster.shape == (172, 172)
        assert 0 < (raster.read(1) == 0).mean() < 1
