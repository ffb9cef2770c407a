"""The card: what it looks like as JSON, and one clear sentence for each way it can be broken."""

import json

import pytest

from pipeline.errors import ModelError
from pipeline.model.card import ModelCard
from pipeline.model.classes import EUROSAT_COLORS
from tests.support.cards import FULL_CARD, RGB_CARD


@pytest.fixture
def document():
    """Return the card as it is read from JSON."""
    return json.loads(json.dumps(FULL_CARD.to_json()))


def test_a_card_comes_back_identical(document):
    assert ModelCard.from_json(document) == FULL_CARD


def test_a_card_follows_the_stac_machine_learning_model_extension(document):
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


OPTIONAL = {"mlm:tasks", "mlm:framework", "landcover:stem", "landcover:upsample"}


@pytest.mark.parametrize("field", sorted(FULL_CARD.to_json().keys() - OPTIONAL))
def test_a_missing_field_is_named(document, field):
    del document[field]
    with pytest.raises(ModelError, match=f"card lacks the field '{field}'"):
        ModelCard.from_json(document)


def test_without_stem_and_upsampling_a_card_describes_torchvisions_network():
    document = RGB_CARD.to_json()
    del document["landcover:stem"], document["landcover:upsample"]
    assert ModelCard.from_json(document) == RGB_CARD


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
    "odd color": (
        lambda d: d["mlm:output"][0]["classification:classes"][0].update(color_hint="green"),
        "six hexadecimal digits",
    ),
    "odd level": (lambda d: d.update({"landcover:level": "l3"}), "neither l1c nor l2a"),
    "shrinking": (lambda d: d.update({"landcover:upsample": 0.5}), "upsampling must be by 1 or more"),
    "no temperature": (lambda d: d.update({"landcover:temperature": 0}), "greater than 0"),
}


@pytest.mark.parametrize(("edit", "message"), BROKEN_CARDS.values(), ids=list(BROKEN_CARDS))
def test_an_impossible_card_is_refused(document, edit, message):
    edit(document)
    with pytest.raises(ModelError, match=message):
        ModelCard.from_json(document)


def test_a_card_that_is_not_an_object_is_refused():
    with pytest.raises(ModelError, match="cannot be understood"):
        ModelCard.from_json([])
