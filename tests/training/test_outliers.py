"""Clouds and snow made over tiles look like what they are called."""

from functools import partial

import pytest
import torch

from pipeline.training.outliers import (
    KINDS,
    Ground,
    clouded,
    cover_with,
    fractal_noise,
    random_outliers,
    snow,
)
from pipeline.values import Scaling

SCALING = Scaling((0.0, 0.275), (1.0, 255.0))
REFLECTANCE = Scaling((0.0, 1.0), (0.0, 1.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dark_ground(scaling=REFLECTANCE, bands=("B04", "B03", "B02"), n=4) -> Ground:
    return Ground(torch.full((n, len(bands), 32, 32), 0.05), scaling, bands)


def test_noise_is_evenly_spread_and_hangs_together():
    noise = fractal_noise(3, 32, seeded())
    assert noise.shape == (3, 32, 32)
    torch.testing.assert_close(noise[0].flatten().sort().values, torch.linspace(0, 1, 1024))
    assert noise.diff(dim=2).abs().mean() < 0.1  # of independent pixels: a third
    assert not noise[0].allclose(noise[1])


def test_thick_clouds_hide_all_and_are_white():
    covered = clouded(dark_ground(), seeded(), cover=1.0)
    assert covered.min() >= 0.3
    assert (covered == covered[:, :1]).all()


def test_clouds_cover_what_they_should():
    covered = clouded(dark_ground(), seeded(), cover=0.5)
    shares = (covered[:, 0] > 0.05).float().mean(dim=(1, 2))
    torch.testing.assert_close(shares, torch.full((4,), 0.5), atol=0.01, rtol=0)


def test_through_thin_clouds_the_ground_is_seen():
    black, bright = (
        clouded(Ground(torch.full((1, 1, 32, 32), value), REFLECTANCE, ("B04",)), seeded(), 1.0, (0.3, 0.6))
        for value in (0.0, 0.2)
    )
    seen = (bright - black) / 0.2
    assert 0.39 < seen.min() < seen.max() < 0.71


def test_snow_is_dark_in_the_infrared():
    green, infrared = snow(dark_ground(bands=("B03", "B11"), n=1), seeded())[0]
    assert green.max() > 0.8 > 0.2 > infrared.max()


@pytest.mark.parametrize("kind", KINDS)
def test_values_stay_within_the_scaling(kind):
    covered = cover_with(kind, dark_ground(SCALING), seeded())
    assert covered.shape == (4, 3, 32, 32)
    assert covered.min() >= 1
    assert covered.max() == 255


def test_random_outliers_are_of_all_kinds_and_repeatable():
    make = partial(random_outliers, dark_ground(SCALING, n=64))
    covered = make(seeded(3))
    assert torch.equal(covered, make(seeded(3)))
    assert not torch.equal(covered, make(seeded(4)))
    white = (covered == 255).all(dim=1).float().mean(dim=(1, 2))
    assert (white > 0.9).any()  # all cloud
    assert ((white > 0.2) & (white < 0.5)).any()  # half
    assert (covered != 0.05).flatten(1).any(dim=1).all()  # none was left as it was
