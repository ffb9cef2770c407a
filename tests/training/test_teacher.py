"""A teacher's opinions: asked about batches, or once about all tiles."""

from dataclasses import replace

import pytest
import torch

from pipeline.errors import TrainingError
from pipeline.model.bundle import load_bundle
from pipeline.model.classes import number_classes
from pipeline.model.network import build_network
from pipeline.model.weights import load_network, save_bundle
from pipeline.training.dataset import TileSet
from pipeline.training.distributed import Team
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.teacher import ask_about_all, load_teacher
from pipeline.values import Scaling
from tests.support.cards import TINY_CARD
from tests.support.networks import add_tiny_network

CPU = torch.device("cpu")
RECIPE = Recipe("r", "tiny", stages=(Stage(1, 32),), precision="float32", batch_size=4)
CARD = replace(TINY_CARD, name="teacher")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_network(patch)
        folder = tmp_path_factory.mktemp("models") / "teacher"
        yield save_bundle(build_network("tiny", bands=3, classes=3).eval(), CARD, folder).path


@pytest.fixture
def recipe(teacher):
    return replace(RECIPE, teacher=str(teacher))


@pytest.fixture(scope="module")
def tiles():
    """Return 11 tiles: batches of four, and processes, do not divide them evenly."""
    images = torch.randint(1, 256, (11, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    names = tuple(f"Field/{i}.png" for i in range(11))
    return TileSet(images, torch.zeros(11, dtype=torch.int64), ("Field", "Forest", "Water"), names)


def test_it_gives_the_bundles_probabilities(recipe, teacher, tiles):
    values = tiles.images.float()
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (CARD.mean, CARD.std))
    with torch.no_grad():
        expected = load_network(load_bundle(teacher))((values - mean) / std).softmax(dim=1)
    torch.testing.assert_close(load_teacher(recipe, CARD, CPU)(values), expected)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"classes": number_classes(["Field", "Marsh", "Water"])}, "classes"),
        ({"level": "l2a"}, "level"),
        ({"scaling": Scaling((0, 1), (1, 255))}, "scaling"),
        ({"bands": ("B08", "B04", "B03")}, "bands"),
        ({"gsd": 20.0}, "gsd"),
        ({"tile_size": 64}, "tile size"),
    ],
)
def test_a_teacher_of_other_tiles_is_refused(recipe, changes, what):
    with pytest.raises(TrainingError, match=f"has other {what} than the training tiles"):
        load_teacher(recipe, replace(CARD, **changes), CPU)


def test_opinions_asked_beforehand_are_those_about_the_tiles_as_they_are(recipe, tiles):
    teach = load_teacher(recipe, CARD, CPU)
    opinions = ask_about_all(teach, tiles, recipe, Team(CPU))
    torch.testing.assert_close(opinions, teach(tiles.images.float()))


@pytest.mark.parametrize("size", [2, 4])
def test_each_process_asks_about_its_share(recipe, tiles, monkeypatch, size):
    asked = []

    def teach(values):
        asked.append(len(values))
        return values[:, 0, 0, :3] / 255

    parts = []
    monkeypatch.setattr(Team, "total", lambda team, values: parts.append(values) or values)
    for rank in range(size):
        ask_about_all(teach, tiles, recipe, Team(CPU, rank, size))
    assert sum(asked) == 11  # each tile once
    assert torch.equal(sum(parts), tiles.images[:, 0, 0, :3] / 255)
