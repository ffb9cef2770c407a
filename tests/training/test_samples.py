"""Sample predictions: which tiles, in which order, in which colors."""

from dataclasses import replace

import torch

from pipeline.training import samples
from pipeline.training.samples import choose_samples
from tests.support.evaluations import CLASSES, made_up


def test_the_most_confident_mistakes_come_first_and_apart_from_what_is_right():
    evaluation, tiles = made_up(100, wrong=30)
    groups = choose_samples(evaluation, tiles)
    right, mistakes = groups.values()
    assert list(groups) == ["Right, drawn at random from every class", "The most confident mistakes"]
    assert len(right) == len(mistakes) == samples.SAMPLES
    assert all(sample.right for sample in right)
    assert not any(sample.right for sample in mistakes)
    assert [round(sample.confidence, 2) for sample in mistakes[:3]] == [0.95, 0.94, 0.93]
    assert [sample.name for sample in mistakes] == list(evaluation.names[: samples.SAMPLES])
    # One of each class, then another of each.
    assert [sample.true for sample in right[:6]] == [*CLASSES, *CLASSES]


def test_multispectral_tiles_are_shown_in_natural_colors():
    evaluation, tiles = made_up(3, wrong=0)
    images = torch.zeros((3, 4, 32, 32), dtype=torch.int16)
    images[:, 2], images[:, 0] = 2750, 5000  # B04 at white, B02 beyond
    tiles = replace(tiles, images=images, bands=("B02", "B03", "B04", "B08"))
    (samples,) = choose_samples(evaluation, tiles).values()
    assert samples[0].picture[0, 0].tolist() == [255, 1, 255]


def test_tiles_without_colors_are_grey():
    evaluation, tiles = made_up(3, wrong=0)
    tiles = replace(tiles, images=tiles.images[:, :2], bands=("B08", "B11"))
    (samples,) = choose_samples(evaluation, tiles).values()
    assert (samples[0].picture[..., 0] == samples[0].picture[..., 2]).all()
