"""Product levels: the same ground as L1C and as L2A."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.classes import number_classes
from pipeline.scenes.atmosphere import atmosphere_step
from pipeline.training.levels import digital_numbers, reflectance_of, surface_reflectance, toa_reflectance
from tests.support.cards import RGB_CARD

BANDS = ("B04", "B03", "B02")
CARD = replace(RGB_CARD, tile_size=16, classes=number_classes(["Dark", "Sharp"]))


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
