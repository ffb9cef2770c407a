"""Model bundles: the round trip, and one clear sentence for each way a bundle can be broken."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import ModelError, OutputError
from pipeline.model import bundle
from pipeline.model.bundle import digest_of, list_bundles, load_bundle, rewrite_card
from pipeline.model.card import ModelCard
from pipeline.model.classes import EUROSAT_COLORS, number_classes
from pipeline.model.network import build_network
from pipeline.model.weights import load_network, save_bundle, standardisation
from pipeline.values import Scaling

CARD = ModelCard(
    name="tiny",
    architecture="resnet18",
    head="mlp",
    bands=("B04", "B03", "B02", "B08"),
    level="l1c",
    scaling=Scaling(reflectance=(0.0, 0.275), values=(1.0, 255.0)),
    mean=(87.8, 97.0, 104.0, 120.5),
    std=(51.7, 34.9, 29.5, 40.25),
    tile_size=64,
    gsd=10.0,
    classes=number_classes(["Forest", "River", "Vineyard"]),
    temperature=1.25,
    metrics={"split": "validation", "accuracy": 0.9},
    training={"recipe": {"seed": 0}, "best_epoch": 3},
    license="MIT",
)


def tiny_network(seed: int = 0, card: ModelCard = CARD) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = build_network(
        card.architecture, bands=len(card.bands), classes=len(card.classes), head=card.head
    )
    return network.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_bundle(tiny_network(), CARD, folder)
    return folder


@pytest.fixture
def bundle_folder(saved, tmp_path):
    """Return a copy to break."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit_card(folder, edit):
    document = json.loads((folder / "card.json").read_text())
    edit(document)
    (folder / "card.json").write_text(json.dumps(document))


def rewrite_digest(folder):
    digest = digest_of(folder / "model.safetensors")
    edit_card(folder, lambda document: document.update({"landcover:digest": digest}))


def test_a_saved_network_gives_the_same_outputs_within_half_precision(saved):
    x = torch.randn(4, 4, 64, 64)
    with torch.no_grad():
        expected, got = tiny_network()(x), load_network(load_bundle(saved))(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=5e-3, rtol=5e-3)


def test_a_loaded_network_is_float32_on_the_cpu_and_in_evaluation_mode(saved):
    network = load_network(load_bundle(saved))
    assert not any(module.training for module in network.modules())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert {t.device.type for t in network.state_dict().values()} == {"cpu"}


def test_loading_leaves_the_random_numbers_of_the_caller_alone(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_network(load_bundle(saved))
    assert torch.equal(torch.rand(3), expected)


def test_the_card_comes_back_identical(saved):
    card = load_bundle(saved).card
    assert card == replace(CARD, digest=digest_of(saved / "model.safetensors"))
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_saving_returns_what_loading_returns(tmp_path):
    card = replace(CARD, training={"stages": ({"epochs": 1},)})  # JSON knows no tuples
    assert save_bundle(tiny_network(), card, tmp_path / "m") == load_bundle(tmp_path / "m")


def test_the_card_follows_the_stac_machine_learning_model_extension(saved):
    document = json.loads((saved / "card.json").read_text())
    (model_input,) = document["mlm:input"]
    assert model_input["input"]["shape"] == [-1, 4, 64, 64]
    assert model_input["input"]["dim_order"] == ["batch", "bands", "height", "width"]
    assert model_input["value_scaling"][0] == {"type": "z-score", "mean": 87.8, "stddev": 51.7}
    (model_output,) = document["mlm:output"]
    assert model_output["classification:classes"][0] == {
        "value": 1,
        "name": "Forest",
        "color_hint": EUROSAT_COLORS["Forest"].lstrip("#").upper(),
    }


def test_the_bundle_holds_half_precision_and_no_pickle(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["card.json", "model.safetensors"]
    tensors = load_file(saved / "model.safetensors")
    assert tensors["conv1.weight"].dtype == torch.float16
    assert tensors["bn1.running_var"].dtype == torch.float32


def test_a_card_can_be_rewritten_without_its_weights(bundle_folder):
    weights = (bundle_folder / "model.safetensors").read_bytes()
    bundle = rewrite_card(load_bundle(bundle_folder), metrics={"accuracy": 0.5})
    assert bundle == load_bundle(bundle_folder)
    assert bundle.card.metrics == {"accuracy": 0.5}
    assert (bundle_folder / "model.safetensors").read_bytes() == weights


def test_weights_that_the_card_does_not_describe_are_refused(bundle_folder):
    with (bundle_folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x55")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_network(load_bundle(bundle_folder))


def test_truncated_weights_are_refused(bundle_folder):
    weights = (bundle_folder / "model.safetensors").read_bytes()
    (bundle_folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_network(load_bundle(bundle_folder))
    rewrite_digest(bundle_folder)
    with pytest.raises(ModelError, match="is damaged"):
        load_network(load_bundle(bundle_folder))


def test_missing_weights_are_told(bundle_folder):
    (bundle_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load_network(load_bundle(bundle_folder))


@pytest.mark.parametrize("architecture", ["resnet50", "mobilenet_v2"])
def test_weights_of_another_architecture_are_refused(bundle_folder, architecture):
    edit_card(bundle_folder, lambda document: document.update({"mlm:architecture": architecture}))
    with pytest.raises(ModelError, match=f"does not fit the {architecture} with 4 bands and 3 classes"):
        load_network(load_bundle(bundle_folder))


def test_weights_of_other_classes_are_refused(bundle_folder):
    edit_card(bundle_folder, lambda d: d["mlm:output"][0]["classification:classes"].pop())
    with pytest.raises(ModelError, match="and 2 classes"):
        load_network(load_bundle(bundle_folder))


def test_an_unknown_architecture_is_refused(bundle_folder):
    edit_card(bundle_folder, lambda document: document.update({"mlm:architecture": "vgg"}))
    with pytest.raises(ModelError, match="Unknown architecture 'vgg'"):
        load_network(load_bundle(bundle_folder))


OPTIONAL = {"mlm:tasks", "mlm:framework", "landcover:stem", "landcover:upsample"}


@pytest.mark.parametrize("field", sorted(CARD.to_json().keys() - OPTIONAL))
def test_a_missing_field_is_named(bundle_folder, field):
    edit_card(bundle_folder, lambda document: document.pop(field))
    with pytest.raises(ModelError, match=f"card lacks the field '{field}'"):
        load_bundle(bundle_folder)


BROKEN_CARDS = {
    "a number that is text": (lambda d: d.update({"landcover:gsd": "ten"}), "cannot be understood"),
    "no input": (lambda d: d.update({"mlm:input": []}), "cannot be understood"),
    "no shape": (lambda d: d["mlm:input"][0]["input"].update(shape=[]), "cannot be understood"),
    "falling limits": (
        lambda d: d["landcover:scaling"].update(reflectance=[0.3, 0.0]),
        "limits 0.3 and 0.0 do not rise",
    ),
    "a band too many": (lambda d: d["mlm:input"][0]["bands"].append("B11"), "5 bands with 4 means"),
    "no deviation": (lambda d: d["mlm:input"][0]["value_scaling"][0].update(stddev=0), "greater than 0"),
    "class 0": (
        lambda d: d["mlm:output"][0]["classification:classes"][0].update(value=0),
        "must differ and lie in 1 to 255",
    ),
    "no classes": (lambda d: d["mlm:output"][0].update({"classification:classes": []}), "1 to 255"),
    "odd colour": (
        lambda d: d["mlm:output"][0]["classification:classes"][0].update(color_hint="green"),
        "six hexadecimal digits",
    ),
    "odd level": (lambda d: d.update({"landcover:level": "l3"}), "neither l1c nor l2a"),
    "no temperature": (lambda d: d.update({"landcover:temperature": 0}), "greater than 0"),
}


@pytest.mark.parametrize(("edit", "message"), BROKEN_CARDS.values(), ids=list(BROKEN_CARDS))
def test_a_card_that_cannot_be_is_refused(bundle_folder, edit, message):
    edit_card(bundle_folder, edit)
    with pytest.raises(ModelError, match=message):
        load_bundle(bundle_folder)


def test_a_card_that_is_no_object_is_refused(bundle_folder):
    (bundle_folder / "card.json").write_text("[]")
    with pytest.raises(ModelError, match="cannot be understood"):
        load_bundle(bundle_folder)


def test_bad_json_is_told_with_its_place(bundle_folder):
    (bundle_folder / "card.json").write_text('{"mlm:name": ')
    with pytest.raises(ModelError, match=r"card\.json is not valid JSON: .*line 1"):
        load_bundle(bundle_folder)


def test_an_unknown_name_lists_the_models_that_ship(saved, monkeypatch):
    monkeypatch.setenv("LANDCOVER_MODELS", str(saved.parent))
    assert list_bundles() == ["tiny"]
    assert load_bundle("tiny").path == saved
    with pytest.raises(ModelError, match=re.escape("No model 'huge'") + r".*those that ship \(tiny\)"):
        load_bundle("huge")


@pytest.mark.parametrize("installed", [True, False])
def test_models_that_ship_lie_in_an_installed_package_or_beside_the_source(
    saved, tmp_path, monkeypatch, installed
):
    """A folder `models` beside an installed package belongs to somebody else."""
    beside, packaged = tmp_path / "models" / "theirs", tmp_path / "pipeline" / "_models" / "ours"
    for folder in (beside, packaged) if installed else (beside,):
        folder.mkdir(parents=True)
        (folder / "card.json").write_bytes((saved / "card.json").read_bytes())
    monkeypatch.delenv("LANDCOVER_MODELS", raising=False)
    monkeypatch.setattr(bundle, "__file__", str(tmp_path / "pipeline" / "model" / "bundle.py"))
    assert list_bundles() == ["ours" if installed else "theirs"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="model cannot be written"):
        save_bundle(tiny_network(), CARD, tmp_path / "file" / "model")


def test_standardisation_broadcasts_over_a_batch():
    mean, std = standardisation(CARD)
    assert mean.shape == std.shape == (1, 4, 1, 1)
    assert mean.dtype == torch.float32
    assert mean.flatten().tolist() == pytest.approx(CARD.mean)


def test_any_classes_get_ids_from_one_and_colours_that_differ():
    classes = number_classes(sorted(EUROSAT_COLORS) + [f"Class{i}" for i in range(40)])
    assert [c.id for c in classes] == list(range(1, 51))
    assert len({c.color for c in classes}) == 50
    assert all(re.fullmatch("#[0-9a-f]{6}", c.color) for c in classes)
    assert classes[1].color == EUROSAT_COLORS["Forest"]
