"""Several processes that train one network, as `torchrun` starts them."""

import csv
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import pipeline.training.run as running
import pipeline.training.train as loop
import pipeline.training.validate as validating
from pipeline.errors import TrainingError
from pipeline.model.bundle import load_bundle
from pipeline.training.distributed import Team, is_first_process, join_team
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.train import train
from tests.support.networks import add_tiny_network
from tests.support.tiles import make_tiles

ROOT = Path(__file__).parents[2]

RECIPE = Recipe(
    name="tiny",
    architecture="tiny",
    stages=(Stage(1, 32, freeze=True), Stage(2, 32)),
    optimizer="adamw",
    learning_rate=0.01,
    warmup_epochs=0,
    batch_size=16,
    ema_decay=0.8,
    validation_share=0.25,
    precision="float32",
)

WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/training")
from test_train_distributed import RECIPE, prepare
import torch
import pipeline.training.setup as preparing
import pipeline.training.train as loop
prepare()
runs, start = [], preparing.start_run
preparing.start_run = lambda *arguments: runs.append(start(*arguments)) or runs[0]
bundle = loop.train(Path(sys.argv[1]), RECIPE, Path(sys.argv[2]))
weights = {name: p.detach() for name, p in runs[0].network.named_parameters()}
torch.save((weights, bundle.card.digest), Path(sys.argv[2]) / f"rank{runs[0].team.rank}.pt")
"""


def prepare(patch=None) -> None:
    """Make the tiny network known, and leave out what is drawn by each process for itself."""
    add_tiny_network(patch)
    replace_with = setattr if patch is None else patch.setattr
    replace_with(running, "EMA_EVERY", 1)
    replace_with(loop, "augment", lambda values, options, scaling, generator: values)
    replace_with(validating, "write_report", lambda *arguments: None)


def test_alone_a_process_is_the_first_of_one():
    with join_team() as team:
        assert (team.rank, team.size, team.is_first) == (0, 1, True)
        assert team.agree("this") == "this"
        assert torch.equal(team.share(torch.arange(4)), torch.arange(4))
        assert torch.equal(team.total(torch.ones(2)), torch.ones(2))
        network = torch.nn.Linear(1, 1)
        assert team.join_gradients(network) is network
    assert is_first_process()


def test_shares_are_all_of_the_batch_and_equal():
    shares = [Team(torch.device("cpu"), rank, 4).share(torch.arange(16)) for rank in range(4)]
    assert {len(share) for share in shares} == {4}
    assert sorted(torch.cat(shares).tolist()) == list(range(16))


@pytest.mark.parametrize("size", [3, 16])
def test_a_batch_that_cannot_be_shared_out_is_reported(tmp_path, monkeypatch, size):
    prepare(monkeypatch)
    tiles = make_tiles(tmp_path / "tiles", per_class=20)
    team = Team(torch.device("cpu"), rank=0, size=size)
    monkeypatch.setattr(loop, "join_team", lambda _: nullcontext(team))
    with pytest.raises(TrainingError, match=f"batch_size 16 cannot be divided evenly among {size} processes"):
        train(tiles, RECIPE, tmp_path / "run")


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path, monkeypatch):
    tiles = make_tiles(tmp_path / "tiles", per_class=40)
    output = tmp_path / "two"
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, tmp_path / "worker.py", tiles, output],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    (first, digest), (second, other_digest) = (torch.load(output / f"rank{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(second[name], weight) for name, weight in first.items())
    prepare(monkeypatch)
    bundle = load_bundle(output)
    assert bundle.card.digest == digest == other_digest
    assert bundle.card.metrics["accuracy"] > 0.9

    # While only the head learns, batches are normalised alike however they are shared out: the same
    # batches give the same gradients, and so the same run, as in one process.
    train(tiles, RECIPE, tmp_path / "one")
    rows = []
    for folder in (output, tmp_path / "one"):
        with (folder / "history.csv").open(newline="") as stream:
            rows.append(list(csv.DictReader(stream)))
    assert len(rows[0]) == 3
    for column in ("train_loss", "train_accuracy", "validation_loss"):
        assert float(rows[0][0][column]) == pytest.approx(float(rows[1][0][column]), rel=1e-3)
