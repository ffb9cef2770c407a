"""Mosaics of tiles: targets by the area that each tile takes up."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.training.mosaic import add_mosaics, half_planes


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tiles() -> torch.Tensor:
    """Return 16 tiles, each of which holds its own number in every pixel."""
    return torch.arange(16.0)[:, None, None, None].expand(16, 3, 20, 20).clone()


TARGETS = F.one_hot(torch.arange(16), 16).float()
"""Each tile is a class of its own, so that a mosaic's target says which tiles it should show."""


def test_targets_are_the_shares_of_the_pixels(tiles):
    values, targets = add_mosaics(tiles, TARGETS, 16, seeded())
    for tile, target in zip(values[:, 0], targets, strict=True):
        shares = torch.tensor([(tile == number).float().mean() for number in range(16)])
        # With a third tile, area is taken as if the lines did not depend on each other.
        torch.testing.assert_close(shares[target > 0].sum(), torch.tensor(1.0))
    for tile, target in zip(values[8:, 0], targets[8:], strict=True):  # of two tiles: exactly
        shares = torch.tensor([(tile == number).float().mean() for number in range(16)])
        torch.testing.assert_close(target, shares)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(16))


def test_mosaics_show_two_or_three_tiles(tiles):
    values, _ = add_mosaics(tiles, TARGETS, 16, seeded())
    counts = {len(tile.unique()) for tile in values}
    assert max(counts) == 3
    assert 2 in counts


@pytest.mark.parametrize("count", [0, 5, 16])
def test_tiles_beyond_the_count_are_left_as_they_are(tiles, count):
    before = tiles.clone(), TARGETS.clone()
    values, targets = add_mosaics(tiles, TARGETS, count, seeded())
    assert torch.equal(values[count:], tiles[count:])
    assert torch.equal(targets[count:], TARGETS[count:])
    assert (values[:count] != tiles[:count]).any() == bool(count)
    assert torch.equal(tiles, before[0])  # nothing is changed in place
    assert torch.equal(TARGETS, before[1])
    assert values.dtype == targets.dtype == torch.float32


def test_the_generator_alone_decides(tiles):
    first = add_mosaics(tiles, TARGETS, 8, seeded(1))
    torch.manual_seed(1234)
    again = add_mosaics(tiles, TARGETS, 8, seeded(1))
    other = add_mosaics(tiles, TARGETS, 8, seeded(2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ],
)
def test_mosaics_are_the_same_on_every_device(tiles, device):
    expected = add_mosaics(tiles, TARGETS, 8, seeded())
    values, targets = add_mosaics(tiles.to(device), TARGETS.to(device), 8, seeded())
    assert values.device.type == targets.device.type == device
    torch.testing.assert_close(values.cpu(), expected[0])
    torch.testing.assert_close(targets.cpu(), expected[1])


def test_lines_leave_slivers_as_well_as_halves():
    masks = half_planes(2000, 32, seeded())
    assert masks.shape == (2000, 32, 32)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    shares = masks.mean(dim=(1, 2))
    assert abs(shares.mean() - 0.5) < 0.02
    assert (shares < 0.1).float().mean() > 0.05
    assert ((shares > 0.4) & (shares < 0.6)).float().mean() > 0.1
