"""Scores against hand-made numbers, bundles evaluated on folders of tiles, and the command for it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from cli import main
from pipeline.errors import TrainingError
from pipeline.model import torch_engine
from pipeline.model.card import ModelCard
from pipeline.model.classes import number_classes
from pipeline.model.network import build_network
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network, save_bundle
from pipeline.options import PredictorOptions
from pipeline.training.dataset import TileSet, load_tiles
from pipeline.training.evaluate import (
    Evaluation,
    evaluate_bundle,
    evaluate_tiles,
    evaluate_with,
    measure_tta,
)
from pipeline.values import Scaling
from tests.support.cards import RGB_CARD
from tests.support.tiles import make_tiles

# Six tiles: A, A, A (one taken for B), B, B (one taken for C), C never right nor wrong: it has no tile.
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.0, 0.1, 0.9]], np.float32
)
EVALUATION = Evaluation(PROBABILITIES, np.array([0, 0, 0, 1, 1]), ("A", "B", "C"), ("a", "b", "c", "d", "e"))


def test_accuracy_and_predictions():
    assert EVALUATION.predicted.tolist() == [0, 0, 1, 1, 2]
    assert EVALUATION.accuracy == pytest.approx(3 / 5)


def test_confusion_has_a_row_a_true_class():
    assert EVALUATION.confusion().tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_summary_gives_the_scores_of_each_class():
    summary = EVALUATION.summary()
    assert summary["tiles"] == 5
    assert summary["accuracy"] == 0.6
    assert summary["macro_f1"] == 0.65  # of A and B: C has no tile
    # A: 2 of 2 predicted are right, 2 of 3 found; B: 1 of 2, 1 of 2; C: 0 of 1, none to find.
    assert summary["classes"] == {
        "A": {"precision": 1.0, "recall": 0.6667, "f1": 0.8, "tiles": 3},
        "B": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "tiles": 2},
        "C": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "tiles": 0},
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return an untrained model of four classes, of which the tiles have three."""
    card = ModelCard(
        name="untrained",
        architecture="resnet18",
        head="linear",
        bands=("B04", "B03", "B02"),
        level="l1c",
        scaling=Scaling((0.0, 0.275), (1.0, 255.0)),
        mean=(90.0, 90.0, 90.0),
        std=(40.0, 40.0, 40.0),
        tile_size=32,
        gsd=10.0,
        classes=number_classes(["Bog", "Field", "Forest", "Water"]),
        temperature=2.0,
    )
    torch.manual_seed(0)
    return save_bundle(
        build_network("resnet18", bands=3, classes=4), card, tmp_path_factory.mktemp("m") / "untrained"
    )


def test_labels_are_numbered_as_the_models_classes_are(bundle, tmp_path):
    evaluation = evaluate_bundle(bundle, make_tiles(tmp_path / "tiles", 5))
    assert evaluation.classes == ("Bog", "Field", "Forest", "Water")
    assert evaluation.labels.tolist() == [1] * 5 + [2] * 5 + [3] * 5
    assert evaluation.names[0] == "Field/Field_0.png"
    assert evaluation.confusion().shape == (4, 4)


def test_probabilities_are_those_of_the_calibrated_network(bundle, tmp_path, monkeypatch):
    # The precision that is fastest differs from processor to processor; this is about the rest.
    monkeypatch.setattr(torch_engine, "find_precision", lambda requested, device: torch.float32)
    tiles = load_tiles(make_tiles(tmp_path / "tiles", 3))
    probabilities = evaluate_tiles(bundle, tiles).probabilities
    with torch.no_grad():
        logits = load_network(bundle)((tiles.images.float() - 90) / 40)
    np.testing.assert_allclose(probabilities, (logits / 2).softmax(dim=1), atol=1e-4)
    assert probabilities.dtype == np.float32


def test_named_tiles_alone_are_evaluated(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 5)
    evaluation = evaluate_bundle(bundle, folder, ["Water/Water_1.png", "Forest/Forest_0.png"])
    assert evaluation.labels.tolist() == [3, 2]


def test_a_class_folder_that_the_model_does_not_know_is_named(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 2, colors={"Forest": (0, 90, 0), "Lava": (200, 30, 0)})
    with pytest.raises(TrainingError, match=r"'Lava' is not one of the model's classes \(Bog, Field"):
        evaluate_bundle(bundle, folder)


def test_tiles_of_another_size_are_refused(bundle, tmp_path):
    with pytest.raises(TrainingError, match="tiles are 16 pixels wide; the model takes 32"):
        evaluate_bundle(bundle, make_tiles(tmp_path / "tiles", 2, size=16))


TINY_CARD = replace(RGB_CARD, tile_size=8, classes=number_classes(["Dark", "Bright"]))


class Brightness(nn.Module):
    """Dark below 100 on the mean of the first band, Bright above."""

    def forward(self, x):
        mean = x[:, 0].mean(dim=(1, 2))
        return torch.stack([100 - mean, mean - 100], dim=1)


class UpperLeft(nn.Module):
    """Says Bright if the upper left pixel is: an answer that depends on how the tile lies."""

    def forward(self, x):
        return torch.stack([100 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 100], dim=1) / 100


def tile_set(images, names, bands=None):
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    labels = torch.tensor([classes.index(name.split("/")[0]) for name in names])
    return TileSet(torch.from_numpy(images), labels, classes, tuple(names), bands)


def on_cpu(network, card=TINY_CARD):
    return Predictor(network.eval(), card, PredictorOptions(device="cpu", precision="float32"))


def test_values_beyond_the_scaling_are_clipped_as_classify_does():
    """Half of the pixels hold 30,000: unclipped, their mean is Bright by far; clipped to 150, Dark."""
    card = replace(TINY_CARD, scaling=Scaling((0.0, 1.0), (0.0, 150.0)))
    images = np.zeros((1, 3, 8, 8), np.int16)
    images[:, :, :4] = 30_000
    evaluation = evaluate_with(on_cpu(Brightness(), card), tile_set(images, ["Dark/1.tif"]))
    assert evaluation.accuracy == 1


def test_digital_numbers_become_what_the_model_was_trained_on():
    """500 is reflectance 0.05, which EuroSAT's pictures show as 47: Dark, though 500 is above 100."""
    images = np.full((1, 3, 8, 8), 500, np.int16)
    assert evaluate_with(on_cpu(Brightness()), tile_set(images, ["Dark/1.tif"])).accuracy == 1


def test_tiles_with_other_bands_than_the_models_are_refused():
    tiles = tile_set(np.zeros((1, 3, 8, 8), np.int16), ["Dark/1.tif"], ("B02", "B03", "B04"))
    with pytest.raises(TrainingError, match="tiles hold the bands B02, B03, B04; the model takes B04"):
        evaluate_with(on_cpu(Brightness()), tiles)


def test_flips_and_rotations_are_averaged_and_their_cost_measured():
    """A tile with a bright corner: two of its eight views have it at the upper left, six do not."""
    images = np.zeros((40, 3, 8, 8), np.uint8)
    images[:, :, 0, 0] = 200
    tiles = tile_set(images, [f"Dark/{i}.png" for i in range(40)])
    predictor = on_cpu(UpperLeft())
    assert evaluate_with(predictor, tiles).accuracy == 0
    gain = measure_tta(predictor, tiles)
    assert gain.accuracy == 1
    assert gain.slowdown > 0


def evaluate(*arguments):
    return CliRunner().invoke(main, ["evaluate", "--device", "cpu", *map(str, arguments)])


def test_the_command_measures_a_folder_and_reports(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 4)
    names = tmp_path / "names.txt"
    names.write_text("Field/Field_0.png\nForest/Forest_1.png\nWater/Water_2.png\n")
    shared = ("--data", folder, "--model", bundle.path, "--names", names)
    result = evaluate(*shared, "--tta", "--robustness", "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["tiles"] == 3
    for text in ("on 3 tiles", "times the time", "half a pixel", "as L2A", "cloud over all"):
        assert text in result.output
    assert len(report["robustness"]) == 12
    assert (tmp_path / "report" / "report.html").is_file()
    as_json = json.loads(evaluate(*shared, "--json").stdout)
    assert "robustness" not in as_json
    assert as_json["accuracy"] == report["accuracy"]


def test_raw_tiles_alone_are_wrong_use(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 2)
    result = evaluate("--data", folder, "--model", bundle.path, "--raw-tiles", folder)
    assert result.exit_code == 2
    assert "--robustness" in result.stderr


def test_unreadable_tiles_are_left_out_if_that_is_asked_for(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 2)
    (folder / "Water" / "Water_1.png").write_bytes(b"broken")
    measured = ("--data", folder, "--model", bundle.path)
    assert "--skip-unreadable" in evaluate(*measured).stderr
    result = evaluate(*measured, "--skip-unreadable")
    assert result.exit_code == 0, result.stderr
    assert "on 5 tiles" in result.stdout


def test_tiles_that_the_model_was_trained_on_are_reported(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 2)
    model = tmp_path / "model"
    shutil.copytree(bundle.path, model)
    (model / "split-train.txt").write_text("Field/Field_0.jpg\nWater/Water_1.jpg\n")
    (model / "split-val.txt").write_text("Forest/Forest_1.png\n")
    assert "trained on 2 of the 6 tiles" in evaluate("--data", folder, "--model", model).stderr
    assert "were chosen by 1 of the 6 tiles" in evaluate("--data", folder, "--model", model).stderr
    chose = evaluate("--data", folder, "--model", model, "--names", model / "split-val.txt")
    assert chose.exit_code == 0
    assert "trained on" not in chose.stderr
    assert "chosen by 1 of the 1 tiles" in chose.stderr
    (model / "split-report.txt").write_text("Water/Water_0.png\n")
    assert "--names " + str(model / "split-report.txt") in evaluate("--data", folder, "--model", model).stderr
    fair = evaluate("--data", folder, "--model", model, "--names", model / "split-report.txt")
    assert fair.exit_code == 0
    assert "better than it is" not in fair.stderr
