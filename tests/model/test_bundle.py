"""Finding bundles, reading and rewriting their cards."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.model import bundle
from pipeline.model.bundle import list_bundles, load_bundle, rewrite_card

ROOT = Path(__file__).parents[2]


def test_a_card_is_rewritten_without_its_weights(bundle_folder):
    weights = (bundle_folder / "model.safetensors").read_bytes()
    rewritten = rewrite_card(load_bundle(bundle_folder), metrics={"accuracy": 0.5})
    assert rewritten == load_bundle(bundle_folder)
    assert rewritten.card.metrics == {"accuracy": 0.5}
    assert (bundle_folder / "model.safetensors").read_bytes() == weights


def test_invalid_json_is_reported_with_its_line(bundle_folder):
    (bundle_folder / "card.json").write_text('{"mlm:name": ')
    with pytest.raises(ModelError, match=r"card\.json is not valid JSON: .*line 1"):
        load_bundle(bundle_folder)


def test_a_broken_card_is_reported_with_its_path(bundle_folder):
    (bundle_folder / "card.json").write_text("[]")
    with pytest.raises(ModelError, match=r"tiny.card\.json: The model's card cannot be understood"):
        load_bundle(bundle_folder)


def test_an_unknown_name_lists_the_shipped_models(saved, monkeypatch):
    monkeypatch.setenv("LANDCOVER_MODELS", str(saved.parent))
    assert list_bundles() == ["tiny"]
    assert load_bundle("tiny").path == saved
    with pytest.raises(ModelError, match=re.escape("No model 'huge'") + r".* the shipped models \(tiny\)"):
        load_bundle("huge")


@pytest.mark.parametrize("installed", [True, False])
def test_shipped_models_are_in_an_installed_package_or_beside_the_source(
    saved, tmp_path, monkeypatch, installed
):
    """A folder `models` beside an installed package is something else."""
    beside, packaged = tmp_path / "models" / "theirs", tmp_path / "pipeline" / "_models" / "ours"
    for folder in (beside, packaged) if installed else (beside,):
        folder.mkdir(parents=True)
        (folder / "card.json").write_bytes((saved / "card.json").read_bytes())
    monkeypatch.delenv("LANDCOVER_MODELS", raising=False)
    monkeypatch.setattr(bundle, "__file__", str(tmp_path / "pipeline" / "model" / "bundle.py"))
    assert list_bundles() == ["ours" if installed else "theirs"]


def loads_torch(script: str, *arguments: object) -> bool:
    """Tell whether a script that imports `sys` loads torch, in a process of its own."""
    script = f"import sys\n{script}\nprint('torch' in sys.modules)"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {"True": True, "False": False}[output.split()[-1]]


@pytest.mark.parametrize("module", ["bundle", "card", "classes", "batches"])
def test_cards_and_batches_need_no_torch(module):
    assert not loads_torch(f"import pipeline.model.{module}")


def test_describing_models_and_scenes_needs_no_torch(saved, write_raster, three_bands):
    run = "from cli import main\nmain(sys.argv[1:], standalone_mode=False)"
    assert not loads_torch(run, "model", "list")
    assert not loads_torch(run, "model", "show", saved)
    assert not loads_torch(run, "info", write_raster(three_bands))


@pytest.fixture
def three_bands():
    import numpy as np

    return np.full((3, 64, 64), 90, np.uint8)
