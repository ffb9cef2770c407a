"""Tiles as scenes show them: the changes against GDAL, Pillow and known numbers; who is told what it lost."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from torch import nn

from pipeline.classify import classify_scene
from pipeline.errors import TrainingError
from pipeline.model.bundle import list_bundles, load_bundle
from pipeline.model.classes import number_classes
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import ClassifyOptions, PredictorOptions, SceneOptions
from pipeline.scenes.atmosphere import atmosphere_step
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import evaluate_with
from pipeline.training.robustness import (
    digital_numbers,
    measure_outliers,
    measure_robustness,
    middle_matrix,
    reflectance_of,
    resample,
    resampling_matrix,
    surface_reflectance,
    toa_reflectance,
)
from tests.support.cards import RGB_CARD

BANDS = ("B04", "B03", "B02")
CARD = replace(RGB_CARD, tile_size=16, classes=number_classes(["Dark", "Sharp"]))
KERNELS = ("bilinear", "cubic")


class Sharpness(nn.Module):
    """Sharp where neighbouring pixels differ by more than 60 on average, else Dark."""

    def forward(self, x):
        difference = (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3))
        return torch.stack([60 - difference, difference - 60], dim=1)


class Brightness(nn.Module):
    """Dark up to a mean of 128, Sharp above: a class that blurring does not touch."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([128 - mean, mean - 128], dim=1)


def on_cpu(network, card=CARD):
    return Predictor(network.eval(), card, PredictorOptions(device="cpu", precision="float32"))


@pytest.fixture(scope="module")
def tiles():
    """Return 20 sharp tiles (noise) and 20 dark ones (flat)."""
    rng = np.random.default_rng(0)
    images = np.full((40, 3, 16, 16), 70, np.uint8)
    images[:20] = rng.integers(1, 256, (20, 1, 16, 16))
    names = [f"Sharp/{i}.jpg" for i in range(20)] + [f"Dark/{i}.jpg" for i in range(20)]
    return TileSet(
        torch.from_numpy(images), torch.tensor([1] * 20 + [0] * 20), ("Dark", "Sharp"), tuple(names)
    )


# --- sharpness


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_shift_and_scale_nothing_changes(kernel):
    np.testing.assert_allclose(resampling_matrix(16, kernel), np.eye(16), atol=1e-7)


@given(
    st.sampled_from(KERNELS), st.integers(4, 64), st.floats(0.7, 1.5), st.floats(-2, 2), st.floats(-100, 300)
)
def test_what_is_flat_stays_flat(kernel, size, scale, shift, value):
    matrix = resampling_matrix(size, kernel, scale=scale, shift=shift)
    flat = np.full((1, 1, size, size), value, np.float32)
    np.testing.assert_allclose(resample(flat, matrix), flat, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.5), (0.8, 0.0), (1.25, 0.0)])
def test_tiles_are_resampled_as_gdal_warps_scenes(kernel, scale, shift):
    """Of the middle 40 pixels: where data ends, GDAL has no more to go on."""
    pixels = np.random.default_rng(1).uniform(0, 255, (64, 64)).astype(np.float32)
    here = Affine(1, 0, 0, 0, -1, 64)
    start = 32 - 20 * scale + shift
    there = Affine(scale, 0, start, 0, -scale, 64 - start)
    warped = np.zeros((40, 40), np.float32)
    reproject(
        pixels,
        warped,
        src_transform=here,
        dst_transform=there,
        src_crs="EPSG:32633",
        dst_crs="EPSG:32633",
        resampling=Resampling[kernel],
    )
    ours = resample(pixels[None, None], resampling_matrix(64, kernel, scale=scale, shift=shift))[0, 0]
    np.testing.assert_allclose(ours[12:-12, 12:-12], warped, atol=0.6)


@pytest.mark.parametrize(("kernel", "filter_"), [("bilinear", Image.BILINEAR), ("cubic", Image.BICUBIC)])
@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_edges_are_reflected(kernel, filter_, scale):
    """Against Pillow, on a tile that was extended by its own reflection."""
    pixels = np.random.default_rng(2).uniform(0, 255, (20, 20)).astype(np.float32)
    wide = Image.fromarray(np.pad(pixels, 20, mode="symmetric"))
    margin = 20 + 10 * (1 - scale)
    theirs = wide.resize((20, 20), filter_, box=(margin, margin, 60 - margin, 60 - margin))
    ours = resample(pixels[None, None], resampling_matrix(20, kernel, scale=scale))[0, 0]
    inner = slice(3, -3)  # Pillow looks at nothing outside the box
    np.testing.assert_allclose(ours[inner, inner], np.asarray(theirs)[inner, inner], atol=1e-2)
    assert not np.allclose(ours[0], ours[1])


def test_half_a_pixel_is_the_mean_of_two():
    row = np.array([0, 10, 40, 90], np.float32)
    matrix = resampling_matrix(4, "bilinear", shift=0.5)
    assert (matrix @ row).tolist() == [5, 25, 65, 90]


@pytest.mark.parametrize(("size", "share"), [(64, 0.8), (64, 1.0), (16, 0.8), (15, 0.6), (32, 0.9)])
def test_the_middle_stays_as_sharp_as_it_is(size, share):
    tile = np.random.default_rng(1).uniform(0, 255, (1, 1, size, size)).astype(np.float32)
    shown = resample(tile, middle_matrix(size, share))
    kept = round(size * share)
    start = (size - kept) // 2
    middle = (..., slice(start, start + kept), slice(start, start + kept))
    assert np.array_equal(shown[middle], tile[middle])
    assert set(shown.ravel()) == set(tile[middle].ravel())  # nothing of what lies around it


# --- radiometry


@pytest.mark.parametrize("depth", [0.05, 0.1, 0.3])
def test_the_levels_undo_each_other(depth):
    toa = np.random.default_rng(3).uniform(0.05, 0.5, (2, 3, 4, 4)).astype(np.float32)
    surface = surface_reflectance(toa, BANDS, depth)
    np.testing.assert_allclose(toa_reflectance(surface, BANDS, depth), toa, atol=1e-6)


def test_the_nominal_air_is_the_pipelines():
    gain, bias = atmosphere_step("l1c", "l2a", BANDS)
    toa = np.full((3, 1, 1), 0.2, np.float32)
    np.testing.assert_allclose(surface_reflectance(toa, BANDS).ravel(), gain * 0.2 + bias, rtol=1e-5)


def test_haze_brightens_dark_ground_and_blue_most():
    dark = np.full((3, 1, 1), 0.02, np.float32)
    brighter = (toa_reflectance(dark, BANDS, 0.3) - toa_reflectance(dark, BANDS, 0.1)).ravel()
    assert 0 < brighter[0] < brighter[1] < brighter[2] < 0.05


def test_digital_numbers_never_say_no_data():
    assert digital_numbers(np.array([-0.1, 0, 0.1234, 9.0])).tolist() == [1, 1, 1234, 32767]
    assert digital_numbers(np.zeros(1)).dtype == np.int16


def test_reflectance_is_the_scaling_undone():
    values = np.array([1.0, 128.0, 255.0], np.float32)
    np.testing.assert_allclose(reflectance_of(values, CARD), [0, 0.1375, 0.275], atol=1e-6)


# --- what is measured


def test_a_network_that_looks_at_sharpness_loses_by_blurring_and_not_by_haze(tiles):
    predictor = on_cpu(Sharpness())
    native = evaluate_with(predictor, tiles)
    assert native.accuracy == 1
    lost = {c.name: c.points_lost for c in measure_robustness(predictor, tiles, native)}
    assert lost["shifted by half a pixel, bilinear"] == 50
    assert lost["a scene of 12 m brought to 10 m, bilinear"] == 50
    assert lost["as L2A, aerosol depth 0.1"] == 0
    assert lost["no more ground than 8 m pixels show"] == 0
    assert len(lost) == 12


def test_a_network_that_does_not_keeps_every_class(tiles):
    predictor = on_cpu(Brightness())
    native = evaluate_with(predictor, tiles)
    for condition in measure_robustness(predictor, tiles, native):
        assert condition.tiles == 40
        assert condition.native_accuracy == native.accuracy
        assert condition.mastered == (condition.points_lost <= 1)
        if "pixel" in condition.name:
            assert condition.same_class > 0.8
    assert condition.to_json()["condition"] == "as L2A, aerosol depth 0.25"


def test_a_model_of_surface_reflectance_is_shown_the_top_of_the_atmosphere(tiles):
    predictor = on_cpu(Brightness(), replace(CARD, level="l2a"))
    names = [c.name for c in measure_robustness(predictor, tiles, evaluate_with(predictor, tiles))]
    assert "as L1C, aerosol depth 0.1" in names


def raw_of(tiles: TileSet, names: tuple[str, ...]) -> TileSet:
    """Return the digital numbers that the named tiles were made from."""
    chosen = torch.tensor([tiles.names.index(name.replace(".tif", ".jpg")) for name in names])
    numbers = digital_numbers(reflectance_of(tiles.images[chosen].numpy().astype(np.float32), CARD))
    return TileSet(torch.from_numpy(numbers), tiles.labels[chosen], tiles.classes, names, BANDS)


def test_raw_tiles_are_compared_with_those_of_their_name(tiles):
    predictor = on_cpu(Sharpness())
    raw = raw_of(tiles, ("Dark/3.tif", "Sharp/7.tif", "Sharp/2.tif"))
    condition = measure_robustness(predictor, tiles, evaluate_with(predictor, tiles), raw)[0]
    assert (condition.name, condition.tiles) == ("raw pixels, never compressed", 3)
    assert condition.same_class == condition.accuracy == 1


def test_pictures_are_no_raw_tiles(tiles):
    predictor = on_cpu(Sharpness())
    with pytest.raises(TrainingError, match="raw tiles hold 8 bits"):
        measure_robustness(predictor, tiles, evaluate_with(predictor, tiles), tiles)


def test_raw_tiles_of_other_names_are_told(tiles):
    predictor = on_cpu(Sharpness())
    raw = replace(raw_of(tiles, ("Dark/3.tif",)), names=("Dark/99.tif",))
    with pytest.raises(TrainingError, match="None of the raw tiles"):
        measure_robustness(predictor, tiles, evaluate_with(predictor, tiles), raw)


# --- what has no class


def test_a_model_that_is_sure_of_clouds_is_found_out(tiles):
    outliers = {outlier.name: outlier for outlier in measure_outliers(on_cpu(Brightness()), tiles)}
    white = outliers["white, every band at its limit"]
    assert white.tiles == 40
    assert white.classes == {"Sharp": 1.0}
    assert white.sure == 1
    assert white.median_confidence > 0.99
    assert outliers["cloud over all of the tile"].classes == {"Sharp": 1.0}


# --- one ground, two product levels


@pytest.mark.parametrize("name", [name for name in list_bundles() if "-rgb-" in name])
def test_the_same_ground_as_l1c_and_as_l2a_gives_the_same_map(name, scenes, tmp_path):
    """The L2A twin is made from the L1C bands, in the air that the pipeline assumes and in a hazy one."""
    bundle = load_bundle(name)
    predictor = Predictor(load_network(bundle), bundle.card, PredictorOptions(device="cpu"))
    l1c = classes_of(scenes, tmp_path / "l1c", predictor, SceneOptions())
    for depth in (0.1, 0.25):
        twin = write_l2a_twin(scenes, tmp_path / f"twin_{depth}.tif", bundle.card.bands, depth)
        l2a = classes_of(twin, tmp_path / "l2a", predictor, SceneOptions(level="l2a"))
        assert (l1c == l2a).mean() >= 0.9, f"aerosol depth {depth}"


def classes_of(path: Path, output: Path, predictor: Predictor, options: SceneOptions) -> np.ndarray:
    result = classify_scene(str(path), output, predictor, ClassifyOptions(scene=options, polygons="none"))
    with rasterio.open(result.files["landcover"]) as raster:
        return raster.read(1)


def write_l2a_twin(scenes: Path, path: Path, bands: tuple[str, ...], aerosol_depth: float) -> Path:
    """Write what an L2A product of the L1C scene would hold, which has none but these bands."""
    numbers = []
    for band in bands:
        with rasterio.open(scenes / f"mol_l1c_20190411_{band}.tif") as source:
            numbers.append(source.read(1))
            profile = source.profile
    stored = np.stack(numbers)
    surface = surface_reflectance(stored.astype(np.float32) / 10_000, bands, aerosol_depth)
    twin = np.where(stored == profile["nodata"], 0, digital_numbers(surface)).astype(np.uint16)
    with rasterio.open(path, "w", **{**profile, "count": len(bands), "nodata": 0}) as raster:
        raster.write(twin)
        raster.descriptions = bands
    return path
