"""`landcover model`: the models that ship."""

import json

from tests.support.command import landcover


def test_models_are_listed_and_shown(light):
    assert "eurosat-rgb-mobilenetv2" in landcover("model", "list").output
    shown = landcover("model", "show", "eurosat-rgb-mobilenetv2").output
    for text in ("AnnualCrop", "64x64", "B04 B03 B02", light.card.digest):
        assert text in shown
    assert json.loads(landcover("model", "show", "eurosat-rgb-mobilenetv2", "--json").output)[
        "mlm:architecture"
    ]
