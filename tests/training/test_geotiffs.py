"""GeoTIFF tiles: bands by name, digital numbers, and what is refused."""

import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from pipeline.errors import TrainingError
from pipeline.training.dataset import load_tiles
from pipeline.training.geotiffs import EUROSAT_BANDS
from tests.support.tiles import make_multispectral, make_tiles, write_tile

ROOT = Path(__file__).parents[2]
L2A_BANDS = tuple(band for band in EUROSAT_BANDS if band != "B10")


@pytest.fixture
def multispectral(tmp_path):
    return make_multispectral(tmp_path / "multispectral", 2, size=8)


def numbers(bands: int, size: int = 8, dtype: type = np.uint16) -> np.ndarray:
    """Return a tile whose band b, from 1, holds 100 b."""
    return np.broadcast_to(100 * (1 + np.arange(bands))[:, None, None], (bands, size, size)).astype(dtype)


def band_values(tiles) -> list[int]:
    """Return what each channel of the first tile holds in hundreds."""
    return (tiles.images[0, :, 0, 0] // 100).tolist()


@pytest.fixture(scope="module")
def eurosat(landcover_data, tmp_path_factory):
    """Return EuroSAT's multispectral sample, unpacked with some of the pictures beside it."""
    folder = tmp_path_factory.mktemp("eurosat")
    with zipfile.ZipFile(landcover_data / "eurosat" / "EuroSAT_MS-sample.zip") as archive:
        archive.extractall(folder)
    with zipfile.ZipFile(landcover_data / "eurosat" / "EuroSAT_RGB-val.zip") as archive:
        pairs = [
            n for n in archive.namelist() if (folder / n.replace("RGB", "MS")).with_suffix(".tif").is_file()
        ]
        archive.extractall(folder, pairs)
    return folder


def test_an_unreadable_geotiff_is_named_or_left_out(multispectral):
    path = multispectral / "Field" / "Field_0.tif"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TrainingError, match=r"Field_0\.tif cannot be read as an image"):
        load_tiles(multispectral)
    assert len(load_tiles(multispectral, skip_unreadable=True)) == 5


def test_digital_numbers_come_as_int16_in_eurosats_order(multispectral):
    tiles = load_tiles(multispectral)
    assert tiles.images.shape == (6, 13, 8, 8)
    assert tiles.images.numpy().dtype == np.int16
    assert tiles.bands == EUROSAT_BANDS
    means = tiles.images.double().mean(dim=(0, 2, 3))
    assert np.allclose(means, 1000 * np.arange(13) + 100, atol=15)


def test_bands_without_names_are_chosen_in_eurosats_order(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(13))
    tiles = load_tiles(tmp_path, bands=("B8A", "B04", "B09"))
    assert band_values(tiles) == [13, 4, 9]
    assert tiles.bands == ("B8A", "B04", "B09")


def test_bands_go_by_their_descriptions(tmp_path):
    """As Sentinel-2 products order them, B8A stands after B08; each file may have its own order."""
    write_tile(tmp_path / "Field" / "a.tif", numbers(4), ("B2 (490 nm)", "nir", "B8A", "red"))
    write_tile(tmp_path / "Field" / "b.tif", numbers(4)[::-1], ("red", "B8A", "nir", "B2 (490 nm)"))
    tiles = load_tiles(tmp_path, bands=("B04", "B08", "B02"))
    assert band_values(tiles) == [4, 2, 1]
    assert np.array_equal(tiles.images[0], tiles.images[1])
    assert load_tiles(tmp_path, ["Field/a.tif"]).bands == ("B02", "B08", "B8A", "B04")


def test_a_described_order_beats_eurosats(tmp_path):
    order = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
    write_tile(tmp_path / "Field" / "a.tif", numbers(13), order)
    assert band_values(load_tiles(tmp_path, bands=("B8A", "B09"))) == [9, 10]


def test_as_many_nameless_bands_as_wanted_come_as_they_are(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(12))
    tiles = load_tiles(tmp_path, bands=L2A_BANDS)
    assert band_values(tiles) == list(range(1, 13))
    assert load_tiles(tmp_path).bands is None


@pytest.mark.parametrize(
    ("bands", "descriptions", "message"),
    [
        (4, (), r"a\.tif has 4 bands without names, and 12 are wanted \(B01, .* describe each"),
        (2, ("B02", "B08"), r"a\.tif lacks band B01: its 2 bands are B02, B08"),
        (3, ("B01", "B01", "?"), r"a\.tif has more than one band B01: its 3 bands are B01, B01, unnamed"),
    ],
)
def test_bands_that_cannot_be_identified_are_refused(tmp_path, bands, descriptions, message):
    write_tile(tmp_path / "Field" / "a.tif", numbers(bands), descriptions)
    with pytest.raises(TrainingError, match=message):
        load_tiles(tmp_path, bands=L2A_BANDS)


def test_floating_point_tiles_are_refused(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(13, dtype=np.float32) / 10_000)
    with pytest.raises(TrainingError, match=r"a\.tif holds float32 numbers: .* must hold digital numbers"):
        load_tiles(tmp_path)


def test_8_bit_geotiffs_stay_8_bit_and_go_by_name_too(tmp_path):
    pixels = numbers(3).astype(np.uint8)
    write_tile(tmp_path / "Field" / "a.tif", pixels, ("B08", "B04", "B03"))
    tiles = load_tiles(tmp_path, bands=("B03", "B04"))
    assert tiles.images.numpy().dtype == np.uint8
    assert np.array_equal(tiles.images[0], pixels[[2, 1]])
    with pytest.raises(TrainingError, match=r"a\.tif lacks band B02: its 3 bands are B08, B04, B03"):
        load_tiles(tmp_path, bands=("B04", "B03", "B02"))


def test_numbers_beyond_int16_are_clipped_not_wrapped(tmp_path):
    pixels = numbers(3)
    pixels[0, 1, 1], pixels[1, 0, 1], pixels[2] = 65535, 0, 1200
    write_tile(tmp_path / "Field" / "a.tif", pixels)
    tiles = load_tiles(tmp_path)
    assert tiles.images[0, 0].unique().tolist() == [100, 32767]
    assert tiles.images[0, 1, 0, 1] == 0


def test_tiles_need_no_place_on_the_ground(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(13), place=None)
    assert len(load_tiles(tmp_path)) == 1


def test_pictures_train_without_rasterio_and_geotiffs_say_what_is_missing(tmp_path):
    make_tiles(tmp_path / "pictures", 6)
    make_multispectral(tmp_path / "multispectral", 1, size=8)
    script = f"""
import sys
for name in ("rasterio", "geopandas", "shapely", "pyproj", "pyogrio", "affine"):
    sys.modules[name] = None
from pathlib import Path
from pipeline.errors import TrainingError
from pipeline.training.dataset import load_tiles
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.train import train
recipe = Recipe(
    name="tiny", architecture="resnet18", stages=(Stage(1, 32),), warmup_epochs=0, batch_size=4, ema_decay=0.5
)
train(Path({str(tmp_path / "pictures")!r}), recipe, Path({str(tmp_path / "run")!r}))
try:
    load_tiles(Path({str(tmp_path / "multispectral")!r}))
except TrainingError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "card.json").is_file()
    assert "Field_0.tif is multispectral, and rasterio" in done.stdout
    assert "pip install rasterio" in done.stdout


def test_eurosats_multispectral_tiles_hold_what_its_bands_should(eurosat, caplog):
    caplog.set_level(logging.INFO)
    tiles = load_tiles(eurosat / "EuroSAT_MS")
    assert tiles.images.shape == (295, 13, 64, 64)
    assert len(tiles.classes) == 10
    assert "assuming EuroSAT's order" in caplog.text
    mean = dict(zip(tiles.bands, tiles.images.double().mean(dim=(0, 2, 3)).tolist(), strict=True))
    # Cirrus sees only high clouds, water vapour dims B09 (Helber et al. chose clear scenes); vegetation's
    # red edge rises from B05 to B8A, next to which B08 lies.
    assert mean["B10"] < 30
    assert mean["B09"] < mean["B8A"] / 2
    assert mean["B05"] < mean["B06"] < mean["B07"] < mean["B8A"]
    assert abs(mean["B8A"] / mean["B08"] - 1) < 0.2


def reflect(seed: int, bands: int = 3, size: int = 16) -> np.ndarray:
    """Return reflectance of fields and dark water."""
    random = np.random.default_rng(seed)
    ground = random.choice([0.015, 0.06, 0.12], (1, size, size))
    return ground * random.normal(1, 0.1, (bands, size, size)).clip(0.7, 1.3)


def write_set(folder: Path, store, scale: float = 1, offset: float = 0, nodata: float | None = None) -> Path:
    for i in range(6):
        path = write_tile(folder / "Field" / f"{i}.tif", store(reflect(i)), ("B04", "B03", "B02"))
        with rasterio.open(path, "r+") as raster:
            raster.scales, raster.offsets = (scale,) * 3, (offset,) * 3
            if nodata is not None:
                raster.nodata = nodata
    return folder


def dn(reflectance: np.ndarray) -> np.ndarray:
    return (reflectance * 10_000).round().astype(np.uint16)


@pytest.mark.parametrize(
    ("store", "scale", "offset", "said"),
    [
        (dn, 1, 0, None),
        (dn, 1e-4, 0, None),
        (dn, 1e-4, -0.1, "was removed already"),
        (lambda r: dn(r) + 1000, 1, 0, "-1000 was applied; state `offset` 0"),
        (lambda r: dn(r) + 1000, 1e-4, -0.1, None),
        (lambda r: dn(r) + 1000, 1, -1000, None),
        (lambda r: dn(r).astype(np.int16) - 1000, 1, 0, "removed twice"),
        (lambda r: (r / 2e-5).round().astype(np.uint16), 2e-5, 0, None),
        (lambda r: ((r + 0.2) / 2.75e-5).round().astype(np.uint16), 2.75e-5, -0.2, None),
    ],
)
def test_however_a_set_stores_reflectance_its_digital_numbers_are_the_same(
    tmp_path, caplog, store, scale, offset, said
):
    expected = np.stack([dn(reflect(i)) for i in range(6)])
    tiles = load_tiles(write_set(tmp_path, store, scale, offset), bands=("B04", "B03", "B02"))
    assert np.abs(tiles.images.numpy() - expected.astype(int)).max() <= 1
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_a_stated_offset_beats_what_is_found(tmp_path, caplog):
    folder = write_set(tmp_path, lambda r: dn(r) + 1000)
    assert load_tiles(folder, offset=-1000).images.min() < 200
    assert load_tiles(folder, offset=0).images.min() > 1000
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_part_of_a_set_is_read_as_the_whole_is(tmp_path):
    """Bright tiles alone would not show the offset."""
    folder = write_set(tmp_path, lambda r: dn(r) + 1000)
    bright = write_tile(folder / "Field" / "bright.tif", dn(reflect(7) + 0.5) + 1000, ("B04", "B03", "B02"))
    whole = load_tiles(folder)
    alone = load_tiles(folder, [f"Field/{bright.name}"], like=whole)
    assert np.array_equal(alone.images[0], whole.images[whole.names.index("Field/bright.tif")])


def test_8_bit_numbers_in_more_bits_are_refused_and_the_remedy_works(tmp_path):
    folder = write_set(tmp_path, lambda r: (r * 1500).astype(np.uint16))
    with pytest.raises(TrainingError, match=r"uint16 numbers up to .* too small .* gdal_translate -ot Byte"):
        load_tiles(folder)
    write_set(tmp_path, lambda r: (r * 1500).astype(np.uint8))
    assert load_tiles(folder).images.numpy().dtype == np.uint8


def test_missing_pixels_become_the_mean_of_the_others(tmp_path):
    def with_collar(reflectance):
        pixels = dn(reflectance)
        pixels[:, :, :4] = 65535
        return pixels

    for nodata in (65535, None):
        folder = tmp_path / str(nodata)
        collar = with_collar if nodata else (lambda r: with_collar(r) * (with_collar(r) != 65535))
        tiles = load_tiles(write_set(folder, collar, nodata=nodata)).images.numpy()
        mean = dn(reflect(0))[0, :, 4:].mean()
        assert np.abs(tiles[0, 0, :, :4] - mean).max() <= 1
        assert np.array_equal(tiles[0, :, :, 4:], dn(reflect(0))[:, :, 4:])


def test_a_tile_without_a_valid_pixel_is_named_or_left_out(tmp_path):
    folder = write_set(tmp_path, dn)
    write_tile(folder / "Field" / "empty.tif", np.zeros((3, 16, 16), np.uint16), ("B04", "B03", "B02"))
    with pytest.raises(TrainingError, match=r"empty\.tif has no valid pixel.*`skip_unreadable`"):
        load_tiles(folder)
    assert len(load_tiles(folder, skip_unreadable=True)) == 6


def test_an_alpha_band_is_no_channel_and_marks_what_is_missing(tmp_path):
    pixels = np.concatenate([dn(reflect(0)), np.full((1, 16, 16), 65535, np.uint16)])
    pixels[:, :, :4] = 0
    path = write_tile(tmp_path / "Field" / "a.tif", pixels)
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = (*raster.colorinterp[:3], ColorInterp.alpha)
    tiles = load_tiles(tmp_path, bands=("B04", "B03", "B02")).images.numpy()
    assert tiles.shape == (1, 3, 16, 16)
    assert tiles.min() > 0


def test_tiles_with_different_tags_are_refused(tmp_path):
    folder = write_set(tmp_path, dn)
    with rasterio.open(folder / "Field" / "3.tif", "r+") as raster:
        raster.scales = (0.5,) * 3
    with pytest.raises(TrainingError, match=r"3\.tif has other scale and offset tags \(0\.5 and 0"):
        load_tiles(folder)


def test_eurosats_tiles_with_an_offset_are_the_same_as_without(eurosat, tmp_path, caplog):
    names = [path.relative_to(eurosat / "EuroSAT_MS") for path in (eurosat / "EuroSAT_MS").glob("*/*_1*.tif")]
    for name in names:
        with rasterio.open(eurosat / "EuroSAT_MS" / name) as raster:
            write_tile(tmp_path / name, raster.read() + np.uint16(1000))
    bands = ("B04", "B03", "B02")
    shifted = load_tiles(tmp_path, bands=bands)
    assert "-1000 was applied" in caplog.text
    plain = load_tiles(eurosat / "EuroSAT_MS", shifted.names, bands=bands)
    assert np.array_equal(shifted.images, plain.images)
