"""Where a network starts from, and what of it is taken over."""

import logging
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from pipeline.errors import ModelError, TrainingError
from pipeline.model.bundle import list_bundles, load_bundle
from pipeline.model.card import ModelCard
from pipeline.model.classes import number_classes
from pipeline.model.network import build_network, head_of
from pipeline.model.weights import load_network, save_bundle
from pipeline.training.dataset import TileSet
from pipeline.training.describe import find_standards
from pipeline.training.distributed import Team
from pipeline.training.initial_weights import find_initial_weights, start_from
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.run import start_run
from pipeline.training.split_files import known_split
from pipeline.values import Scaling
from tests.support.cards import TINY_CARD
from tests.support.networks import add_tiny_network

FETCH = "torchvision.models._api.load_state_dict_from_url"
RECIPE = Recipe("r", "tiny", stages=(Stage(1, 32),))
CARD = replace(TINY_CARD, name="source")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    add_tiny_network(monkeypatch)


def network_of(card: ModelCard) -> torch.nn.Module:
    return build_network(card.architecture, bands=len(card.bands), classes=len(card.classes), head=card.head)


@pytest.fixture
def source(tmp_path):
    """Return a network and the folder of its bundle."""
    network = network_of(CARD).eval()
    return network, str(save_bundle(network, CARD, tmp_path / "source").path)


def started(source: str, card: ModelCard, architecture: str = "tiny") -> torch.nn.Module:
    network = network_of(card)
    recipe = replace(RECIPE, architecture=architecture, bands=card.bands, initial_weights=source)
    start_from(find_initial_weights(recipe), network, card)
    return network


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=2e-3, atol=1e-4)  # bundles are in half precision


def test_random_weights_are_none():
    assert find_initial_weights(RECIPE) is None


def test_a_bundle_of_the_same_classes_gives_its_head_too(source):
    network, path = source
    got = started(path, CARD)
    assert same(got.conv1.weight, network.conv1.weight)
    assert same(head_of(got)[1].weight, head_of(network)[1].weight)


@pytest.mark.parametrize(
    "changes", [{"classes": number_classes(["Field", "Forest", "Marsh"])}, {"head": "mlp"}], ids=str
)
def test_of_another_bundle_the_head_is_left(source, changes, caplog):
    network, path = source
    with caplog.at_level(logging.INFO):
        got = started(path, replace(CARD, **changes))
    assert same(got.layer1[0].weight, network.layer1[0].weight)
    assert not same(
        head_of(got)[1 if "head" not in changes else 3].weight[0, :8], head_of(network)[1].weight[0, :8]
    )
    assert "starting from source: the head is new" in caplog.text


def test_a_bundle_starts_a_network_of_more_bands_band_by_band(source):
    network, path = source
    bands = ("B02", "B08", "B04")
    got = started(path, replace(CARD, bands=bands))
    assert same(got.conv1.weight[:, 0], network.conv1.weight[:, 2])
    assert same(got.conv1.weight[:, 2], network.conv1.weight[:, 0])
    assert same(got.conv1.weight[:, 1], network.conv1.weight.mean(dim=1))


def test_a_bundle_of_thirteen_bands_starts_one_of_three(tmp_path):
    bands = (*tuple(f"B{i:02}" for i in range(1, 13)), "B8A")
    card = replace(CARD, bands=bands, mean=(0.0,) * 13, std=(1.0,) * 13)
    network = network_of(card).eval()
    got = started(str(save_bundle(network, card, tmp_path / "thirteen").path), CARD)
    assert same(got.conv1.weight, network.conv1.weight[:, [3, 2, 1]] * 13 / 3)


def test_the_standardisation_that_the_weights_expect_is_kept(source, tmp_path):
    _, path = source
    tiles = torch.randint(1, 256, (8, 3, 32, 32), dtype=torch.uint8)
    training = TileSet(tiles, torch.zeros(8, dtype=torch.int64), ("Field",), ("Field/1.png",) * 8)

    def standards(**changes):
        recipe = replace(RECIPE, initial_weights=path, **changes)
        return find_standards(recipe, training, find_initial_weights(recipe))

    assert standards() == (CARD.mean, CARD.std)
    assert standards(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    own = tiles.double().mean(dim=(0, 2, 3)).tolist()
    for changes in ({"bands": ("B02", "B03", "B04")}, {"scaling": Scaling((0, 0.3), (1, 255))}):
        assert standards(**changes)[0] == pytest.approx(own, abs=0.01)


def test_a_file_in_torchvisions_layout_is_taken(tmp_path):
    weights = {name: tensor.half() for name, tensor in resnet18(num_classes=1000).state_dict().items()}
    path = tmp_path / "resnet18.safetensors"
    save_file(weights, path)
    card = replace(CARD, architecture="resnet18", bands=("B04", "B03", "B02", "B08"))
    got = started(str(path), card, "resnet18")
    assert same(got.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"].float())
    assert same(got.conv1.weight[:, :3], weights["conv1.weight"].float() * 3 / 4)


def test_a_file_for_bands_that_nothing_names_is_refused(tmp_path):
    path = tmp_path / "five.safetensors"
    save_file(build_network("tiny", bands=5, classes=3).state_dict(), path)
    with pytest.raises(TrainingError, match="are for 5 bands, but do not say for which: name a bundle"):
        started(str(path), CARD)
    started(str(path), replace(CARD, bands=("B02", "B03", "B04", "B08", "B11")))  # as many: as they come


def test_what_cannot_be_used_is_reported(source, tmp_path):
    _, path = source
    with pytest.raises(TrainingError, match=r"absent\.safetensors do not exist: put the file there"):
        started(str(tmp_path / "absent.safetensors"), CARD)
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"damaged\.safetensors cannot be read"):
        started(str(tmp_path / "damaged.safetensors"), CARD)
    with pytest.raises(TrainingError, match="No ImageNet weights are known for tiny"):
        started("imagenet", CARD)
    with pytest.raises(ModelError, match="No model 'eurosat-nothing'"):
        started("eurosat-nothing", CARD)
    with pytest.raises(ModelError, match="another architecture"):
        started(path, replace(CARD, architecture="resnet18"), "resnet18")


def test_imagenets_weights_are_fetched_by_torchvision(monkeypatch):
    published = resnet18(num_classes=1000).state_dict()
    fetched = []
    monkeypatch.setattr(FETCH, lambda url, **options: fetched.append(url) or published)
    got = started("imagenet", replace(CARD, architecture="resnet18", bands=("B02", "B03", "B04")), "resnet18")
    assert "resnet18" in fetched[0]
    assert torch.equal(got.conv1.weight, published["conv1.weight"].flip(1))  # ImageNet's are red, green, blue
    assert torch.equal(got.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    "error", [URLError("Name or service not known"), RuntimeError("invalid hash value")], ids=str
)
def test_without_a_network_the_remedy_is_named(monkeypatch, error):
    def fail(url, **options):
        raise error

    monkeypatch.setattr(FETCH, fail)
    with pytest.raises(
        TrainingError, match=r"ImageNet weights of resnet18 cannot be fetched .* put that file into"
    ):
        find_initial_weights(replace(RECIPE, architecture="resnet18", initial_weights="imagenet"))


@pytest.mark.parametrize("name", list_bundles())
def test_the_models_that_ship_say_their_split(name):
    shipped = load_bundle(name)
    split = known_split(shipped.path)
    assert len(split.train) == shipped.card.training["tiles"]
    assert len(split.validation) == shipped.card.metrics["tiles"]
    assert not set(split.train) & set(split.validation)
    assert {tile.split("/")[0] for tile in split.train} == {c.name for c in shipped.card.classes}


@pytest.mark.parametrize("name", ["eurosat-rgb-mobilenetv2", "eurosat-rgb-resnet50"])
def test_the_models_that_ship_can_be_trained_further(name):
    shipped = load_bundle(name)
    recipe = replace(RECIPE, architecture=shipped.card.architecture, initial_weights=name)
    run = start_run(recipe, shipped.card, find_initial_weights(recipe), Team(torch.device("cpu")))
    expected = load_network(shipped).state_dict()
    assert all(torch.equal(tensor.cpu(), expected[key]) for key, tensor in run.network.state_dict().items())
