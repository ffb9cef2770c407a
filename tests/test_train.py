"""Training: that it learns, resumes without a trace, keeps the best model, and refuses what cannot work."""

import csv
import json
import logging
import random
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_tiles import COLORS, make_tiles, write_split
from PIL import Image
from safetensors.torch import load_file

import pipeline.training.train as loop
from pipeline.errors import ModelError, OutputError, TrainingError
from pipeline.model.bundle import Scaling, load_bundle
from pipeline.training.augment import AugmentOptions
from pipeline.training.evaluate import evaluate_bundle
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.train import train

RECIPE = Recipe(
    name="tiny",
    architecture="resnet18",
    stages=(Stage(1, 24), Stage(2, 32)),
    dropout=0.1,  # draws from the global random numbers, which a resumed run must find as they were
    optimizer="adamw",
    learning_rate=0.002,
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


class PowerCutError(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module", autouse=True)
def averaged_at_each_step():
    """An epoch here is of five steps, fewer than there are between two averagings of a true run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EMA_EVERY", 1)
        yield


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return make_tiles(tmp_path_factory.mktemp("data") / "tiles", per_class=40)


@pytest.fixture(scope="module")
def trained(tiles, tmp_path_factory):
    """Return the folder of an unbroken run."""
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    train(tiles, RECIPE, output)
    return output


def history_of(output: Path) -> list[dict[str, str]]:
    with (output / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_same_run(output: Path, unbroken: Path) -> None:
    for name in ("model.safetensors", "card.json", "report.json", "split-train.txt", "split-val.txt"):
        assert (output / name).read_bytes() == (unbroken / name).read_bytes(), name
    without_time = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in history_of(folder)]
        for folder in (output, unbroken)
    ]
    assert without_time[0] == without_time[1]


def test_it_learns(tiles, trained):
    bundle = load_bundle(trained)
    assert bundle.card.metrics["accuracy"] > 0.9
    assert [c.name for c in bundle.card.classes] == sorted(COLORS)
    assert evaluate_bundle(bundle, tiles).accuracy > 0.9


def test_the_card_says_how_it_was_trained_and_what_the_bundle_reaches(tiles, trained):
    card = load_bundle(trained).card
    names = (trained / "split-val.txt").read_text().split()
    assert card.metrics == {
        "split": "validation",
        **evaluate_bundle(load_bundle(trained), tiles, names).summary(),
    }
    assert card.training["tiles"] == 90
    assert card.training["split"] == "stratified, seed 0"
    assert card.training["recipe"]["learning_rate"] == 0.002
    assert 1 <= card.training["best_epoch"] <= 3
    assert (card.level, card.gsd, card.license) == ("l2a", 2.5, "CC-BY-4.0")
    assert card.scaling == Scaling((0.0, 0.4), (0.0, 200.0))
    assert card.tile_size == 32
    assert all(30 < value < 160 for value in card.mean)  # measured on the tiles
    assert card.temperature > 0


def test_the_folder_holds_all_that_was_promised(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "accuracy_loss.png",
        "card.json",
        "checkpoint.pt",
        "confusion_matrix.png",
        "history.csv",
        "model.safetensors",
        "report.json",
        "sample_predictions.png",
        "split-train.txt",
        "split-val.txt",
    ]


def test_history_has_a_row_an_epoch(trained):
    rows = history_of(trained)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["size"] for row in rows] == ["24", "32", "32"]
    assert float(rows[-1]["learning_rate"]) == 0
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


@pytest.mark.parametrize(
    ("killed_in", "epoch"),
    [("training", 0), ("training", 1), ("saving the bundle", 1), ("saving the checkpoint", 1)],
)
def test_a_killed_run_resumes_as_if_nothing_had_happened(
    tiles, trained, tmp_path, monkeypatch, epoch, killed_in
):
    name, is_due = {
        "training": ("_train_epoch", lambda run, training, now: now == epoch),
        "saving the bundle": (
            "_append_history",
            lambda path, row: row["epoch"] == epoch + 1,
        ),  # just after it
        "saving the checkpoint": ("_save_checkpoint", lambda path, run: run.progress.epoch == epoch + 1),
    }[killed_in]
    original = getattr(loop, name)

    def killed(*arguments):
        if is_due(*arguments):
            raise PowerCutError
        return original(*arguments)

    monkeypatch.setattr(loop, name, killed)
    with pytest.raises(PowerCutError):
        train(tiles, RECIPE, tmp_path / "run", resume=True)  # nothing to resume yet: it begins
    monkeypatch.setattr(loop, name, original)
    torch.manual_seed(random.randrange(10**6))  # whatever else the process did
    train(tiles, RECIPE, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", trained)


def test_resuming_a_finished_run_changes_nothing(tiles, trained, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    for path in trained.iterdir():
        (output / path.name).write_bytes(path.read_bytes())
    train(tiles, RECIPE, output, resume=True)
    assert_same_run(output, trained)


def test_training_again_without_resume_starts_afresh(tiles, trained, tmp_path):
    output = tmp_path / "run"
    train(tiles, replace(RECIPE, stages=(Stage(1, 24),), warmup_epochs=0, seed=7), output)
    train(tiles, RECIPE, output)
    assert_same_run(output, trained)


def test_resuming_with_another_recipe_is_refused(tiles, trained):
    with pytest.raises(TrainingError, match=r"another recipe \('learning_rate' differs\)"):
        train(tiles, replace(RECIPE, learning_rate=0.1), trained, resume=True)


def test_resuming_with_other_tiles_is_refused(trained, tmp_path):
    fewer = make_tiles(tmp_path / "tiles", per_class=30)
    with pytest.raises(TrainingError, match="begun with other tiles"):
        train(fewer, RECIPE, trained, resume=True)


def test_a_damaged_checkpoint_is_told(tiles, trained, tmp_path):
    for name in ("split-train.txt", "split-val.txt", "checkpoint.pt"):
        (tmp_path / name).write_bytes((trained / name).read_bytes()[:20_000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged"):
        train(tiles, RECIPE, tmp_path, resume=True)


def test_the_best_epoch_is_kept(tiles, tmp_path, monkeypatch):
    """Validation is made to say 0.5, 0.9, 0.9: the second epoch's weights must remain."""
    said, saved = iter([0.5, 0.9, 0.9]), []
    original = loop.save_bundle

    def remember(network, card, path):
        saved.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return original(network, card, path)

    monkeypatch.setattr(loop.Evaluation, "accuracy", property(lambda self: next(said, 0.0)))
    # Only the loop itself may ask for the accuracy: scores for the card would use up the list.
    monkeypatch.setattr(loop.Evaluation, "summary", lambda self: {})
    monkeypatch.setattr(loop, "save_bundle", remember)
    monkeypatch.setattr(loop, "write_report", lambda *arguments: None)
    bundle = train(tiles, RECIPE, tmp_path)
    assert len(saved) == 2
    assert bundle.card.training["best_epoch"] == 2
    kept = load_file(tmp_path / "model.safetensors")
    assert torch.equal(kept["conv1.weight"], saved[1]["conv1.weight"].half())


def test_validation_every_few_epochs_leaves_gaps_but_ends_with_one(tiles, tmp_path):
    train(tiles, replace(RECIPE, stages=(Stage(3, 24, freeze=True),), evaluate_every=2), tmp_path)
    assert [bool(row["validation_accuracy"]) for row in history_of(tmp_path)] == [False, True, True]


def test_a_frozen_stage_leaves_the_backbone_as_it_was(tiles, tmp_path):
    recipe = replace(RECIPE, stages=(Stage(1, 32, freeze=True),), head="mlp", warmup_epochs=0)
    first = train(tiles, recipe, tmp_path / "one").load_network().state_dict()
    recipe = replace(recipe, stages=(Stage(2, 32, freeze=True),))
    second = train(tiles, recipe, tmp_path / "two").load_network().state_dict()
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"fc.0.weight", "fc.0.bias", "fc.3.weight", "fc.3.bias"}


def test_targets_are_smoothed_labels_that_the_teacher_moves(tiles, trained):
    card = load_bundle(trained).card
    labels = torch.tensor([0, 2])
    values = torch.rand(2, 3, 32, 32) * 255
    alone = loop._targets(loop._start(RECIPE, card), values, labels, 3)
    torch.testing.assert_close(alone[0], torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]))
    run = loop._start(replace(RECIPE, teacher=str(trained), teacher_weight=0.25), card)
    taught = loop._targets(run, values, labels, 3)
    mean, std = run.mean, run.std
    with torch.no_grad():
        opinion = load_bundle(trained).load_network()((values - mean) / std).softmax(dim=1)
    torch.testing.assert_close(taught, 0.75 * alone + 0.25 * opinion)
    torch.testing.assert_close(taught.sum(dim=1), torch.ones(2))


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
    assert student.card.training["recipe"]["teacher"] == "unbroken"  # its name, not where it lies here


def test_a_teacher_of_other_classes_is_refused(trained, tmp_path):
    tiles = make_tiles(tmp_path / "tiles", 20, colors={"Field": (150, 110, 60), "Marsh": (90, 90, 40)})
    with pytest.raises(TrainingError, match="has other classes than the training tiles"):
        train(tiles, replace(RECIPE, teacher=str(trained)), tmp_path / "run")


def test_a_teacher_of_another_level_is_refused(tiles, trained, tmp_path):
    recipe = replace(RECIPE, teacher=str(trained), level="l1c")
    with pytest.raises(TrainingError, match="has other level than the training tiles"):
        train(tiles, recipe, tmp_path / "run")


def test_initial_weights_are_taken_over(tiles, trained, tmp_path):
    recipe = replace(
        RECIPE,
        initial_weights=str(trained / "model.safetensors"),
        stages=(Stage(1, 32, freeze=True),),
        warmup_epochs=0,
    )
    bundle = train(tiles, recipe, tmp_path)
    given, got = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path))
    assert torch.equal(got["layer4.1.conv2.weight"], given["layer4.1.conv2.weight"])
    assert bundle.card.training["recipe"]["initial_weights"] == "model.safetensors"


def test_initial_weights_that_cannot_be_used_are_told(tiles, trained, tmp_path):
    with pytest.raises(TrainingError, match=r"absent\.safetensors are not there: put the file there"):
        train(tiles, replace(RECIPE, initial_weights=str(tmp_path / "absent.safetensors")), tmp_path / "a")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"damaged\.safetensors cannot be read"):
        train(tiles, replace(RECIPE, initial_weights=str(tmp_path / "damaged.safetensors")), tmp_path / "a")
    recipe = replace(RECIPE, architecture="mobilenet_v2", initial_weights=str(trained / "model.safetensors"))
    with pytest.raises(ModelError, match="another architecture"):
        train(tiles, recipe, tmp_path / "b")


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
        ({"bands": ("B04", "B03", "B02", "B08")}, "names 4 bands; the tiles have 3"),
        ({"stages": (Stage(2, 64),)}, "a stage at 64 pixels; the tiles are 32 pixels wide"),
        ({"augment": AugmentOptions(max_shift=32)}, "max_shift must be less than the tiles' width, 32"),
    ],
)
def test_a_recipe_that_the_tiles_do_not_suit_is_told(tiles, tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        train(tiles, replace(RECIPE, **changes), tmp_path)


def test_one_class_alone_is_refused(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", 40, colors={"Forest": (50, 110, 60)})
    with pytest.raises(TrainingError, match="There are 1 classes"):
        train(tiles, RECIPE, tmp_path / "run")


def test_a_loss_that_leaves_all_bounds_stops_the_run(tiles, tmp_path):
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(tiles, recipe, tmp_path)


def test_averaging_over_more_steps_than_there_are_warns(tiles, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(tiles, replace(RECIPE, ema_decay=0.999, stages=(Stage(1, 24),), warmup_epochs=0), tmp_path)
    assert "5 steps are too few for ema_decay 0.999" in caplog.text


def test_training_takes_no_library_of_maps():
    """A machine that only trains need not have GDAL."""
    code = (
        "import sys, pipeline.training.train;print(*{'rasterio', 'geopandas', 'affine'} & sys.modules.keys())"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


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
