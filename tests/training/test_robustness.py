"""Robustness: what a model loses on tiles as scenes show them, and what it says about clouds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from pipeline.classify import classify_scene
from pipeline.errors import TrainingError
from pipeline.model.bundle import list_bundles, load_bundle
from pipeline.model.classes import number_classes
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import ClassifyOptions, PredictorOptions, SceneOptions
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import evaluate_with
from pipeline.training.levels import digital_numbers, reflectance_of, surface_reflectance
from pipeline.training.robustness import measure_outliers, measure_robustness
from tests.support.cards import RGB_CARD

BANDS = ("B04", "B03", "B02")
CARD = replace(RGB_CARD, tile_size=16, classes=number_classes(["Dark", "Sharp"]))


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


def raw_of(tiles: TileSet, names: tuple[str, ...]) -> TileSet:
    """Return the digital numbers that the named tiles were made from."""
    chosen = torch.tensor([tiles.names.index(name.replace(".tif", ".jpg")) for name in names])
    numbers = digital_numbers(reflectance_of(tiles.images[chosen].numpy().astype(np.float32), CARD))
    return TileSet(torch.from_numpy(numbers), tiles.labels[chosen], tiles.classes, names, BANDS)


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


def test_raw_tiles_are_compared_with_those_of_their_name(tiles):
    predictor = on_cpu(Sharpness())
    raw = raw_of(tiles, ("Dark/3.tif", "Sharp/7.tif", "Sharp/2.tif"))
    condition = measure_robustness(predictor, tiles, evaluate_with(predictor, tiles), raw)[0]
    assert (condition.name, condition.tiles) == ("raw pixels, never compressed", 3)
    assert condition.same_class == condition.accuracy == 1


def test_pictures_are_refused_as_raw_tiles(tiles):
    predictor = on_cpu(Sharpness())
    with pytest.raises(TrainingError, match="raw tiles hold 8 bits"):
        measure_robustness(predictor, tiles, evaluate_with(predictor, tiles), tiles)


def test_raw_tiles_of_other_names_are_reported(tiles):
    predictor = on_cpu(Sharpness())
    raw = replace(raw_of(tiles, ("Dark/3.tif",)), names=("Dark/99.tif",))
    with pytest.raises(TrainingError, match="None of the raw tiles"):
        measure_robustness(predictor, tiles, evaluate_with(predictor, tiles), raw)


def test_a_model_that_is_sure_of_clouds_is_found_out(tiles):
    outliers = {outlier.name: outlier for outlier in measure_outliers(on_cpu(Brightness()), tiles)}
    white = outliers["white, every band at its limit"]
    assert white.tiles == 40
    assert white.classes == {"Sharp": 1.0}
    assert white.sure == 1
    assert white.median_confidence > 0.99
    assert outliers["cloud over all of the tile"].classes == {"Sharp": 1.0}


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
