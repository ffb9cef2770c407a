"""Interrupted training: a run that was killed goes on exactly, and nothing that stood there is lost."""

import csv
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pipeline.training.execution as execution
import pipeline.training.run as running
import pipeline.training.train as loop
import pipeline.training.validate as validating
from pipeline.errors import OutputError, TrainingError
from pipeline.options import TrainOptions
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.train import train
from tests.support.networks import add_tiny_network
from tests.support.tiles import make_tiles

ROOT = Path(__file__).parents[2]

RECIPE = Recipe(
    name="tiny",
    architecture="tiny",
    stages=(Stage(1, 24, freeze=True), Stage(3, 32)),
    dropout=0.1,  # like mixing, draws from the global random numbers
    mixup=0.2,
    cutmix=1.0,
    optimizer="adamw",
    learning_rate=0.01,
    warmup_epochs=1,
    batch_size=16,
    ema_decay=0.8,
    validation_share=0.25,
    precision="float32",
)


class PowerCutError(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_network(patch)
        patch.setattr(running, "EMA_EVERY", 2)
        patch.setattr(validating, "write_report", lambda *arguments: None)  # takes longer than training
        yield


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return make_tiles(tmp_path_factory.mktemp("data") / "tiles", per_class=40)


@pytest.fixture(scope="module")
def unbroken(tiny, tiles, tmp_path_factory):
    """Return the folder of a run that nothing interrupted."""
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    train(tiles, RECIPE, output)
    return output


def assert_same_run(output: Path, unbroken: Path) -> None:
    for name in ("model.safetensors", "card.json", "split-train.txt", "split-val.txt"):
        assert (output / name).read_bytes() == (unbroken / name).read_bytes(), name
    last, expected = (
        torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (output, unbroken)
    )
    for part in ("network", "average"):
        for name, tensor in expected[part].items():
            assert torch.equal(last[part][name], tensor), name
    histories = []
    for folder in (output, unbroken):
        with (folder / "history.csv").open(newline="") as stream:
            histories.append(
                [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
            )
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("killed_in", "epoch"),
    [("_train_epoch", 0), ("_train_epoch", 2), ("_record", 2), ("write_history", 2), ("save_checkpoint", 2)],
)
def test_a_run_resumes_wherever_it_was_interrupted(tiles, unbroken, tmp_path, monkeypatch, killed_in, epoch):
    due = {
        "_train_epoch": lambda run, training, now: now == epoch,
        "_record": lambda run, row, output: row["epoch"] == epoch,  # just after the bundle was saved
        "write_history": lambda path, rows: len(rows) == epoch,
        "save_checkpoint": lambda path, recipe, parts, progress: progress.epoch == epoch,
    }[killed_in]
    original = getattr(loop, killed_in)

    def interrupted(*arguments):
        if due(*arguments):
            raise PowerCutError
        return original(*arguments)

    monkeypatch.setattr(loop, killed_in, interrupted)
    with pytest.raises(PowerCutError):
        train(tiles, RECIPE, tmp_path / "run", TrainOptions(resume=True))  # nothing to resume yet: it begins
    monkeypatch.setattr(loop, killed_in, original)
    torch.manual_seed(random.randrange(10**6))  # whatever else the process did
    train(tiles, RECIPE, tmp_path / "run", TrainOptions(resume=True))
    assert_same_run(tmp_path / "run", unbroken)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests/training")
from tests.support.networks import add_tiny_network
add_tiny_network()
import pipeline.training.run as running
import pipeline.training.train as loop
from test_train_resume import RECIPE
running.EMA_EVERY = 2
set_pace = loop.set_pace
def killed(optimizer, recipe, epoch):
    if epoch > 2.5:
        os.kill(os.getpid(), signal.SIGKILL)
    set_pace(optimizer, recipe, epoch)
loop.set_pace = killed
loop.train(Path(sys.argv[1]), RECIPE, Path(sys.argv[2]))
"""


def test_a_process_that_was_killed_is_resumed_by_another(tiles, unbroken, tmp_path):
    output = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tiles), str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # sums depend on it
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert torch.load(output / "checkpoint.pt", weights_only=True)["progress"]["epoch"] == 2
    train(tiles, RECIPE, output, TrainOptions(resume=True))
    assert_same_run(output, unbroken)


def test_resuming_a_finished_run_changes_nothing(tiles, unbroken, tmp_path):
    output = copy_of(unbroken, tmp_path / "run")
    train(tiles, RECIPE, output, TrainOptions(resume=True))
    assert_same_run(output, unbroken)


def test_resuming_a_run_that_ran_out_of_patience_changes_nothing(tiles, tmp_path, monkeypatch):
    evaluations, evaluate = [], validating.evaluate_with

    def never_better(*arguments):
        evaluations.append(evaluate(*arguments))
        return evaluations[0]

    monkeypatch.setattr(validating, "evaluate_with", never_better)
    recipe = replace(RECIPE, patience=1)
    card = train(tiles, recipe, tmp_path).card
    history = (tmp_path / "history.csv").read_bytes()
    assert history.count(b"\n") == 1 + 2
    assert train(tiles, recipe, tmp_path, TrainOptions(resume=True)).card == card
    assert (tmp_path / "history.csv").read_bytes() == history


def test_mosaics_and_cached_opinions_resume_too(tiles, unbroken, tmp_path):
    recipe = replace(
        RECIPE, stages=(Stage(2, 24),), mosaic_share=0.5, teacher=str(unbroken), teacher_cached=True
    )
    train(tiles, recipe, tmp_path / "whole")
    train_one_epoch(tiles, recipe, tmp_path / "run")
    train(tiles, recipe, tmp_path / "run", TrainOptions(resume=True))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_loss_scaling_resumes_too(tiles, tmp_path):
    recipe = replace(RECIPE, precision="float16", stages=(Stage(2, 24),))
    whole = train(tiles, recipe, tmp_path / "whole").card.digest
    train_one_epoch(tiles, recipe, tmp_path / "run")
    assert train(tiles, recipe, tmp_path / "run", TrainOptions(resume=True)).card.digest == whole
    scaler = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["scaler"]
    assert scaler["scale"] > 1


def test_training_again_without_resume_starts_afresh(tiles, unbroken, tmp_path):
    train(tiles, replace(RECIPE, stages=(Stage(1, 24),), warmup_epochs=0, seed=7), tmp_path)
    train(tiles, RECIPE, tmp_path)
    assert_same_run(tmp_path, unbroken)


def test_a_run_may_resume_in_another_precision(tiles, tmp_path, monkeypatch):
    """`auto` is float16 on some GPUs and not on others: a scaler that was not needed has no state."""
    stages = (Stage(2, 24),)
    recipe = replace(RECIPE, precision="auto", stages=stages)
    train_one_epoch(tiles, recipe, tmp_path)
    monkeypatch.setattr(execution, "find_precision", lambda wish, device: torch.float16)
    train(tiles, recipe, tmp_path, TrainOptions(resume=True))
    assert (tmp_path / "history.csv").read_bytes().count(b"\n") == 1 + 2


def test_epochs_shorter_than_writing_a_checkpoint_share_one(tiles, unbroken, tmp_path, monkeypatch):
    saved, save = [], loop.save_checkpoint

    def remember(path, recipe, parts, progress):
        saved.append(progress.epoch)
        save(path, recipe, parts, progress)

    monkeypatch.setattr(loop, "save_checkpoint", remember)
    train(tiles, replace(RECIPE, evaluate_every=3), tmp_path)
    assert saved == [3, 4]  # with each validation
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", -1)
    train(tiles, replace(RECIPE, evaluate_every=3), tmp_path)
    assert saved[2:] == [1, 2, 3, 4]


def train_one_epoch(tiles: Path, recipe: Recipe, output: Path) -> None:
    """Train until the second epoch, in which power is cut."""
    train_epoch = loop._train_epoch

    def interrupted(run, training, epoch):
        if epoch == 1:
            raise PowerCutError
        return train_epoch(run, training, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_train_epoch", interrupted)
        with pytest.raises(PowerCutError):
            train(tiles, recipe, output)


# What is refused


def test_resuming_without_a_checkpoint_leaves_a_finished_model(tiles, unbroken, tmp_path):
    output = copy_of(unbroken, tmp_path / "run")
    (output / "checkpoint.pt").unlink()
    before = digests(output)
    with pytest.raises(TrainingError, match=r"holds a model but no checkpoint\.pt to continue from"):
        train(tiles, RECIPE, output, TrainOptions(resume=True))
    assert digests(output) == before


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"stages": (Stage(9, 24),)}, "stages"),
        ({"seed": 3}, "seed"),
    ],
)
def test_resuming_with_another_recipe_is_refused(tiles, unbroken, changes, differs):
    before = digests(unbroken)
    with pytest.raises(TrainingError, match=rf"another recipe \('{differs}' differs\)"):
        train(tiles, replace(RECIPE, **changes), unbroken, TrainOptions(resume=True))
    assert digests(unbroken) == before


def test_resuming_with_other_tiles_is_refused(unbroken, tmp_path):
    fewer = make_tiles(tmp_path / "tiles", per_class=30)
    before = digests(unbroken)
    with pytest.raises(TrainingError, match="started with other tiles"):
        train(fewer, RECIPE, unbroken, TrainOptions(resume=True))
    assert digests(unbroken) == before


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", None], ids=["empty", "something else", "half of it"]
)
def test_a_damaged_checkpoint_is_reported(tiles, unbroken, tmp_path, content):
    output = copy_of(unbroken, tmp_path / "run")
    whole = (output / "checkpoint.pt").read_bytes()
    (output / "checkpoint.pt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged: start again with `overwrite`"):
        train(tiles, RECIPE, output, TrainOptions(resume=True))


# No space left


@pytest.mark.parametrize("room_for", ["nothing", "the bundle but not the checkpoint"])
def test_a_full_disk_is_reported_and_what_stood_there_stays(tiles, unbroken, tmp_path, monkeypatch, room_for):
    output = tmp_path / "run"
    size = (unbroken / "model.safetensors").stat().st_size
    assert 4 * size < (unbroken / "checkpoint.pt").stat().st_size
    limit = size // 2 if room_for == "nothing" else 4 * size
    before = {}
    train_epoch = loop._train_epoch

    def fill_disk(run, training, epoch):
        if epoch == 2:
            before.update(digests(output))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        return train_epoch(run, training, epoch)

    monkeypatch.setattr(loop, "_train_epoch", fill_disk)
    with file_size_limit() as hard, pytest.raises(OutputError, match=r"cannot be written .* free some space"):
        train(tiles, RECIPE, output)
    after = digests(output)
    assert after.keys() == before.keys()  # nothing lost, no remnants
    assert after["checkpoint.pt"] == before["checkpoint.pt"]
    if room_for == "nothing":
        assert after == before
    load_file(output / "model.safetensors")

    monkeypatch.setattr(loop, "_train_epoch", train_epoch)
    train(tiles, RECIPE, output, TrainOptions(resume=True))
    assert_same_run(output, unbroken)


@contextmanager
def file_size_limit() -> Iterator[int]:
    """Give the hard limit of a file's size; the soft one is as it was afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def copy_of(run: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in run.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
