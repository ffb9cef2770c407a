"""Labelled tiles: where they are found, how pictures and GeoTIFFs are read, and what is refused."""

import logging
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from pipeline.errors import TrainingError
from pipeline.training.dataset import load_tiles
from pipeline.training.folders import find_tiles, tile_folder
from pipeline.training.geotiffs import EUROSAT_BANDS
from tests.support.tiles import COLORS, make_multispectral, make_tiles, write_tile

ROOT = Path(__file__).parents[2]
L2A_BANDS = tuple(band for band in EUROSAT_BANDS if band != "B10")


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles")


@pytest.fixture
def multispectral(tmp_path):
    return make_multispectral(tmp_path / "multispectral", 2, size=8)


def class_counts(names) -> Counter:
    return Counter(name.split("/")[0] for name in names)


def numbers(bands: int, size: int = 8, dtype: type = np.uint16) -> np.ndarray:
    """Return a tile whose band b, from 1, holds 100 b."""
    return np.broadcast_to(100 * (1 + np.arange(bands))[:, None, None], (bands, size, size)).astype(dtype)


def band_values(tiles) -> list[int]:
    """Return what each channel of the first tile holds in hundreds."""
    return (tiles.images[0, :, 0, 0] // 100).tolist()


# Finding


def test_tiles_are_found_by_class_in_order(folder):
    (folder / ".cache").mkdir()
    (folder / "__MACOSX").mkdir()
    (folder / "Field" / "notes.txt").write_text("no image")
    (folder / "Field" / "._Field_0.png").write_bytes(b"what macOS leaves")
    names = find_tiles(folder)
    assert names == sorted(names)
    assert class_counts(names) == dict.fromkeys(COLORS, 10)


def test_a_folder_around_the_class_folders_is_seen_through(tmp_path):
    inner = make_tiles(tmp_path / "data/ds/images/remote_sensing/otherDatasets/sentinel_2/tif", 1)
    (tmp_path / "data" / "archive.zip").write_bytes(b"")
    (tmp_path / "data" / "notes").mkdir()
    assert tile_folder(tmp_path / "data") == inner
    assert tile_folder(inner) == inner
    assert find_tiles(tmp_path / "data") == find_tiles(inner)
    assert load_tiles(tmp_path / "data").names == load_tiles(inner).names


def test_of_several_folders_of_class_folders_one_must_be_named(tmp_path):
    make_tiles(tmp_path / "EuroSAT_RGB", 1)
    make_multispectral(tmp_path / "EuroSAT_MS", 1, size=8)
    with pytest.raises(TrainingError, match=r"2 folders of class folders \(EuroSAT_MS, EuroSAT_RGB\)"):
        find_tiles(tmp_path)


def test_an_empty_class_folder_is_named(folder):
    (folder / "Marsh").mkdir()
    with pytest.raises(TrainingError, match=r"Marsh holds no image\.$"):
        find_tiles(folder)


def test_pictures_beside_the_folder_of_class_folders_are_explained(folder):
    (folder.parent / "plots").mkdir()
    Image.new("RGB", (9, 9)).save(folder.parent / "plots" / "loss.png")
    with pytest.raises(
        TrainingError, match=r"tiles holds no image: if the class folders are inside it, name it"
    ):
        find_tiles(folder.parent)


def test_a_folder_without_class_folders_is_told(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="empty holds no class folders"):
        find_tiles(tmp_path / "empty")
    with pytest.raises(TrainingError, match="is not a folder"):
        find_tiles(tmp_path / "absent")
    with pytest.raises(TrainingError, match="images but no class folders: name the folder around it"):
        find_tiles(folder / "Field")


def test_class_and_file_names_may_have_spaces(tmp_path):
    colors = {"Bare soil": (150, 120, 90), "Sea lake": (30, 50, 90)}
    tiles = load_tiles(make_tiles(tmp_path / "my tiles", 2, colors=colors))
    assert tiles.classes == ("Bare soil", "Sea lake")
    assert tiles.names[0] == "Bare soil/Bare soil_0.png"


# Pictures


def test_pictures_are_read_pixel_by_pixel_with_their_labels(folder):
    tiles = load_tiles(folder)
    assert tiles.classes == ("Field", "Forest", "Water")
    assert tiles.images.shape == (30, 3, 32, 32)
    assert tiles.images.numpy().dtype == np.uint8
    assert tiles.bands is None
    assert len(tiles) == 30
    for i in (0, 13, 29):
        with Image.open(folder / tiles.names[i]) as image:
            assert np.array_equal(tiles.images[i].permute(1, 2, 0), np.asarray(image))
        assert tiles.names[i].startswith(tiles.classes[tiles.labels[i]] + "/")


def test_named_tiles_come_in_the_order_asked_for(folder):
    names = ["Water/Water_3.png", "Field/Field_0.png"]
    tiles = load_tiles(folder, names)
    assert tiles.names == tuple(names)
    assert tiles.labels.tolist() == [1, 0]


def test_the_channels_of_pictures_go_by_name_too(folder):
    as_they_are = load_tiles(folder)
    blue_first = load_tiles(folder, bands=("B02", "B03", "B04"))
    assert np.array_equal(blue_first.images, as_they_are.images.flip(1))


def test_pictures_have_no_other_bands_than_their_colours(folder):
    with pytest.raises(TrainingError, match=r"Field_0\.png is a picture .* but B08, B04 are wanted"):
        load_tiles(folder, bands=("B08", "B04"))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_other_formats_of_pictures_are_read_alike(tmp_path, suffix):
    for name, color in COLORS.items():
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), color).save(tmp_path / name / f"{name}.{suffix}")
    tiles = load_tiles(tmp_path, bands=("B04", "B03", "B02"))
    assert tiles.images.numpy().dtype == np.uint8
    assert np.abs(tiles.images[:, :, 5, 5].numpy().astype(int) - list(COLORS.values())).max() <= 2


def test_a_picture_of_more_than_8_bits_is_refused(folder):
    Image.fromarray(np.full((32, 32), 4000, np.uint16)).save(folder / "Field" / "Field_3.png")
    with pytest.raises(TrainingError, match=r"Field_3\.png holds more than 8 bits a pixel"):
        load_tiles(folder)


def test_a_picture_of_16_bits_a_colour_is_refused(tmp_path):
    """Pillow would give the upper 8 of them: of digital numbers next to nothing."""
    folder = make_tiles(tmp_path / "tiles", 4)
    numbers = np.full((3, 32, 32), 1500, np.uint16)
    with rasterio.open(folder / "Field" / "Field_3.png", "w", "PNG", 32, 32, 3, dtype="uint16") as picture:
        picture.write(numbers)
    with pytest.raises(TrainingError, match=r"Field_3\.png holds more than 8 bits a pixel"):
        load_tiles(folder)


@pytest.mark.parametrize("damage", [lambda data: b"not a picture", lambda data: data[:600]])
def test_an_unreadable_picture_is_named(folder, damage):
    path = folder / "Water" / "Water_2.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingError, match=r"Water_2\.png cannot be read"):
        load_tiles(folder)


def test_mixed_sizes_are_told_with_both(folder):
    Image.new("RGB", (40, 32)).save(folder / "Forest" / "Forest_5.png")
    with pytest.raises(TrainingError, match=r"Forest_5\.png is 40x32 pixels; the first tile, .* is 32x32"):
        load_tiles(folder)


def test_tiles_must_be_square(folder):
    Image.new("RGB", (40, 32)).save(folder / "Field" / "Field_0.png")
    with pytest.raises(TrainingError, match=r"Field_0\.png is 40x32 pixels; tiles must be square"):
        load_tiles(folder)


def test_a_tile_that_is_named_and_not_there_is_told(folder, multispectral):
    with pytest.raises(TrainingError, match=r"Field_99\.png does not exist"):
        load_tiles(folder, ["Field/Field_0.png", "Field/Field_99.png"])
    with pytest.raises(TrainingError, match=r"Field_99\.tif does not exist"):
        load_tiles(multispectral, ["Field/Field_99.tif"], skip_unreadable=True)


def test_more_tiles_than_fit_into_memory_are_told(folder, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(
        TrainingError, match=r"30 tiles of 3 bands and 32x32 pixels take 0\.0 GB, more memory"
    ):
        load_tiles(folder)


# Unreadable tiles


def test_unreadable_tiles_are_left_out_when_asked_for(folder, caplog):
    whole = load_tiles(folder)
    for name in ("Field/Field_0.png", "Water/Water_2.png"):
        (folder / name).write_bytes(b"not a picture")
    tiles = load_tiles(folder, skip_unreadable=True)
    assert class_counts(tiles.names) == {"Field": 9, "Forest": 10, "Water": 9}
    for i, name in enumerate(tiles.names):
        was = whole.names.index(name)
        assert np.array_equal(tiles.images[i], whole.images[was])
        assert tiles.labels[i] == whole.labels[was]
    assert "Field/Field_0.png cannot be read" in caplog.text
    assert "2 of 30 tiles cannot be read and are left out" in caplog.text


def test_a_class_that_loses_all_its_tiles_is_told(tmp_path):
    folder = make_tiles(tmp_path / "tiles", 2)
    for path in (folder / "Forest").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match="No tile of the class 'Forest' can be read"):
        load_tiles(folder, skip_unreadable=True)
    with pytest.raises(TrainingError, match="None of the 2 tiles"):
        load_tiles(folder, ["Forest/Forest_0.png", "Forest/Forest_1.png"], skip_unreadable=True)


def test_an_unreadable_geotiff_is_named_or_left_out(multispectral):
    path = multispectral / "Field" / "Field_0.tif"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TrainingError, match=r"Field_0\.tif cannot be read as an image"):
        load_tiles(multispectral)
    assert len(load_tiles(multispectral, skip_unreadable=True)) == 5


# Multispectral GeoTIFFs


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
def test_bands_that_cannot_be_told_are_refused(tmp_path, bands, descriptions, message):
    write_tile(tmp_path / "Field" / "a.tif", numbers(bands), descriptions)
    with pytest.raises(TrainingError, match=message):
        load_tiles(tmp_path, bands=L2A_BANDS)


def test_a_tile_with_fewer_bands_than_the_others_is_named(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(5))
    write_tile(tmp_path / "Field" / "b.tif", numbers(4))
    with pytest.raises(TrainingError, match=r"b\.tif has 4 bands; the first tile, Field/a\.tif, has 5"):
        load_tiles(tmp_path)


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


def test_tiles_of_8_bits_and_of_more_are_not_mixed(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(5).astype(np.uint8))
    write_tile(tmp_path / "Field" / "b.tif", numbers(5))
    with pytest.raises(
        TrainingError, match=r"Only one of .*b\.tif and the first tile, Field/a\.tif, holds 8-bit"
    ):
        load_tiles(tmp_path)


def test_numbers_beyond_int16_are_clipped_not_wrapped(tmp_path):
    pixels = numbers(3)
    pixels[0], pixels[1, 0, 0] = 65535, 0
    write_tile(tmp_path / "Field" / "a.tif", pixels)
    tiles = load_tiles(tmp_path)
    assert tiles.images[0, 0].unique().tolist() == [32767]
    assert tiles.images[0, 1, 0, 0] == 0


def test_pictures_and_geotiffs_are_not_mixed(folder):
    write_tile(folder / "Field" / "Field_10.tif", numbers(13, 32))
    with pytest.raises(TrainingError, match=r"mixes TIFFs \(Field/Field_10\.tif\) and other pictures"):
        load_tiles(folder)


def test_tiles_need_no_place_on_the_ground(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(13), place=None)
    assert len(load_tiles(tmp_path)) == 1


# Without rasterio, as on GPU servers


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


# EuroSAT itself


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


def test_eurosats_pictures_are_its_multispectral_tiles_stretched(eurosat):
    """The mean absolute error is what JPEG costs; another band order or stretch would be far off."""
    pictures = load_tiles(eurosat / "EuroSAT_RGB")
    names = [str(Path(name).with_suffix(".tif")) for name in pictures.names]
    tiles = load_tiles(eurosat / "EuroSAT_MS", names, bands=("B04", "B03", "B02"))
    stretched = 1 + 254 * tiles.images.float().clamp(0, 2750) / 2750
    assert len(names) > 50
    assert (stretched - pictures.images.float()).abs().mean(dim=(0, 2, 3)).max() < 2
