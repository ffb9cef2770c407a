"""Calibration: however a file stores reflectance, the same ground gives the same training values.

Otherwise the user is told: nothing is silently taken for what it is not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SceneError
from pipeline.options import SceneOptions
from pipeline.scenes.bands import Imagery
from pipeline.scenes.encoding import find_encoding
from pipeline.scenes.product import ProductFacts
from pipeline.scenes.radiometry import PixelEncoding, pixel_transform
from pipeline.scenes.scene import Scene, open_scene
from pipeline.scenes.stored_values import StoredValues
from pipeline.values import PixelTransform
from tests.support.cards import RGB_CARD
from tests.support.safe import metadata_xml
from tests.support.scenes import NAMES, note_texts, read_all

BANDS = RGB_CARD.bands

# Surface reflectance in red, green and blue.
GROUND = {
    "water": (0.012, 0.025, 0.022),
    "forest": (0.022, 0.042, 0.022),
    "crops": (0.045, 0.080, 0.042),
    "soil": (0.160, 0.120, 0.085),
    "houses": (0.130, 0.125, 0.115),
    "cloud": (0.620, 0.630, 0.660),
    "snow": (0.950, 0.960, 0.970),
    "desert": (0.500, 0.360, 0.220),
    "lagoon": (0.060, 0.300, 0.350),
    "ice": (0.400, 0.550, 0.600),
}


def landscape(shares: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """Make (3, 40, 40) surface reflectance of the kinds of `GROUND`, mixed by `shares`."""
    random = np.random.default_rng(seed)
    kinds = random.choice(len(shares), 1600, p=np.array(shares) / sum(shares))
    slope, grain = random.normal(1, 0.12, 1600).clip(0.6, 1.4), random.normal(1, 0.03, (3, 1600))
    return (np.array(list(GROUND.values()))[kinds].T * slope * grain).reshape(3, 40, 40)


COUNTRYSIDE = landscape((1, 4, 4, 2, 1))


@dataclass(frozen=True)
class Storage:
    """A way to store reflectance."""

    store: Callable[[np.ndarray], np.ndarray]
    dtype: str
    scale: float = 1.0
    offset: float = 0.0
    codes: tuple[str, ...] = ()  # of the warnings that a countryside gets

    def write(self, reflectance: np.ndarray) -> np.ndarray:
        stored = self.store(reflectance)
        if not self.dtype.startswith("float"):
            limits = np.iinfo(self.dtype)
            stored = stored.round().clip(limits.min, limits.max)
        return stored.astype(self.dtype)


def dn(reflectance: np.ndarray) -> np.ndarray:
    return reflectance * 10_000


STORAGES = {
    # name: how the numbers are made, their type, GDAL's scale and offset, the warning
    "ten-thousandths": Storage(dn, "uint16"),
    "ten-thousandths, signed": Storage(dn, "int16"),
    "ten-thousandths, floats": Storage(dn, "float32"),
    "ten-thousandths, whole floats": Storage(lambda r: dn(r).round(), "float32"),
    "ten-thousandths, scale tag": Storage(dn, "uint16", 1e-4),
    "ten-thousandths, offset tag left": Storage(dn, "uint16", 1e-4, -0.1, ("offset-not-applied",)),
    "+1000": Storage(lambda r: dn(r) + 1000, "uint16", codes=("offset-guessed",)),
    "+1000, floats": Storage(lambda r: dn(r) + 1000, "float32", codes=("offset-guessed",)),
    "+1000, tags": Storage(lambda r: dn(r) + 1000, "uint16", 1e-4, -0.1),
    "+1000, scale tag only": Storage(lambda r: dn(r) + 1000, "uint16", 1e-4, 0, ("offset-guessed",)),
    "+1000, offset tag only": Storage(lambda r: dn(r) + 1000, "uint16", 1, -1000),
    "-1000": Storage(lambda r: dn(r) - 1000, "int16", codes=("offset-put-back",)),
    "0 to 1": Storage(lambda r: r, "float32"),
    "0 to 1, double": Storage(lambda r: r, "float64"),
    "0 to 1, +0.1": Storage(lambda r: r + 0.1, "float32", codes=("offset-guessed",)),
    "0 to 1, -0.1": Storage(lambda r: r - 0.1, "float32", codes=("offset-put-back",)),
    "0 to 1, scale tag left": Storage(lambda r: r, "float32", 1e-4, 0, ("scale-ignored",)),
    "0 to 1, tags left": Storage(lambda r: r, "float32", 1e-4, -0.1, ("scale-ignored",)),
    "0 to 1, Landsat's tags left": Storage(lambda r: r, "float32", 2.75e-5, -0.2, ("scale-ignored",)),
    "percent": Storage(lambda r: r * 100, "float32", codes=("scale-guessed",)),
    "percent, +10": Storage(lambda r: r * 100 + 10, "float32", codes=("scale-guessed", "offset-guessed")),
    "percent, scale tag": Storage(lambda r: r * 100, "float32", 0.01),
    "Landsat's tags": Storage(lambda r: (r + 0.2) / 2.75e-5, "uint16", 2.75e-5, -0.2),
    "full scale": Storage(lambda r: r * 65_535, "uint16", codes=("scale-guessed",)),
    "full scale, scale tag": Storage(lambda r: r * 65_535, "uint16", 1 / 65_535),
}


def encoding_of(
    storage: Storage, reflectance: np.ndarray, name: str = "x_L2A.tif"
) -> tuple[PixelEncoding, set[str]]:
    """Return the encoding that is found, and the codes of the warnings."""
    pixels = storage.write(reflectance)
    sample = pixels.reshape(3, -1)
    stored = StoredValues(pixels.dtype, (storage.scale,) * 3, (storage.offset,) * 3, lambda: sample)
    encoding, notes = find_encoding(RGB_CARD, Imagery("x", (), texts=(name,)), stored)
    return encoding, {note.code for note in notes if note.level == "warning"}


def values_of(storage: Storage, reflectance: np.ndarray, encoding: PixelEncoding) -> np.ndarray:
    return pixel_transform(RGB_CARD, encoding).apply(storage.write(reflectance))


def right_values(reflectance: np.ndarray, sun_zenith: float | None = None) -> np.ndarray:
    plain = PixelEncoding("l2a", "l2a", (0.0,) * 3, (1.0,) * 3, sun_zenith)
    transform: PixelTransform = pixel_transform(RGB_CARD, plain)
    return transform.apply(reflectance)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_every_storage_of_a_countryside_gives_the_same_training_values(storage):
    encoding, warned = encoding_of(storage, COUNTRYSIDE)
    np.testing.assert_allclose(values_of(storage, COUNTRYSIDE, encoding), right_values(COUNTRYSIDE), atol=0.1)
    assert warned == set(storage.codes)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_the_level_is_guessed_from_the_same_reflectance(storage):
    """Without a level in the name: this ground is seen from nearby, and the same ground through the air."""
    for air, level in (((0, 0, 0), "l2a"), ((0.03, 0.045, 0.068), "l1c")):
        reflectance = COUNTRYSIDE + np.array(air)[:, None, None]
        encoding, warned = encoding_of(storage, reflectance, "x.tif")
        if "offset-assumed" not in warned:
            assert encoding.level == level
        assert "level-guessed" in warned


shares = st.tuples(*(st.integers(0, 5) for _ in GROUND)).filter(any)


@given(shares, st.integers(0, 99), st.sampled_from(sorted(STORAGES)))
def test_nothing_is_silently_taken_for_what_it_is_not(shares, seed, name):
    """Any mixture of ground and cloud, also of a single kind: right, or refused, or warned of."""
    reflectance, storage = landscape(shares, seed), STORAGES[name]
    try:
        encoding, warned = encoding_of(storage, reflectance)
    except SceneError:
        return
    right = np.abs(values_of(storage, reflectance, encoding) - right_values(reflectance)).max() < 0.1
    assert right or warned


@given(shares, st.integers(0, 99))
def test_ground_as_sentinel_2_stores_it_is_never_taken_for_something_else(shares, seed):
    reflectance = landscape(shares, seed)
    for name in ("ten-thousandths", "ten-thousandths, signed", "0 to 1", "ten-thousandths, scale tag"):
        encoding, _ = encoding_of(STORAGES[name], reflectance, "x_L2A_N0300.tif")
        np.testing.assert_allclose(
            values_of(STORAGES[name], reflectance, encoding), right_values(reflectance), atol=0.1
        )


def write(write_raster, storage: Storage, name: str = "x_l2a.tif", reflectance: np.ndarray = COUNTRYSIDE):
    path = write_raster(storage.write(reflectance), name, descriptions=NAMES)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (storage.scale,) * 3, (storage.offset,) * 3
    return path


def values_read(scene: Scene) -> np.ndarray:
    return scene.pixel_transform.apply(read_all(scene)[0])


@pytest.mark.parametrize(
    ("storage", "offset"),
    [
        ("0 to 1, +0.1", -1000),
        ("0 to 1, +0.1", -0.1),
        ("+1000", -1000),
        ("+1000", -0.1),
        ("percent, +10", -1000),
        ("-1000", 1000),
        ("0 to 1, -0.1", 1000),
        ("0 to 1", 0),
        ("+1000, tags", -1000),
    ],
)
def test_a_stated_offset_means_the_same_however_the_file_stores_it(write_raster, storage, offset):
    scene = open_scene(write(write_raster, STORAGES[storage]), RGB_CARD, SceneOptions(offset=offset))
    np.testing.assert_allclose(values_read(scene), right_values(COUNTRYSIDE), atol=0.1)
    assert f"Offset {offset:g}, as stated" in note_texts(scene, "info")


@pytest.mark.parametrize(("storage", "offset"), [("ten-thousandths", -1000), ("-1000", 0), ("0 to 1", -0.1)])
def test_a_stated_offset_that_cannot_be_right_is_used_and_warned_of(write_raster, storage, offset):
    scene = open_scene(write(write_raster, STORAGES[storage]), RGB_CARD, SceneOptions(offset=offset))
    assert f"With `offset` {offset:g} the darkest pixels reflect -0.0" in note_texts(scene, "warning")
    assert scene.encoding.offset == (offset,) * 3


def test_a_baseline_in_the_name_counts_for_floats_too(write_raster):
    new = write(write_raster, STORAGES["0 to 1, +0.1"], "S2A_MSIL2A_N0509_R022.tif")
    scene = open_scene(new, RGB_CARD)
    np.testing.assert_allclose(values_read(scene), right_values(COUNTRYSIDE), atol=0.1)
    assert not note_texts(scene, "warning")
    calibrated = write(write_raster, STORAGES["0 to 1"], "S2A_MSIL2A_N0509_R023.tif")
    scene = open_scene(calibrated, RGB_CARD)
    np.testing.assert_allclose(values_read(scene), right_values(COUNTRYSIDE), atol=0.1)
    assert not note_texts(scene, "warning")


def test_floats_beside_metadata_are_read_in_reflectance(write_raster, tmp_path):
    (tmp_path / "MTD_MSIL2A.xml").write_text(metadata_xml("l2a"))
    for name in ("0 to 1", "0 to 1, +0.1", "+1000, floats", "percent, +10"):
        scene = open_scene(write(write_raster, STORAGES[name], "x.tif"), RGB_CARD)
        np.testing.assert_allclose(
            values_read(scene), right_values(COUNTRYSIDE, scene.encoding.sun_zenith), atol=0.5
        )  # band_id


TOO_DARK = Storage(lambda r: r * 100, "uint16")
"""Whole percent: nothing tells them from anything else."""

TOO_BRIGHT = Storage(lambda r: r * 2_000_000, "int32")


@pytest.mark.parametrize(
    ("storage", "said", "scale"),
    [(TOO_DARK, "darker than any", 0.01), (TOO_BRIGHT, "brighter than any", 5e-7)],
)
def test_what_no_reading_fits_is_refused_and_the_remedies_work(write_raster, storage, said, scale):
    path = write(write_raster, storage)
    with pytest.raises(SceneError, match=f"{said}.*tag the file with its scale.*or state `level`"):
        open_scene(path, RGB_CARD)
    stated = open_scene(path, RGB_CARD, SceneOptions(level="l2a"))
    assert "used all the same, as you state `level`" in note_texts(stated, "warning")
    with rasterio.open(path, "r+") as raster:
        raster.scales = (scale,) * 3
    tagged = open_scene(path, RGB_CARD)
    assert not note_texts(tagged, "warning")
    np.testing.assert_allclose(values_read(tagged), right_values(COUNTRYSIDE), atol=5)  # whole percent


def test_what_lies_far_below_zero_is_refused(write_raster):
    path = write_raster(STORAGES["-1000"].write(COUNTRYSIDE - 0.4), "x_l2a.tif", descriptions=NAMES)
    with pytest.raises(SceneError, match="which no ground does: declare the value of missing pixels"):
        open_scene(path, RGB_CARD)


def test_a_few_pixels_far_below_zero_are_warned_of(write_raster):
    pixels = STORAGES["ten-thousandths, signed"].write(COUNTRYSIDE)
    pixels[:, :1] = -3000  # what no reflectance at all can be is left out
    path = write_raster(pixels, "x_l2a.tif", descriptions=NAMES)
    assert "-a_nodata" in note_texts(open_scene(path, RGB_CARD), "warning")
    with rasterio.open(path, "r+") as raster:
        raster.nodata = -3000
    assert not note_texts(open_scene(path, RGB_CARD), "warning")


def test_landsats_dark_water_does_not_unmake_its_tags():
    """Its correction takes off too much there: a little of the scene lies far below zero."""
    reflectance = COUNTRYSIDE.copy()
    reflectance[:, :2] = -0.06
    storage = STORAGES["Landsat's tags"]
    encoding, _ = encoding_of(storage, reflectance)
    np.testing.assert_allclose(values_of(storage, reflectance, encoding), right_values(reflectance), atol=0.1)


def test_a_level_1c_scene_keeps_the_air_in_front_of_it():
    """Its dark pixels lie where an offset would leave them; without it they would be darker than the air."""
    hazy = COUNTRYSIDE * 0.5 + np.array([0.09, 0.09, 0.085])[:, None, None]
    encoding, warned = encoding_of(STORAGES["ten-thousandths"], hazy, "x_L1C.tif")
    assert encoding.offset == (0, 0, 0)
    assert warned == {"offset-assumed"}


def test_a_level_1c_scene_without_air_is_doubted():
    assert encoding_of(STORAGES["0 to 1"], 0.6 * COUNTRYSIDE, "x_L1C.tif")[1] == {"level-doubtful"}
    seen_from_above = COUNTRYSIDE + np.array([0.03, 0.045, 0.068])[:, None, None]
    assert not encoding_of(STORAGES["ten-thousandths"], seen_from_above, "x_L1C.tif")[1]


def test_8_bit_numbers_in_a_scene_with_a_level_are_warned_of():
    picture = Storage(lambda r: (r * 800).clip(0, 255), "uint16")
    assert "values-dark" in encoding_of(picture, COUNTRYSIDE)[1]


@pytest.mark.parametrize("kind", ["scale", "offset"])
@pytest.mark.parametrize("number", [0.0, np.nan, np.inf, -1.0])
def test_tags_that_cannot_be_meant_are_ignored_with_a_warning(write_raster, kind, number):
    if kind == "offset" and np.isfinite(number):
        return  # these can be meant
    tags = {kind: number}
    path = write(write_raster, replace(STORAGES["ten-thousandths"], **tags))
    scene = open_scene(path, RGB_CARD)
    assert f"The file's {kind} tags (B04 {number:g}" in note_texts(scene, "warning")
    np.testing.assert_allclose(values_read(scene), right_values(COUNTRYSIDE), atol=0.1)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("scale", (1e-4, 1, 1)),
        ("scale", (1e-4, 1e-4, np.nan)),
        ("scale", (1e-4, 0, 1e-4)),
        ("offset", (-0.1, 0, 0)),
        ("offset", (-0.1, np.nan, -0.1)),
    ],
)
def test_tags_of_some_bands_only_are_refused_and_the_remedy_works(write_raster, kind, numbers):
    path = write(write_raster, STORAGES["ten-thousandths, scale tag"])
    with rasterio.open(path, "r+") as raster:
        setattr(raster, f"{kind}s", numbers)
    with pytest.raises(SceneError, match=f"{kind} for some of the bands only .*gdal_edit.py -{kind}"):
        open_scene(path, RGB_CARD)
    with rasterio.open(path, "r+") as raster:
        setattr(raster, f"{kind}s", (1e-4 if kind == "scale" else 0,) * 3)
    assert not note_texts(open_scene(path, RGB_CARD), "warning")


@pytest.mark.parametrize(
    ("scale", "offset", "zenith", "said"),
    [
        (0.0, 0.0, None, "scale of B04 is 0"),
        (np.nan, 0.0, None, "scale of B04 is nan"),
        (1e-4, np.inf, None, "offset of B04 is inf"),
        (1e-4, 0.0, np.nan, "sun is nan"),
        (1e-4, 0.0, 120.0, "sun is 120"),
    ],
)
def test_facts_that_cannot_be_meant_are_refused(scale, offset, zenith, said):
    with pytest.raises(ValueError, match=said):
        ProductFacts("l2a", {"B04": scale}, {"B04": offset}, sun_zenith=zenith)


@pytest.mark.parametrize("number", ["nan", "inf", "0", "-10000"])
def test_a_quantification_that_cannot_be_meant_is_refused(write_raster, tmp_path, number):
    (tmp_path / "MTD_MSIL2A.xml").write_text(metadata_xml("l2a").replace(">10000<", f">{number}<"))
    with pytest.raises(SceneError, match="not readable Sentinel-2 product metadata"):
        open_scene(write(write_raster, STORAGES["ten-thousandths"], "x.tif"), RGB_CARD)


def test_metadata_with_the_offset_of_some_bands_only_are_refused(write_raster, tmp_path):
    text = metadata_xml("l2a").replace('band_id="1"', 'band_id="0"')
    (tmp_path / "MTD_MSIL2A.xml").write_text(text)
    path = write(write_raster, STORAGES["+1000"], "x.tif")
    with pytest.raises(SceneError, match="offset for some bands, but none for B02: state `offset`"):
        open_scene(path, RGB_CARD)
    scene = open_scene(path, RGB_CARD, SceneOptions(offset=-1000))
    np.testing.assert_allclose(
        values_read(scene), right_values(COUNTRYSIDE, scene.encoding.sun_zenith), atol=0.1
    )


def test_a_sun_in_the_zenith_is_not_taken_for_an_unknown_one():
    encodings = [PixelEncoding("l2a", "l2a", (0.0,) * 3, (1.0,) * 3, zenith) for zenith in (0.0, None)]
    zenith, unknown = (pixel_transform(RGB_CARD, encoding).bias for encoding in encodings)
    assert zenith != unknown


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_every_storage_of_a_real_scene_gives_the_same_training_values(storage, scenes):
    with rasterio.open(scenes / "innviertel_l2a_2dates.tif") as raster:
        reflectance = raster.read([1, 2, 3]) / 10_000
    encoding, _ = encoding_of(storage, reflectance)
    np.testing.assert_allclose(values_of(storage, reflectance, encoding), right_values(reflectance), atol=0.1)


def test_the_cloudy_scene_is_not_taken_for_something_else(scenes):
    with rasterio.open(scenes / "boadella_l2a_20200118_cloud.tif") as raster:
        reflectance = raster.read([4, 3, 2]) / 10_000
    for name in ("ten-thousandths", "0 to 1", "Landsat's tags", "0 to 1, tags left", "full scale"):
        encoding, _ = encoding_of(STORAGES[name], reflectance)
        np.testing.assert_allclose(
            values_of(STORAGES[name], reflectance, encoding), right_values(reflectance), atol=0.1
        )
