"""The best epoch is kept, and measured on tiles that did not choose it."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import pipeline.training.validate as validating
from pipeline.training.evaluate import evaluate_bundle
from pipeline.training.recipe import Stage
from pipeline.training.train import train
from tests.support.training import ONE_EPOCH, RECIPE, history_of

pytestmark = pytest.mark.usefixtures("tiny_training")


@pytest.fixture
def validations(monkeypatch):
    """Return a function that makes validation say the accuracies and losses given, one after the other.

    It returns the list of the weights that were kept.
    """

    def say(*scores: tuple[float, float]) -> list[dict[str, torch.Tensor]]:
        said, kept = iter(scores), []
        save, measure = validating.save_bundle, validating.evaluate_with

        class Said:
            def __init__(self, evaluation):
                self.accuracy, self.cross_entropy = next(said)
                self.probabilities, self.labels = evaluation.probabilities, evaluation.labels
                self.summary = evaluation.summary

        def remember(network, card, path):
            kept.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
            return save(network, card, path)

        monkeypatch.setattr(validating, "evaluate_with", lambda *arguments: Said(measure(*arguments)))
        monkeypatch.setattr(validating, "save_bundle", remember)
        return kept

    return say


def test_the_card_states_the_figures_on_the_report_tiles(tiles, tmp_path, three_parts):
    bundle = train(tiles, RECIPE, tmp_path)
    _, validation, report = three_parts
    metrics = bundle.card.metrics
    assert metrics["split"] == "report"
    assert metrics.items() >= evaluate_bundle(bundle, tiles, report).summary().items()
    chosen_by = evaluate_bundle(bundle, tiles, validation)
    assert metrics["choose"] == {"tiles": 15, "accuracy": round(chosen_by.accuracy, 5)}
    best = max(float(row["validation_accuracy"]) for row in history_of(tmp_path))
    assert chosen_by.accuracy == pytest.approx(best, abs=0.1)  # the epoch was chosen by the other tiles
    assert (tmp_path / "split-report.txt").read_text().split() == report


def test_the_report_tiles_change_nothing_but_the_figures(tiles, tmp_path, three_parts):
    with_report = train(tiles, RECIPE, tmp_path / "with").card
    (tiles / "split-report.txt").unlink()
    without = train(tiles, RECIPE, tmp_path / "without").card
    assert (with_report.digest, with_report.temperature) == (without.digest, without.temperature)
    assert without.metrics["split"] == "validation"
    assert "choose" not in without.metrics
    assert not (tmp_path / "without" / "split-report.txt").exists()


def test_the_report_tiles_are_kept_by_what_builds_on_the_model(tiles, tmp_path, three_parts, caplog):
    train(tiles, RECIPE, tmp_path / "first")
    for path in tiles.glob("split-*.txt"):
        path.unlink()
    recipe = replace(RECIPE, initial_weights=str(tmp_path / "first"), **ONE_EPOCH)
    assert train(tiles, recipe, tmp_path / "second").card.metrics["split"] == "report"
    assert (tmp_path / "second" / "split-report.txt").read_text().split() == three_parts[2]
    assert "look better" not in caplog.text


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 1.0), (0.9, 1.0), (0.9, 1.0)], 2),  # of equals the first
        ([(0.5, 1.0), (0.9, 1.0), (0.9, 0.9)], 3),  # of equally right ones the surer
        ([(0.9, 1.0), (0.8, 0.1), (0.7, 0.1)], 1),
        ([(0.0, 1.0), (0.0, 2.0), (0.0, 2.0)], 1),  # even one that is always wrong
    ],
)
def test_the_best_epoch_is_kept(tiles, tmp_path, validations, scores, best):
    kept = validations(*scores)
    bundle = train(tiles, RECIPE, tmp_path)
    assert bundle.card.training["best_epoch"] == best
    weights = load_file(tmp_path / "model.safetensors")
    assert torch.equal(weights["conv1.weight"], kept[-1]["conv1.weight"].half())


def test_patience_ends_a_run_that_gets_no_better(tiles, tmp_path, validations):
    validations((0.5, 1.0), (0.6, 1.0), (0.6, 1.0), (0.5, 0.9))
    bundle = train(tiles, replace(RECIPE, stages=(Stage(9, 24),), patience=2), tmp_path)
    assert len(history_of(tmp_path)) == 4
    assert bundle.card.training["best_epoch"] == 2


def test_patience_waits_for_the_stage_that_unfreezes(tiles, tmp_path, validations):
    validations((0.5, 1.0), (0.5, 1.0), (0.5, 1.0), (0.6, 1.0), (0.6, 1.0))
    stages = (Stage(3, 24, freeze=True), Stage(9, 24))
    train(tiles, replace(RECIPE, stages=stages, patience=1), tmp_path)
    assert len(history_of(tmp_path)) == 5


def test_validation_every_few_epochs_leaves_gaps_but_ends_with_one(tiles, tmp_path):
    train(tiles, replace(RECIPE, stages=(Stage(3, 24),), evaluate_every=2), tmp_path)
    assert [bool(row["validation_accuracy"]) for row in history_of(tmp_path)] == [False, True, True]
