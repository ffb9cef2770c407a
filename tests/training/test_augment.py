"""Variations of training tiles: what they may change and what they must leave."""

from dataclasses import replace

import pytest
import torch

from pipeline.training import augment as module
from pipeline.training.augment import AugmentOptions, random_crop
from pipeline.values import Scaling

# Every value of 8 bits is within the limits, 1 is 0.001 of reflectance, and 0 is none.
SCALING = Scaling(reflectance=(0.0, 0.255), values=(0.0, 255.0))
STILL = AugmentOptions(warp_share=0, max_scale=1.0, max_shift=0, gain=0, band_gain=0, band_offset=0)


def augment(images, options, generator, scaling: Scaling = SCALING) -> torch.Tensor:
    return module.augment(images, options, scaling, generator)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tiles(n: int = 16, bands: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, bands, size, size), generator=generator(99)).float()


def numbered_tiles(n: int, size: int) -> torch.Tensor:
    """Each pixel holds its own row-major index, so that one sees where it went."""
    return torch.arange(size * size).float().reshape(1, 1, size, size).repeat(n, 1, 1, 1)


@pytest.mark.parametrize("bands", [1, 3, 13])
def test_shape_type_and_input_stay(bands):
    tiles = random_tiles(bands=bands)
    before = tiles.clone()
    varied = augment(tiles, AugmentOptions(), generator())
    assert varied.shape == tiles.shape
    assert varied.dtype == torch.float32
    assert torch.equal(tiles, before)
    assert not torch.equal(varied, tiles)


def test_the_generator_alone_decides():
    tiles = random_tiles()
    varied = augment(tiles, AugmentOptions(), generator(1))
    torch.manual_seed(1234)
    assert torch.equal(augment(tiles, AugmentOptions(), generator(1)), varied)
    assert not torch.equal(augment(tiles, AugmentOptions(), generator(2)), varied)


def test_without_shift_and_warp_pixels_only_change_places():
    tiles = random_tiles()
    varied = augment(tiles, STILL, generator())
    assert torch.equal(varied.flatten(2).sort().values, tiles.flatten(2).sort().values)


def test_all_eight_symmetries_come_equally_often():
    tile = (torch.arange(16).float() * 10).reshape(1, 1, 4, 4)
    varied = augment(tile.repeat(4000, 1, 1, 1), STILL, generator())
    symmetries, counts = varied.flatten(1).unique(dim=0, return_counts=True)
    expected = {
        tuple(t.rot90(k, (-2, -1)).flatten().tolist()) for t in (tile, tile.flip(-1)) for k in range(4)
    }
    assert {tuple(s.tolist()) for s in symmetries} == expected
    assert counts.min() > 400  # of 500 each


def test_all_bands_of_a_tile_move_together():
    band = random_tiles(bands=1)
    varied = augment(band.repeat(1, 3, 1, 1), replace(STILL, max_shift=8, warp_share=0.5), generator())
    assert torch.equal(varied[:, 0], varied[:, 1])
    assert torch.equal(varied[:, 0], varied[:, 2])


def test_shifts_are_by_whole_pixels_and_reach_the_limit():
    """On a ramp that repeats no value, the centre pixel tells how far its tile was moved."""
    tiles = numbered_tiles(300, 15)  # 225 values: none is clipped at 255
    varied = augment(tiles, replace(STILL, max_shift=2), generator())
    assert set(varied.unique().tolist()) <= set(tiles.unique().tolist())
    centre = varied[:, 0, 7, 7].long()
    rows, columns = centre // 15 - 7, centre % 15 - 7
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}


def test_without_warping_every_pixel_is_one_of_the_originals():
    tiles = torch.rand(8, 3, 32, 32, generator=generator(5)) * 255
    varied = augment(tiles, replace(STILL, max_shift=8), generator())
    for before, after in zip(tiles.flatten(1), varied.flatten(1), strict=True):
        assert torch.isin(after, before).all()


def test_the_stated_share_of_tiles_is_interpolated():
    tiles = torch.rand(400, 1, 16, 16, generator=generator(5)) * 255
    varied = augment(tiles, replace(STILL, max_shift=4, max_scale=1.25, warp_share=0.35), generator())
    untouched = [torch.isin(v, t).all().item() for t, v in zip(tiles, varied, strict=True)]
    assert sum(untouched) / 400 == pytest.approx(0.65, abs=0.08)


def test_a_batch_of_which_no_tile_is_warped_is_fine():
    assert augment(random_tiles(1), AugmentOptions(warp_share=1e-9), generator()).shape == (1, 3, 32, 32)


def test_warping_stays_within_the_values_of_the_tile():
    tiles = random_tiles(64) * 0.5 + 50
    varied = augment(tiles, replace(STILL, max_scale=1.25, warp_share=1.0), generator())
    assert varied.min() >= tiles.min() - 1e-3
    assert varied.max() <= tiles.max() + 1e-3


def test_the_stated_share_of_tiles_is_softened_and_no_more():
    tiles = torch.rand(400, 1, 16, 16, generator=generator(5)) * 255
    varied = augment(tiles, replace(STILL, max_scale=1.3, soften_share=0.25), generator())
    untouched = [torch.isin(v, t).all().item() for t, v in zip(tiles, varied, strict=True)]
    assert sum(untouched) / 400 == pytest.approx(0.75, abs=0.07)


def test_softened_tiles_lose_detail_and_keep_their_place_and_brightness():
    """Square rings, the same however they are turned, stay where they are; noise of single pixels fades."""
    across = (torch.arange(32) - 15.5).abs()
    ring = torch.maximum(across[:, None], across) // 8
    tiles = (50 + 150 * ring + torch.rand(64, 1, 32, 32, generator=generator(5)) * 20).clamp(0, 255)
    soft = augment(tiles, replace(STILL, max_scale=1.3, soften_share=1.0), generator())
    torch.testing.assert_close(soft.mean(dim=(1, 2, 3)), tiles.mean(dim=(1, 2, 3)), rtol=0.02, atol=0)
    inside = soft[..., 12:20, 12:20]  # of the inner ring, away from its edge
    assert ((inside > 50) & (inside < 70)).all()
    assert inside.std() < 0.8 * tiles[..., 12:20, 12:20].std()


def test_each_band_has_more_or_less_fine_detail_within_the_stated_bounds():
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 40.0 + 100
    tiles = board.expand(400, 3, 32, 32)
    varied = augment(tiles, replace(STILL, band_detail=0.25), generator())
    inner = varied[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inner.mean((2, 3)), torch.full((400, 3), 120.0))
    # Of a chessboard, a ninth is in the mean of 3 x 3 pixels and the rest is detail.
    factor = ((inner.amax((2, 3)) - inner.amin((2, 3))) / 40 * 9 - 1) / 8
    assert 0.75 <= factor.min() < 0.77
    assert 1.23 < factor.max() <= 1.25
    assert abs(factor.mean() - 1) < 0.02
    assert torch.corrcoef(factor.T).fill_diagonal_(0).abs().max() < 0.15  # each band by itself


def test_ground_without_detail_gets_none():
    tiles = torch.full((8, 3, 16, 16), 77.0)
    assert torch.equal(augment(tiles, replace(STILL, band_detail=0.5), generator()), tiles)


def test_radiometry_stays_within_the_stated_bounds():
    options = replace(STILL, gain=0.1, band_gain=0.05, band_offset=0.005)
    tiles = torch.full((500, 3, 4, 4), 100.0)
    varied = augment(tiles, options, generator())
    assert varied.min() >= 100 * 0.9 * 0.95 - 5 - 1e-3
    assert varied.max() <= 100 * 1.1 * 1.05 + 5 + 1e-3
    assert varied.min() < 90  # and the bounds are used
    assert varied.max() > 110
    flat = varied.flatten(2)
    assert torch.equal(flat.amin(2), flat.amax(2))  # the same for every pixel of a band
    assert (varied[:, 0] != varied[:, 1]).any()  # but not for every band


@pytest.mark.parametrize("limits", [(1.0, 255.0), (0.0, 10_000.0)])
def test_values_stay_within_those_that_a_scene_is_clipped_to(limits):
    scaling = Scaling((0.0, 1.0), limits)
    tiles = random_tiles(64).clamp(*limits) * limits[1] / 255
    varied = augment(tiles, AugmentOptions(gain=0.5, band_offset=0.2), generator(), scaling)
    assert (varied.min(), varied.max()) == limits


def test_the_same_haze_is_the_same_reflectance_whatever_it_was_stretched_to():
    options = replace(STILL, gain=0.1, band_gain=0.05, band_offset=0.01)
    reflectance = torch.rand(32, 3, 8, 8, generator=generator(3)) * 0.15 + 0.05
    varied = []
    for scaling in (
        Scaling((0.0, 0.275), (1.0, 255.0)),
        Scaling((0.0, 1.0), (0.0, 10_000.0)),
        Scaling((0.02, 0.9), (1.0, 255.0)),
    ):
        (dark, bright), (low, high) = scaling.reflectance, scaling.values
        stretch = (high - low) / (bright - dark)
        values = augment((reflectance - dark) * stretch + low, options, generator(), scaling)
        varied.append((values - low) / stretch + dark)
    torch.testing.assert_close(varied[0], varied[1])
    torch.testing.assert_close(varied[0], varied[2])


def test_crops_are_pieces_of_their_tile_at_native_sharpness():
    tiles = numbered_tiles(200, 32)
    crops = random_crop(tiles, 24, generator())
    assert crops.shape == (200, 1, 24, 24)
    for crop in crops[:, 0].long():
        row, column = divmod(crop[0, 0].item(), 32)
        assert torch.equal(crop, tiles[0, 0, row : row + 24, column : column + 24].long())
    corners = crops[:, 0, 0, 0].long()
    assert set((corners // 32).tolist()) == set((corners % 32).tolist()) == set(range(9))


def test_a_crop_of_the_whole_tile_is_the_tile():
    tiles = random_tiles()
    assert torch.equal(random_crop(tiles, 32, generator()), tiles)
