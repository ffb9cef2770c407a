"""What a batch becomes before the network sees it: mixed tiles and targets."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import pipeline.training.objective as module
from pipeline.model.bundle import load_bundle
from pipeline.model.network import build_network
from pipeline.model.weights import load_network, save_bundle
from pipeline.training.distributed import Team
from pipeline.training.objective import Objective
from pipeline.training.recipe import Recipe, Stage
from tests.support.cards import TINY_CARD
from tests.support.networks import add_tiny_network

ALONE = Team(torch.device("cpu"))
RECIPE = Recipe("r", "tiny", stages=(Stage(1, 32),), precision="float32", label_smoothing=0.1)
CARD = replace(TINY_CARD, name="teacher")
LABELS = torch.tensor([0, 2, 1, 1])


@pytest.fixture
def values():
    torch.manual_seed(0)
    return torch.rand(4, 3, 32, 32) * 254 + 1


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_network(patch)
        folder = tmp_path_factory.mktemp("models") / "teacher"
        yield save_bundle(build_network("tiny", bands=3, classes=3).eval(), CARD, folder).path


def test_labels_are_smoothed(values):
    shown, targets, labels = Objective(RECIPE, CARD, ALONE)(values, LABELS)
    assert torch.equal(shown, values)
    assert torch.equal(labels, LABELS)
    torch.testing.assert_close(targets[0], torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]))


def test_a_teacher_moves_the_targets_as_far_as_its_weight_says(values, teacher):
    _, alone, _ = Objective(RECIPE, CARD, ALONE)(values, LABELS)
    recipe = replace(RECIPE, teacher=str(teacher), teacher_weight=0.25)
    _, taught, _ = Objective(recipe, CARD, ALONE)(values, LABELS)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (CARD.mean, CARD.std))
    with torch.no_grad():
        opinion = load_network(load_bundle(teacher))((values - mean) / std).softmax(dim=1)
    torch.testing.assert_close(taught, 0.75 * alone + 0.25 * opinion)
    torch.testing.assert_close(taught.sum(dim=1), torch.ones(4))


def test_mixup_mixes_tiles_and_labels_in_the_same_shares(values):
    torch.manual_seed(1)
    recipe = replace(RECIPE, mixup=1.0, label_smoothing=0.0)
    shown, targets, labels = Objective(recipe, CARD, ALONE)(values, LABELS)
    share = targets[0, 0]  # of the first tile in itself; the rest is the last one's
    assert 0 < share < 1
    torch.testing.assert_close(shown[0], share * values[0] + (1 - share) * values[3])
    torch.testing.assert_close(targets[0], torch.tensor([share, 1 - share, 0]))
    assert labels[0] == (0 if share > 0.5 else 1)


def test_cutmix_puts_a_piece_of_another_tile_in_and_counts_its_pixels(values):
    torch.manual_seed(3)
    recipe = replace(RECIPE, cutmix=1.0, label_smoothing=0.0)
    shown, targets, _ = Objective(recipe, CARD, ALONE)(values, LABELS)
    own = (shown[0] == values[0]).all(dim=0)
    other = (shown[0] == values[3]).all(dim=0)
    assert (own ^ other).all()
    assert 0 < own.float().mean() < 1
    torch.testing.assert_close(targets[0, 0], own.float().mean())


def test_with_both_some_batches_are_mixed_and_some_cut(values):
    torch.manual_seed(0)
    objective = Objective(replace(RECIPE, mixup=1.0, cutmix=1.0), CARD, ALONE)
    pixels = {bool(torch.isin(objective(values, LABELS)[0], values).all()) for _ in range(20)}
    assert pixels == {True, False}


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_the_teacher_sees_the_tiles_mixed_as_the_student_does(values, monkeypatch, mixing):
    asked = []

    def teach(tiles):
        asked.append(tiles)
        return torch.full((4, 3), 1 / 3)

    monkeypatch.setattr(module, "load_teacher", lambda *arguments: teach)
    shown, _, _ = Objective(replace(RECIPE, teacher="any", **mixing), CARD, ALONE)(values, LABELS)
    assert not torch.equal(shown, values)
    assert torch.equal(asked[0], shown)


def test_cached_opinions_are_taken_in_place_of_the_teachers(values, monkeypatch):
    monkeypatch.setattr(module, "load_teacher", lambda *arguments: pytest.fail)  # is not asked
    recipe = replace(RECIPE, teacher="any", teacher_cached=True, teacher_weight=0.25, label_smoothing=0.0)
    opinions = torch.rand(4, 3).softmax(dim=1)
    _, targets, labels = Objective(recipe, CARD, ALONE)(values, LABELS, opinions)
    torch.testing.assert_close(targets, 0.75 * F.one_hot(LABELS, 3) + 0.25 * opinions)
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_cached_opinions_are_mixed_as_the_tiles_are(values, monkeypatch, mixing):
    monkeypatch.setattr(module, "load_teacher", lambda *arguments: pytest.fail)
    recipe = replace(RECIPE, teacher="any", teacher_cached=True, teacher_weight=1.0, **mixing)
    opinions = F.one_hot(LABELS, 3).float()  # so that mixed opinions are what mixed labels would be
    torch.manual_seed(1)
    shown, targets, _ = Objective(recipe, CARD, ALONE)(values, LABELS, opinions)
    torch.manual_seed(1)
    expected_shown, expected, _ = Objective(replace(RECIPE, label_smoothing=0.0, **mixing), CARD, ALONE)(
        values, LABELS
    )
    assert torch.equal(shown, expected_shown)
    torch.testing.assert_close(targets, expected)


def test_a_share_of_the_batch_becomes_mosaics(values):
    torch.manual_seed(0)
    recipe = replace(RECIPE, mosaic_share=0.5, label_smoothing=0.0)
    shown, targets, labels = Objective(recipe, CARD, ALONE)(values, LABELS)
    assert (shown[:2] != values[:2]).flatten(1).any(dim=1).any()
    assert torch.equal(shown[2:], values[2:])
    assert torch.equal(targets[2:], F.one_hot(LABELS[2:], 3).float())
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    assert torch.equal(labels, targets.argmax(dim=1))


def test_a_mosaics_class_is_that_of_most_of_its_area_whatever_the_teacher_says(values, monkeypatch):
    torch.manual_seed(0)
    _, by_area, _ = Objective(replace(RECIPE, mosaic_share=1.0, label_smoothing=0.0), CARD, ALONE)(
        values, LABELS
    )
    monkeypatch.setattr(module, "load_teacher", lambda *arguments: pytest.fail)
    recipe = replace(RECIPE, mosaic_share=1.0, teacher="any", teacher_cached=True, teacher_weight=0.9)
    torch.manual_seed(0)
    _, _, labels = Objective(recipe, CARD, ALONE)(values, LABELS, torch.full((4, 3), 1 / 3))
    assert torch.equal(labels, by_area.argmax(dim=1))


def test_outliers_are_covered_and_all_classes_are_right_for_them(values, teacher):
    torch.manual_seed(0)
    recipe = replace(RECIPE, outlier_share=0.5, teacher=str(teacher))
    shown, targets, labels = Objective(recipe, CARD, ALONE)(values, LABELS)
    assert torch.equal(shown[:2], values[:2])
    assert (shown[2:] != values[2:]).flatten(1).any(dim=1).all()
    torch.testing.assert_close(targets[2:], torch.full((2, 3), 1 / 3))
    assert labels.tolist() == [0, 2, -1, -1]
    assert shown.min() >= 1
    assert shown.max() <= 255


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_share_the_outliers_of_a_batch(values, size):
    recipe = replace(RECIPE, outlier_share=0.2)  # of 16 tiles three
    outliers = 0
    for rank in range(size):
        share = values.repeat(4 // size, 1, 1, 1)
        objective = Objective(recipe, CARD, replace(ALONE, rank=rank, size=size))
        _, _, labels = objective(share, LABELS.repeat(4 // size))
        outliers += (labels == -1).sum()
    assert outliers == 3
