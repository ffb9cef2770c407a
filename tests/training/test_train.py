"""Training: that it learns, keeps the best model, says what it did, and refuses what cannot work."""

import csv
import json
import logging
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import pipeline.training.train as loop
from pipeline.errors import ModelError, OutputError, TrainingError, UsageError
from pipeline.model.bundle import load_bundle
from pipeline.model.weights import load_network
from pipeline.training.augment import AugmentOptions
from pipeline.training.evaluate import evaluate_bundle
from pipeline.training.recipe import Recipe, Stage, load_recipe
from pipeline.training.report import write_report
from pipeline.training.train import train
from pipeline.values import Scaling
from tests.support.networks import add_tiny_network
from tests.support.tiles import COLORS, make_multispectral, make_tiles, write_split

ROOT = Path(__file__).parents[2]

RECIPE = Recipe(
    name="tiny",
    architecture="tiny",
    stages=(Stage(1, 24), Stage(2, 32)),
    dropout=0.1,  # draws from the global random numbers, which a resumed run must find as they were
    optimizer="adamw",
    learning_rate=0.01,
    warmup_epochs=1,
    batch_size=16,
    ema_decay=0.8,
    validation_share=0.25,
    precision="float32",
    level="l2a",
    gsd=2.5,
    scaling=Scaling((0.0, 0.4), (0.0, 200.0)),
    license="CC-BY-4.0",
)
ONE_EPOCH = {"stages": (Stage(1, 32),), "warmup_epochs": 0}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """An epoch here is of five steps, fewer than there are between two averagings of a true run."""
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_network(patch)
        patch.setattr(loop, "EMA_EVERY", 1)
        yield


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return make_tiles(tmp_path_factory.mktemp("data") / "tiles", per_class=40)


@pytest.fixture(scope="module")
def trained(tiny, tiles, tmp_path_factory):
    """Return the folder of a run with all that belongs to it."""
    output = tmp_path_factory.mktemp("runs") / "trained"
    train(tiles, RECIPE, output)
    return output


@pytest.fixture(autouse=True)
def no_plots(trained, monkeypatch):
    """Plots take longer than training; the run above has them."""
    monkeypatch.setattr(loop, "write_report", lambda *arguments: None)


def history_of(output: Path) -> list[dict[str, str]]:
    with (output / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_learns(tiles, trained):
    bundle = load_bundle(trained)
    assert bundle.card.metrics["accuracy"] > 0.9
    assert [c.name for c in bundle.card.classes] == sorted(COLORS)
    assert evaluate_bundle(bundle, tiles).accuracy > 0.9


def test_the_card_says_how_it_was_trained_and_what_the_bundle_reaches(tiles, trained):
    card = load_bundle(trained).card
    names = (trained / "split-val.txt").read_text().split()
    reached = evaluate_bundle(load_bundle(trained), tiles, names).summary()
    assert card.metrics.items() >= {"split": "validation", **reached}.items()
    assert card.training["tiles"] == 90
    assert card.training["split"] == "stratified, seed 0"
    assert card.training["recipe"]["learning_rate"] == 0.01
    assert 1 <= card.training["best_epoch"] <= 3
    assert (card.level, card.gsd, card.license) == ("l2a", 2.5, "CC-BY-4.0")
    assert card.scaling == Scaling((0.0, 0.4), (0.0, 200.0))
    assert card.tile_size == 32
    assert all(30 < value < 160 for value in card.mean)  # measured on the tiles
    assert card.temperature > 0


def test_the_folder_holds_all_that_was_promised(trained):
    promised = {
        *("model.safetensors", "card.json", "checkpoint.pt", "history.csv", "split-train.txt"),
        *("split-val.txt", "report.json", "report.html", "accuracy_loss.png", "confusion_matrix.png"),
        *("sample_predictions.png", "reliability.png"),
    }
    assert {path.name for path in trained.iterdir()} == promised


def test_history_has_a_row_an_epoch(trained):
    rows = history_of(trained)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["size"] for row in rows] == ["24", "32", "32"]
    assert float(rows[-1]["learning_rate"]) == 0
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert all(float(row["validation_accuracy"]) > 0 for row in rows)


# What a recipe may ask for


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.2, "cutmix": 1.0},
        {"schedule": "one_cycle"},
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"optimizer": "sgd", "learning_rate": 0.1, "stages": (Stage(1, 24, freeze=True), Stage(3, 32))},
        {"head": "mlp"},
        {"upsample": 2.0},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"precision": "float16", "optimizer": "sgd", "learning_rate": 0.1},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_it_learns_with_every_option(tiles, tmp_path, changes):
    bundle = train(tiles, replace(RECIPE, **changes), tmp_path)
    assert bundle.card.metrics["accuracy"] > 0.9
    again = train(tiles, replace(RECIPE, **changes), tmp_path / "again")
    assert again.card.digest == bundle.card.digest  # seeded and repeatable


def test_another_seed_is_another_run(tiles, trained, tmp_path):
    assert train(tiles, replace(RECIPE, seed=1), tmp_path).card.digest != load_bundle(trained).card.digest


def test_multispectral_tiles_are_learnt_in_the_bands_that_the_recipe_names(tmp_path):
    tiles = make_multispectral(tmp_path / "tiles", per_class=24)
    recipe = replace(
        RECIPE, bands=("B8A", "B02", "B11"), scaling=Scaling((0, 1.215), (0, 12_150)), **ONE_EPOCH
    )
    card = train(tiles, recipe, tmp_path / "run").card
    assert card.bands == ("B8A", "B02", "B11")
    # make_multispectral: 1000 for each band before it in EuroSAT's order, B8A last, and 100 for each class
    # before it: B8A is 12,000, 12,100 and, clipped, 12,150.
    assert card.mean == pytest.approx((12_085, 1105, 10_105), abs=5)


def test_the_seed_recipe_runs_end_to_end(tmp_path, monkeypatch):
    """All of it but the network, its weights and the size that it enlarges tiles to."""
    tiles = make_tiles(tmp_path / "tiles", per_class=40, size=64)
    recipe = replace(
        load_recipe(ROOT / "configs" / "train-seed.yaml"),
        **{"architecture": "tiny", "initial_weights": None, "upsample": 1.0, "learning_rate": 0.01},
        **{"batch_size": 16, "ema_decay": 0.8},
    )
    kernels = []
    note = loop._note

    def remember(run, row, output):
        kernels.append(run.network.conv1.weight.detach().clone())
        note(run, row, output)

    monkeypatch.setattr(loop, "_note", remember)
    card = train(tiles, recipe, tmp_path / "run").card
    assert len(history_of(tmp_path / "run")) == 10
    assert card.head == "mlp"
    assert card.metrics["accuracy"] > 0.9
    assert torch.equal(kernels[0], kernels[1])  # frozen
    assert not torch.equal(kernels[1], kernels[2])  # then not


def test_a_frozen_stage_leaves_the_backbone_as_it_was(tiles, tmp_path):
    recipe = replace(RECIPE, stages=(Stage(1, 32, freeze=True),), head="mlp", warmup_epochs=0)
    first = load_network(train(tiles, recipe, tmp_path / "one")).state_dict()
    recipe = replace(recipe, stages=(Stage(2, 32, freeze=True),))
    second = load_network(train(tiles, recipe, tmp_path / "two")).state_dict()
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"fc.0.weight", "fc.0.bias", "fc.3.weight", "fc.3.bias"}  # no batch-norm statistics


def test_a_student_learns_from_its_teacher_what_the_labels_do_not_say(tiles, trained, tmp_path):
    """All weight on the teacher and every training tile under a wrong name: only the teacher can be right."""
    wrong = {"Field": "Forest", "Forest": "Water", "Water": "Field"}
    train_names = (trained / "split-train.txt").read_text().split()
    validation_names = (trained / "split-val.txt").read_text().split()
    misnamed = {f"{wrong[name.split('/')[0]]}/{Path(name).name}": name for name in train_names}
    folder = tmp_path / "tiles"
    for target, source in (misnamed | {name: name for name in validation_names}).items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_bytes((tiles / source).read_bytes())
    write_split(folder, sorted(misnamed), validation_names)
    recipe = replace(RECIPE, teacher=str(trained), teacher_weight=1.0)
    student = train(folder, recipe, tmp_path / "student")
    assert evaluate_bundle(student, tiles).accuracy > 0.75  # the labels alone would give 0
    assert student.card.training["recipe"]["teacher"] == "trained"  # its name, not where it lies here


def test_training_goes_on_from_a_bundle_head_and_all(tiles, trained, tmp_path):
    recipe = replace(RECIPE, initial_weights=str(trained), learning_rate=1e-9, **ONE_EPOCH)
    card = train(tiles, recipe, tmp_path).card
    before = load_bundle(trained).card
    assert card.metrics["accuracy"] == before.metrics["accuracy"]
    assert (card.mean, card.std) == (before.mean, before.std)
    assert card.training["recipe"]["initial_weights"] == "trained"
    given, got = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path))
    torch.testing.assert_close(got["fc.1.weight"], given["fc.1.weight"])
    for name in ("split-train.txt", "split-val.txt"):  # and validates on what it has not seen
        assert (tmp_path / name).read_text() == (trained / name).read_text()


def test_tiles_that_the_initial_weights_know_are_no_silent_validation(tiles, trained, tmp_path, caplog):
    recipe = replace(RECIPE, initial_weights=str(trained), seed=5, **ONE_EPOCH)
    train(tiles, recipe, tmp_path, split_method="random")
    assert "accuracy will look better than it is" in caplog.text


def test_a_student_is_validated_on_what_its_teacher_has_not_seen(tiles, trained, tmp_path, caplog):
    train(tiles, replace(RECIPE, teacher=str(trained), seed=5, **ONE_EPOCH), tmp_path)
    assert (tmp_path / "split-val.txt").read_text() == (trained / "split-val.txt").read_text()
    assert "better than it is" not in caplog.text


# The best epoch, and when to stop


@pytest.fixture
def validations(monkeypatch):
    """Return a function that makes validation say the accuracies and losses given, one after the other.

    It returns the list of the weights that were kept.
    """

    def say(*scores: tuple[float, float]) -> list[dict[str, torch.Tensor]]:
        said, kept, save, measure = iter(scores), [], loop.save_bundle, loop.evaluate_with

        class Said:
            def __init__(self, evaluation):
                self.accuracy, self.cross_entropy = next(said)
                self.probabilities, self.labels = evaluation.probabilities, evaluation.labels
                self.summary = evaluation.summary

        def remember(network, card, path):
            kept.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
            return save(network, card, path)

        monkeypatch.setattr(loop, "evaluate_with", lambda *arguments: Said(measure(*arguments)))
        monkeypatch.setattr(loop, "save_bundle", remember)
        return kept

    return say


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


# TensorBoard


def test_tensorboard_shows_the_history(tiles, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tiles, RECIPE, tmp_path, events=True)
    shown = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for tag, column in (("loss/train", "train_loss"), ("accuracy/validation", "validation_accuracy")):
        points = [(point.step, pytest.approx(point.value)) for point in shown.Scalars(tag)]
        assert [(int(row["epoch"]), float(row[column])) for row in history_of(tmp_path)] == points


def test_tensorboard_that_is_not_installed_is_told_before_training(tiles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UsageError, match="`tensorboard` needs the package tensorboard"):
        train(tiles, RECIPE, tmp_path / "run", events=True)
    assert not (tmp_path / "run").exists()


# What cannot work


def test_an_unreadable_tile_is_named_or_left_out_of_the_split(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", per_class=40)
    (tiles / "Water" / "Water_7.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"Water_7\.png cannot be read"):
        train(tiles, replace(RECIPE, **ONE_EPOCH), tmp_path / "run")
    train(tiles, replace(RECIPE, **ONE_EPOCH), tmp_path / "run", skip_unreadable=True)
    split = (tmp_path / "run" / "split-train.txt").read_text() + (
        tmp_path / "run" / "split-val.txt"
    ).read_text()
    assert len(split.split()) == 119
    assert "Water_7.png" not in split


def test_a_class_missing_from_validation_is_named(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", 10)
    names = sorted(str(path.relative_to(tiles)) for path in tiles.glob("*/*.png"))
    validation = [name for name in names if name.endswith("_1.png") and not name.startswith("Water")]
    write_split(tiles, [name for name in names if name not in validation], validation)
    with pytest.raises(TrainingError, match="class 'Water' is in only one of training and validation"):
        train(tiles, RECIPE, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 100}, "90 training tiles do not fill a batch of 100"),
        ({"bands": ("B04", "B03", "B02", "B08")}, "B04, B03, B02, B08 are wanted"),
        ({"stages": (Stage(2, 64),)}, "a stage at 64 pixels; the tiles are 32 pixels wide"),
        ({"augment": AugmentOptions(max_shift=32)}, "max_shift must be less than the tiles' width, 32"),
    ],
)
def test_a_recipe_that_the_tiles_do_not_suit_is_told(tiles, tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        train(tiles, replace(RECIPE, **changes), tmp_path)


def test_a_band_that_says_nothing_is_named(tmp_path):
    tiles = make_multispectral(tmp_path / "tiles", per_class=24)
    recipe = replace(RECIPE, bands=("B02", "B03", "B12"), scaling=Scaling((0, 1), (0, 10_000)))
    with pytest.raises(TrainingError, match="band B12 is 10000 all over in training tiles"):
        train(tiles, recipe, tmp_path / "run")


def test_one_class_alone_is_refused(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", 40, colors={"Forest": (50, 110, 60)})
    with pytest.raises(TrainingError, match="There are 1 classes"):
        train(tiles, RECIPE, tmp_path / "run")


def test_values_scaled_to_small_ones_are_standardised(tmp_path):
    """A band may vary by half a thousandth of its scale; to three decimals that would be nothing."""
    tiles = make_multispectral(tmp_path / "tiles", per_class=24)
    recipe = replace(RECIPE, bands=("B02", "B03", "B04"), scaling=Scaling((0, 20), (0, 1)), **ONE_EPOCH)
    card = train(tiles, recipe, tmp_path / "run").card
    assert card.mean == pytest.approx((0.0055, 0.0105, 0.0155), abs=3e-4)
    assert all(0 < std < 1e-3 for std in card.std)


def test_too_little_memory_names_what_to_lower(tiles, tmp_path, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "_train_epoch", full)
    with pytest.raises(
        TrainingError, match=r"memory of cpu does not hold a batch of 16: lower .* batch_size"
    ):
        train(tiles, RECIPE, tmp_path)


def test_a_teacher_that_is_none_is_told_before_tiles_are_read(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "load_tiles", None)
    with pytest.raises(ModelError, match="No model 'techer'"):
        train(tiles, replace(RECIPE, teacher="techer"), tmp_path)


WITHOUT_COMPILER = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from dataclasses import replace
import test_train
test_train.add_tiny_network()
recipe = replace(test_train.RECIPE, compile=True, teacher=sys.argv[2], **test_train.ONE_EPOCH)
test_train.loop.train(Path(sys.argv[1]), recipe, Path(sys.argv[3]))
"""


def test_without_a_compiler_training_goes_on_uncompiled(tiles, trained, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(tiles), str(trained), str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Networks can't be compiled here") == 1
    assert load_bundle(tmp_path / "run").card.metrics["accuracy"] > 0.5


def test_a_loss_that_leaves_all_bounds_stops_the_run(tiles, tmp_path):
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(tiles, recipe, tmp_path)


def test_averaging_over_more_steps_than_there_are_warns(tiles, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(tiles, replace(RECIPE, ema_decay=0.999, **ONE_EPOCH), tmp_path)
    assert "5 steps are too few for ema_decay 0.999" in caplog.text


def test_a_folder_that_cannot_be_made_is_told(tiles, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="run cannot be written"):
        train(tiles, RECIPE, tmp_path / "file" / "run")


@pytest.mark.slow
def test_real_tiles_are_learnt_in_a_minute(landcover_data, tmp_path):
    """400 EuroSAT tiles, ImageNet's MobileNetV2, a few epochs: far above the 10 % of chance."""
    tiles = tmp_path / "tiles"
    train_names = extract(landcover_data, "EuroSAT_RGB-train-?of3.zip", tiles, per_class=40)
    validation_names = extract(landcover_data, "EuroSAT_RGB-val.zip", tiles, per_class=20)
    write_split(tiles, train_names, validation_names)
    recipe = Recipe(
        name="real",
        architecture="mobilenet_v2",
        initial_weights=str(landcover_data / "weights" / "mobilenet_v2-imagenet.safetensors"),
        mean=(93.564, 100.855, 107.264),
        std=(114.863, 77.577, 65.507),
        stages=(Stage(5, 64),),
        optimizer="adamw",
        learning_rate=0.002,
        weight_decay=0.05,
        warmup_epochs=1,
        batch_size=32,
        ema_decay=0.9,
        label_smoothing=0.05,
        evaluate_every=5,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "write_report", write_report)
        bundle = train(tiles, recipe, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["accuracy"] == bundle.card.metrics["accuracy"] > 0.65
    assert report["tiles"] == 200
    with Image.open(tmp_path / "run" / "sample_predictions.png") as image:
        assert image.width > 1000


def extract(data: Path, archives: str, folder: Path, per_class: int) -> list[str]:
    """Unpack the first tiles of each class; returns their Class/file names."""
    names: list[str] = []
    taken: dict[str, int] = {}
    for archive in sorted((data / "eurosat").glob(archives)):
        with zipfile.ZipFile(archive) as stream:
            for member in sorted(stream.namelist()):
                if not member.endswith(".jpg"):
                    continue
                class_name, file_name = member.split("/")[-2:]
                if taken.get(class_name, 0) < per_class:
                    taken[class_name] = taken.get(class_name, 0) + 1
                    (folder / class_name).mkdir(parents=True, exist_ok=True)
                    (folder / class_name / file_name).write_bytes(stream.read(member))
                    names.append(f"{class_name}/{file_name}")
    return names
