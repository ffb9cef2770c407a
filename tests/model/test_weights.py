"""Saving and loading a bundle's network, and one clear sentence for each way the weights can be broken."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import ModelError, OutputError
from pipeline.model.bundle import digest_of, load_bundle
from pipeline.model.weights import load_network, save_bundle, standardisation
from tests.support.cards import FULL_CARD, edit_card
from tests.support.networks import network_of


def rewrite_digest(folder):
    digest = digest_of(folder / "model.safetensors")
    edit_card(folder, lambda document: document.update({"landcover:digest": digest}))


def test_a_saved_network_gives_the_same_outputs_within_half_precision(saved):
    x = torch.randn(4, 4, 32, 32)
    with torch.no_grad():
        expected, got = network_of(FULL_CARD)(x), load_network(load_bundle(saved))(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=5e-3, rtol=5e-3)


def test_a_loaded_network_is_float32_on_the_cpu_and_in_evaluation_mode(saved):
    network = load_network(load_bundle(saved))
    assert not any(module.training for module in network.modules())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert {t.device.type for t in network.state_dict().values()} == {"cpu"}


def test_loading_leaves_the_callers_random_numbers_alone(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_network(load_bundle(saved))
    assert torch.equal(torch.rand(3), expected)


def test_the_card_gets_the_digest_of_the_weights(saved):
    assert load_bundle(saved).card == replace(FULL_CARD, digest=digest_of(saved / "model.safetensors"))


def test_saving_returns_what_loading_returns(tmp_path):
    card = replace(FULL_CARD, training={"stages": ({"epochs": 1},)})  # JSON knows no tuples
    assert save_bundle(network_of(FULL_CARD), card, tmp_path / "m") == load_bundle(tmp_path / "m")


def test_the_bundle_holds_half_precision_and_no_pickle(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["card.json", "model.safetensors"]
    tensors = load_file(saved / "model.safetensors")
    assert tensors["conv1.weight"].dtype == torch.float16
    assert tensors["bn1.running_var"].dtype == torch.float32


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


def test_missing_weights_are_reported(bundle_folder):
    (bundle_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load_network(load_bundle(bundle_folder))


@pytest.mark.parametrize("architecture", ["resnet50", "wide_resnet50_2"])
def test_weights_of_another_architecture_are_refused(bundle_folder, architecture):
    edit_card(bundle_folder, lambda document: document.update({"mlm:architecture": architecture}))
    with pytest.raises(ModelError, match=f"does not fit the {architecture} with 4 bands and 3 classes"):
        load_network(load_bundle(bundle_folder))


def test_weights_for_other_classes_are_refused(bundle_folder):
    edit_card(bundle_folder, lambda d: d["mlm:output"][0]["classification:classes"].pop())
    with pytest.raises(ModelError, match="and 2 classes"):
        load_network(load_bundle(bundle_folder))


def test_an_unknown_architecture_is_refused(bundle_folder):
    edit_card(bundle_folder, lambda document: document.update({"mlm:architecture": "vgg"}))
    with pytest.raises(ModelError, match="Unknown architecture 'vgg'"):
        load_network(load_bundle(bundle_folder))


def test_the_saved_card_is_json(saved):
    assert json.loads((saved / "card.json").read_text())["mlm:name"] == "tiny"


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="model cannot be written"):
        save_bundle(network_of(FULL_CARD), FULL_CARD, tmp_path / "file" / "model")


def test_standardisation_broadcasts_over_a_batch():
    mean, std = standardisation(FULL_CARD)
    assert mean.shape == std.shape == (1, 4, 1, 1)
    assert mean.dtype == torch.float32
    assert mean.flatten().tolist() == pytest.approx(FULL_CARD.mean)
    assert std.flatten().tolist() == pytest.approx(FULL_CARD.std)
