"""Radiometry: stored pixels become the very values that EuroSAT's tiles hold."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import SceneError
from pipeline.scenes.atmosphere import atmosphere_step, clear_atmosphere, henyey_greenstein, rayleigh_depth
from pipeline.scenes.radiometry import pixel_transform, reflectance_encoding, rgb8_encoding, tci_encoding
from pipeline.values import PixelTransform, Scaling
from tests.support.cards import RGB_CARD as CARD

EUROSAT_MEAN = np.array([0.3444, 0.3803, 0.4078])  # R, G, B of the training tiles, of 255


def values_of(stored: float, transform: PixelTransform) -> list[float]:
    return transform.apply(np.full((len(transform.gain), 1, 1), stored))[:, 0, 0].tolist()


def l1c(offset: float = 0) -> PixelTransform:
    return pixel_transform(CARD, reflectance_encoding("l1c", (offset,) * 3, (1e-4,) * 3))


@given(st.integers(0, 65535))
def test_l1c_becomes_eurosats_stretch(stored):
    expected = 1 + 254 * min(stored, 2750) / 2750
    assert values_of(stored, l1c()) == pytest.approx([expected] * 3, abs=1e-3)


@given(st.integers(0, 60000))
def test_the_offset_is_what_products_call_it(stored):
    assert values_of(stored + 1000, l1c(-1000)) == pytest.approx(values_of(stored, l1c()), abs=1e-3)


def test_offset_and_scale_are_per_band():
    transform = pixel_transform(CARD, reflectance_encoding("l1c", (-1000, 0, 500), (1e-4, 2e-4, 1e-4)))
    assert values_of(1200, transform) == pytest.approx(
        [1 + 254 * r / 0.275 for r in (0.02, 0.24, 0.17)], abs=1e-3
    )


def test_values_are_clipped_at_both_ends():
    assert values_of(-300, l1c()) == [1.0] * 3
    assert values_of(30000, l1c()) == [255.0] * 3


def test_true_colour_image_of_l1c_is_unstretched_first():
    transform = pixel_transform(CARD, tci_encoding("l1c", 3))
    # ESA: 1 at reflectance 0, 255 at 0.3558.
    assert values_of(1, transform) == pytest.approx([1.0] * 3, abs=1e-4)
    reflectance = 99 / 254 * 0.3558
    assert values_of(100, transform) == pytest.approx([1 + 254 * reflectance / 0.275] * 3, abs=1e-3)
    assert values_of(255, transform) == [255.0] * 3


def test_true_colour_image_of_l2a_gets_the_atmosphere_too():
    from_image = pixel_transform(CARD, tci_encoding("l2a", 3))
    from_bands = pixel_transform(CARD, reflectance_encoding("l2a", (0,) * 3, (1e-4,) * 3))
    assert values_of(128, from_image) == pytest.approx(values_of(1250, from_bands), abs=1)


@given(st.integers(0, 255))
def test_rgb8_is_used_unchanged(value):
    assert values_of(value, pixel_transform(CARD, rgb8_encoding(3))) == [value] * 3


def test_rgb8_needs_a_model_of_8_bit_colours():
    with pytest.raises(SceneError, match="not on 8-bit colours"):
        pixel_transform(replace(CARD, scaling=Scaling((0, 1), (0, 1))), rgb8_encoding(3))


@pytest.mark.parametrize("encoding", [rgb8_encoding(4), tci_encoding("l1c", 4)])
def test_pictures_do_not_feed_a_multispectral_model(encoding):
    card = replace(CARD, name="ms", bands=("B04", "B03", "B02", "B08"))
    with pytest.raises(SceneError, match="needs B04, B03, B02, B08"):
        pixel_transform(card, encoding)


def test_same_level_means_no_atmosphere():
    gain, bias = atmosphere_step("l2a", "l2a", CARD.bands)
    assert gain.tolist() == [1] * 3
    assert bias.tolist() == [0] * 3


def test_l1c_on_an_l2a_model_is_the_inverse_of_l2a_on_an_l1c_model():
    up_gain, up_bias = atmosphere_step("l2a", "l1c", CARD.bands)
    down_gain, down_bias = atmosphere_step("l1c", "l2a", CARD.bands)
    np.testing.assert_allclose(down_gain * (up_gain * 0.123 + up_bias) + down_bias, 0.123)


@pytest.mark.parametrize("band", ["B02", "B03", "B04"])
def test_a_low_sun_shines_through_more_air(band):
    paths, transmittances = zip(*(clear_atmosphere(band, zenith) for zenith in (20, 40, 60, 70)), strict=True)
    assert list(paths) == sorted(paths)
    assert list(transmittances) == sorted(transmittances, reverse=True)
    assert clear_atmosphere(band, 89) == clear_atmosphere(band, 75)  # below, the formulas end
    assert clear_atmosphere(band, aerosol_depth=0.3)[0] > clear_atmosphere(band)[0]


def test_clear_atmosphere_brightens_blue_most():
    path, transmittance = np.array(
        [clear_atmosphere(b) for b in ("B02", "B03", "B04", "B08", "B11", "B12")]
    ).T
    assert (np.diff(path) < 0).all()
    assert (np.diff(transmittance) > 0).all()
    np.testing.assert_allclose(path[:3], [0.065, 0.04, 0.022], atol=0.006)
    np.testing.assert_allclose(transmittance[:3], [0.80, 0.81, 0.89], atol=0.02)
    assert path[-1] < 0.002
    assert transmittance[-1] > 0.98


@pytest.mark.parametrize("wavelength", [0.4427, 0.4924, 0.5598, 0.6646, 0.8647, 1.6137])
def test_rayleigh_depth_agrees_with_the_older_formula(wavelength):
    """Hansen & Travis (1974), eq. 2.30; the two differ by a percent."""
    hansen_travis = 0.008569 * wavelength**-4 * (1 + 0.0113 * wavelength**-2 + 0.00013 * wavelength**-4)
    assert rayleigh_depth(wavelength) == pytest.approx(hansen_travis, rel=0.015)


def test_phase_function_is_normalised():
    cosine = np.linspace(-1, 1, 20001)
    assert np.trapezoid(henyey_greenstein(cosine, 0.65), cosine) / 2 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7)])
def test_apply_takes_any_type_and_leaves_its_input_alone(dtype, shape):
    pixels = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    before = pixels.copy()
    transform = PixelTransform((1.0, 2.0, 3.0), (0.0, -10.0, 5.0), 1.0, 200.0)
    values = transform.apply(pixels)
    assert values.dtype == np.float32
    assert (pixels == before).all()
    band = np.array([1.0, 2.0, 3.0])[:, None, None] * pixels + np.array([0.0, -10.0, 5.0])[:, None, None]
    np.testing.assert_allclose(values, np.clip(band, 1, 200), rtol=1e-6)


def test_multispectral_tiles_become_the_rgb_tiles(landcover_data):
    """The stretch under test against EuroSAT's own pairs of L1C and RGB tiles (JPEG blurs the rest)."""
    names, archives = [], [landcover_data / "eurosat/EuroSAT_RGB-val.zip"]
    with zipfile.ZipFile(landcover_data / "eurosat/EuroSAT_MS-sample.zip") as ms:
        pairs = []
        with zipfile.ZipFile(archives[0]) as rgb:
            jpegs = {Path(name).stem: name for name in rgb.namelist() if name.endswith(".jpg")}
            names = [name for name in ms.namelist() if Path(name).stem in jpegs][:20]
            for name in names:
                with rasterio.MemoryFile(ms.read(name)) as file, file.open() as tile:
                    values = l1c().apply(tile.read([4, 3, 2]))
                jpeg = np.asarray(Image.open(io.BytesIO(rgb.read(jpegs[Path(name).stem]))), dtype=float)
                pairs.append(np.abs(values - jpeg.transpose(2, 0, 1)).mean())
    assert len(pairs) == 20
    assert np.mean(pairs) < 2


def test_a_surface_scene_looks_like_the_training_tiles_only_with_the_atmosphere(scenes):
    with rasterio.open(scenes / "innviertel_l2a_2dates.tif") as scene:
        pixels = scene.read([1, 2, 3])
    distance = {}
    for level in ("l1c", "l2a"):
        transform = pixel_transform(CARD, reflectance_encoding(level, (0,) * 3, (1e-4,) * 3))
        distance[level] = np.abs(transform.apply(pixels).mean(axis=(1, 2)) / 255 - EUROSAT_MEAN)
    assert distance["l2a"].sum() < 0.7 * distance["l1c"].sum()
    assert distance["l2a"].max() < 0.06 < 0.14 < distance["l1c"].max()
