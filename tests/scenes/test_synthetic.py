import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.errors import UsageError
from pipeline.scenes.synthetic import BANDS, Cover, SyntheticScene, make_scene, write_scene

TILE = 64

# EuroSAT's tiles: the 5th and 95th percentile of a tile's mean (B02, B03, B04: a third of the RGB set; B08:
# the multispectral sample) and of the standard deviation within it (B02, B03, B04), in reflectance x 10000.
EUROSAT_MEAN = {
    Cover.ANNUAL_CROP: ((933, 912, 696, 2235), (1643, 1780, 2225, 3832)),
    Cover.FOREST: ((698, 577, 326, 1676), (924, 865, 538, 3692)),
    Cover.HERBACEOUS_VEGETATION: ((840, 730, 567, 1956), (1509, 1529, 1728, 3184)),
    Cover.HIGHWAY: ((857, 737, 499, 1811), (1531, 1603, 1877, 3170)),
    Cover.INDUSTRIAL: ((1174, 1047, 943, 1653), (1856, 1877, 2058, 2683)),
    Cover.PASTURE: ((831, 816, 466, 2295), (1441, 1177, 917, 4021)),
    Cover.PERMANENT_CROP: ((947, 892, 716, 2246), (1652, 1753, 2024, 3288)),
    Cover.RESIDENTIAL: ((990, 881, 718, 1464), (1619, 1647, 1869, 2697)),
    Cover.RIVER: ((838, 704, 435, 1121), (1306, 1190, 1076, 2814)),
    Cover.SEA_LAKE: ((720, 441, 239, 124), (1323, 1332, 1010, 613)),
}
EUROSAT_CONTRAST = {
    Cover.ANNUAL_CROP: ((64, 91, 150), (323, 393, 716)),
    Cover.FOREST: ((19, 25, 22), (51, 81, 90)),
    Cover.HERBACEOUS_VEGETATION: ((42, 51, 85), (295, 357, 446)),
    Cover.HIGHWAY: ((88, 106, 150), (343, 374, 513)),
    Cover.INDUSTRIAL: ((254, 279, 344), (586, 631, 709)),
    Cover.PASTURE: ((37, 50, 69), (124, 149, 269)),
    Cover.PERMANENT_CROP: ((86, 108, 163), (290, 368, 521)),
    Cover.RESIDENTIAL: ((115, 116, 161), (305, 333, 422)),
    Cover.RIVER: ((60, 98, 101), (282, 342, 507)),
    Cover.SEA_LAKE: ((9, 8, 8), (77, 111, 124)),
}


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene()


@pytest.fixture(scope="module")
def pure_tiles(scene: SyntheticScene) -> dict[Cover, np.ndarray]:
    """Return, for each cover, the tiles (n, B, 64, 64) of which it fills at least nine tenths."""
    bands, height, width = scene.pixels.shape
    rows, cols = height // TILE, width // TILE
    tiles = scene.pixels.reshape(bands, rows, TILE, cols, TILE).transpose(1, 3, 0, 2, 4)
    truth = scene.truth.reshape(rows, TILE, cols, TILE).transpose(0, 2, 1, 3)
    return {cover: tiles[(truth == cover).mean((2, 3)) >= 0.9] for cover in Cover}


def test_scene_is_dn_and_classes(scene):
    assert scene.pixels.shape == (4, 1600, 1600)
    assert scene.pixels.dtype == np.uint16
    assert scene.pixels.min() > 0  # 0 is no data
    assert scene.truth.shape == (1600, 1600)
    assert scene.truth.dtype == np.uint8
    assert set(np.unique(scene.truth)) == set(Cover)


def test_ids_are_the_models():
    from pipeline.model.classes import EUROSAT_COLORS, number_classes

    ids = {c.name.lower(): c.id for c in number_classes(sorted(EUROSAT_COLORS))}
    assert ids == {cover.name.replace("_", "").lower(): cover.value for cover in Cover}


def test_same_seed_same_scene():
    first, again, other = make_scene(320), make_scene(320), make_scene(320, seed=8)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.truth, again.truth)
    assert (first.pixels != other.pixels).any()


@pytest.mark.parametrize("size", [16, 100, 333])
def test_any_size(size):
    assert make_scene(size).pixels.shape == (4, size, size)


def test_bands_in_the_order_asked_for():
    scene = make_scene(128)
    red_green_blue = make_scene(128, bands=("B04", "B03", "B02"))
    np.testing.assert_array_equal(red_green_blue.pixels, scene.pixels[[2, 1, 0]])
    with pytest.raises(UsageError, match="B11"):
        make_scene(128, bands=("B04", "B11"))


def test_drawn_in_seconds():
    start = time.process_time()
    make_scene()
    assert time.process_time() - start < 30  # 3 s on a machine of today; CI's are slow and shared


@pytest.mark.parametrize("cover", Cover)
def test_looks_like_eurosat(pure_tiles, cover):
    tiles = pure_tiles[cover]
    assert len(tiles) >= 8
    mean = np.median(tiles.mean((2, 3)), axis=0)
    contrast = np.median(tiles.std((2, 3)), axis=0)[:3]
    for measured, (low, high) in ((mean, EUROSAT_MEAN[cover]), (contrast, EUROSAT_CONTRAST[cover])):
        assert (np.array(low) <= measured).all(), measured
        assert (measured <= np.array(high)).all(), measured


def test_written_scene_says_what_it_is(tmp_path):
    path = write_scene(tmp_path / "scene.tif", size=320, seed=3, epsg=32631, origin=(500_000.0, 4_000_000.0))
    with rasterio.open(path) as dataset:
        assert dataset.crs.to_epsg() == 32631
        assert dataset.transform == rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
        assert dataset.dtypes == ("uint16",) * 4
        assert dataset.descriptions == BANDS
        assert dataset.nodata == 0
        assert dataset.block_shapes[0] == (256, 256)
        assert dataset.compression.name == "deflate"
        assert dataset.tags()["PRODUCT_LEVEL"] == dataset.tags()["PROCESSING_LEVEL"] == "Level-1C"
        np.testing.assert_array_equal(dataset.read(), make_scene(320, 3).pixels)


def test_module_writes_the_demo_scene(tmp_path):
    path = tmp_path / "demo.tif"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "pipeline.scenes.synthetic", str(path)], cwd=root, check=True)
    with rasterio.open(path) as dataset:
        assert dataset.shape == (1600, 1600)


def test_shipped_model_finds_what_was_drawn(pure_tiles):
    import torch

    from pipeline.model.bundle import load_bundle
    from pipeline.model.weights import load_network, standardisation

    bundle = load_bundle("eurosat-rgb-resnet50")
    network = load_network(bundle)
    mean, std = standardisation(bundle.card)
    channels = [BANDS.index(band) for band in bundle.card.bands]
    found = {}
    for cover, tiles in pure_tiles.items():
        reflectance = torch.from_numpy(tiles[:30, channels].astype(np.float32)) / 10000
        (dark, bright), (low, high) = bundle.card.scaling.reflectance, bundle.card.scaling.values
        values = low + (high - low) * (reflectance.clamp(dark, bright) - dark) / (bright - dark)
        with torch.inference_mode():
            classes = network((values - mean) / std).argmax(dim=1) + 1
        found[cover.name] = (classes == cover).float().mean().item()
    assert np.mean(list(found.values())) >= 0.6, found
    assert sum(share >= 0.7 for share in found.values()) >= 8, found
