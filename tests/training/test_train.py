"""Training: that it learns, with every option, and says what it did."""

import json
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

import pipeline.training.run as running
import pipeline.training.train as loop
import pipeline.training.validate as validating
from pipeline.errors import TrainingError, UsageError
from pipeline.model.bundle import load_bundle
from pipeline.model.weights import load_network
from pipeline.options import TrainOptions
from pipeline.training.evaluate import evaluate_bundle
from pipeline.training.recipe import Recipe, Stage, load_recipe
from pipeline.training.report import write_report
from pipeline.training.train import train
from pipeline.values import Scaling
from tests.support.networks import add_tiny_network
from tests.support.tiles import COLORS, make_multispectral, make_tiles, write_split
from tests.support.training import ONE_EPOCH, RECIPE, history_of

ROOT = Path(__file__).parents[2]
WITHOUT_COMPILER = """
import sys
from dataclasses import replace
from pathlib import Path
from pipeline.training.train import train
from tests.support.networks import add_tiny_network
from tests.support.training import ONE_EPOCH, RECIPE
add_tiny_network()
recipe = replace(RECIPE, compile=True, teacher=sys.argv[2], **ONE_EPOCH)
train(Path(sys.argv[1]), recipe, Path(sys.argv[3]))
"""


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Use the tiny network, and average at each of an epoch's five steps."""
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_network(patch)
        patch.setattr(running, "EMA_EVERY", 1)
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
    monkeypatch.setattr(validating, "write_report", lambda *arguments: None)


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
    record = loop._record

    def remember(run, row, output):
        kernels.append(run.network.conv1.weight.detach().clone())
        record(run, row, output)

    monkeypatch.setattr(loop, "_record", remember)
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


def test_training_starts_from_a_bundle_head_included(tiles, trained, tmp_path):
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


def test_validating_on_tiles_that_the_initial_weights_know_is_warned_of(tiles, trained, tmp_path, caplog):
    recipe = replace(RECIPE, initial_weights=str(trained), seed=5, **ONE_EPOCH)
    train(tiles, recipe, tmp_path, TrainOptions(split="random"))
    assert "accuracy will look better than it is" in caplog.text


def test_a_student_is_validated_on_what_its_teacher_has_not_seen(tiles, trained, tmp_path, caplog):
    train(tiles, replace(RECIPE, teacher=str(trained), seed=5, **ONE_EPOCH), tmp_path)
    assert (tmp_path / "split-val.txt").read_text() == (trained / "split-val.txt").read_text()
    assert "better than it is" not in caplog.text


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.2}, {"mosaic_share": 0.4}], ids=str)
def test_it_learns_from_a_teacher_that_is_asked_once(tiles, trained, tmp_path, mixing):
    recipe = replace(RECIPE, teacher=str(trained), teacher_cached=True, **mixing)
    assert train(tiles, recipe, tmp_path).card.metrics["accuracy"] > 0.9


def test_a_cached_teacher_says_the_same_about_tiles_that_are_not_varied(tiles, trained, tmp_path):
    losses = []
    for cached in (False, True):
        recipe = replace(RECIPE, teacher=str(trained), teacher_cached=cached, stages=(Stage(2, 32),))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "augment", lambda values, options, scaling, generator: values)
            train(tiles, recipe, tmp_path / str(cached))
        losses.append([float(row["train_loss"]) for row in history_of(tmp_path / str(cached))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_tensorboard_shows_the_history(tiles, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tiles, RECIPE, tmp_path, TrainOptions(tensorboard=True))
    shown = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for tag, column in (("loss/train", "train_loss"), ("accuracy/validation", "validation_accuracy")):
        points = [(point.step, pytest.approx(point.value)) for point in shown.Scalars(tag)]
        assert [(int(row["epoch"]), float(row[column])) for row in history_of(tmp_path)] == points


def test_tensorboard_that_is_not_installed_is_reported_before_training(tiles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UsageError, match="`tensorboard` needs the package tensorboard"):
        train(tiles, RECIPE, tmp_path / "run", TrainOptions(tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_too_little_memory_names_what_to_lower(tiles, tmp_path, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "_train_epoch", full)
    with pytest.raises(TrainingError, match=r"memory of cpu cannot hold a batch of 16: lower .* batch_size"):
        train(tiles, RECIPE, tmp_path)


def test_without_a_compiler_training_runs_uncompiled(tiles, trained, tmp_path):
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


def test_a_loss_that_is_not_finite_stops_the_run(tiles, tmp_path):
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(tiles, recipe, tmp_path)


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
        patch.setattr(validating, "write_report", write_report)
        bundle = train(tiles, recipe, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["accuracy"] == bundle.card.metrics["accuracy"] > 0.65
    assert report["tiles"] == 200
    with Image.open(tmp_path / "run" / "sample_predictions.png") as image:
        assert image.width > 1000
