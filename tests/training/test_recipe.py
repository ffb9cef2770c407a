"""Recipes: what ships loads, and each mistake in one is named."""

import re
from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from pipeline.model.bundle import list_bundles
from pipeline.training.recipe import Recipe, Stage, load_recipe
from pipeline.values import Scaling

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("train-*.yaml"))
MINIMAL = "name: tiny\narchitecture: resnet18\nstages:\n  - {epochs: 3}\n"


@pytest.fixture
def write(tmp_path):
    def write_recipe(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write_recipe


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_that_ships_loads(path):
    recipe = load_recipe(path)
    assert recipe.epochs > 0
    assert recipe.augment.warp_share < 0.5  # at least half is seen at native sharpness


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_that_ships_says_what_eurosats_pixels_are(path):
    recipe = load_recipe(path)
    assert (recipe.level, recipe.gsd, recipe.license) == ("l1c", 10, "MIT")
    pictures = set(recipe.bands) <= {"B02", "B03", "B04"}
    assert recipe.scaling == (Scaling((0, 0.275), (1, 255)) if pictures else Scaling((0, 1), (0, 10_000)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_recipes_that_ship_need_no_other_files(path):
    recipe = load_recipe(path)
    assert recipe.initial_weights in (None, "imagenet", *list_bundles())
    assert recipe.teacher in (None, *list_bundles())


def test_defaults_fill_what_is_not_said(write):
    assert load_recipe(write(MINIMAL)) == Recipe(
        name="tiny", architecture="resnet18", stages=(Stage(epochs=3),)
    )


def test_everything_that_is_said_is_taken(write):
    recipe = load_recipe(
        write(
            MINIMAL
            + "  - {epochs: 2, size: 32, freeze: true}\n"
            + "head: mlp\nbands: [B08, B04]\nmean: [10, 20.5]\nstd: [1, 2]\nlearning_rate: 1\n"
            + "augment: {max_shift: 3, gain: 0}\n"
            + "level: l2a\ngsd: 2.5\nlicense: CC-BY-4.0\n"
            + "scaling: {reflectance: [0, 0.4], values: [0, 200]}\n"
        )
    )
    assert recipe.stages == (Stage(3, 64, False), Stage(2, 32, True))
    assert recipe.bands == ("B08", "B04")
    assert recipe.mean == (10, 20.5)
    assert (recipe.level, recipe.gsd, recipe.license) == ("l2a", 2.5, "CC-BY-4.0")
    assert recipe.scaling == Scaling((0, 0.4), (0, 200))
    assert (recipe.augment.max_shift, recipe.augment.gain, recipe.augment.warp_share) == (3, 0, 0.35)


def test_stages_follow_each_other():
    recipe = Recipe("r", "resnet18", stages=(Stage(2, 32), Stage(1, 48), Stage(3, 64)))
    assert recipe.epochs == 6
    assert [recipe.stage_of(epoch).size for epoch in range(6)] == [32, 32, 48, 64, 64, 64]


def test_relative_paths_start_at_the_recipe(write, tmp_path):
    recipe = load_recipe(write(MINIMAL + "initial_weights: ../weights/w.safetensors\nteacher: runs/light\n"))
    assert recipe.initial_weights == str(tmp_path.parent / "weights" / "w.safetensors")
    assert recipe.teacher == str(tmp_path / "runs" / "light")
    recipe = load_recipe(write(MINIMAL + "initial_weights: w.safetensors\n"))
    assert recipe.initial_weights == str(tmp_path / "w.safetensors")
    recipe = load_recipe(write(MINIMAL + "initial_weights: ../runs/rgb\n"))
    assert recipe.initial_weights == str(tmp_path.parent / "runs" / "rgb")
    for name in ("imagenet", "eurosat-light"):
        assert load_recipe(write(MINIMAL + f"initial_weights: {name}\n")).initial_weights == name
    recipe = load_recipe(write(MINIMAL + "initial_weights: /data/w.safetensors\nteacher: eurosat-light\n"))
    assert recipe.initial_weights == "/data/w.safetensors"
    assert recipe.teacher == "eurosat-light"  # the name of a model that ships


def test_a_checkpoint_gives_the_recipe_back_unchanged(write, tmp_path):
    recipe = load_recipe(write(MINIMAL))
    torch.save(recipe.to_dict(), tmp_path / "recipe.pt")
    assert torch.load(tmp_path / "recipe.pt", weights_only=True) == recipe.to_dict()


MISTAKES = {
    "unknown setting": (MINIMAL + "learning_rat: 0.1\n", "unknown setting 'learning_rat'"),
    "unknown setting in a stage": (
        MINIMAL + "  - {epochs: 1, sise: 32}\n",
        "unknown setting 'stages[1].sise'",
    ),
    "unknown augmentation": (MINIMAL + "augment: {blur: 1}\n", "unknown setting 'augment.blur'"),
    "missing setting": ("name: tiny\nstages: [{epochs: 1}]\n", "the setting 'architecture' is missing"),
    "missing stages": ("name: tiny\narchitecture: resnet18\n", "the setting 'stages' is missing"),
    "missing epochs": (MINIMAL + "  - {size: 32}\n", "the setting 'stages[1].epochs' is missing"),
    "text for a number": (MINIMAL + "learning_rate: high\n", "'learning_rate' must be a number, not 'high'"),
    "number with exponent": (MINIMAL + "weight_decay: 5e-4\n", "to YAML 5e-4 is text: write 5.0e-4"),
    "fraction for a whole number": (MINIMAL + "batch_size: 6.5\n", "'batch_size' must be a whole number"),
    "truth for a number": (MINIMAL + "seed: true\n", "'seed' must be a whole number, not True"),
    "number for truth": (MINIMAL + "compile: 1\n", "'compile' must be true or false, not 1"),
    "number for text": (MINIMAL + "teacher: 5\n", "'teacher' must be text or null, not 5"),
    "none": (MINIMAL + "teacher: none\n", "not 'none' (YAML's word for nothing is null)"),
    "text for a list": (MINIMAL + "bands: B04\n", "'bands' must be a list, not 'B04'"),
    "no bands": (MINIMAL + "bands: []\n", "'bands' is empty"),
    "a band by its colour": (MINIMAL + "bands: [red, B03, B02]\n", "'bands' has 'red': write B04"),
    "a band that is none": (MINIMAL + "bands: [B04, B99]\n", "'bands' has 'B99'; known are B01, B02"),
    "a band twice": (MINIMAL + "bands: [B04, B03, B04]\n", "'bands' names B04 twice"),
    "text in a list": (MINIMAL + "mean: [1, two, 3]\nstd: [1, 1, 1]\n", "'mean' must be a list or null"),
    "nothing": (MINIMAL + "batch_size:\n", "'batch_size' must be a whole number, not None"),
    "not finite": (MINIMAL + "learning_rate: .inf\n", "'learning_rate' must be a number, not inf"),
    "a stage that is no mapping": (MINIMAL + "  - 5\n", "'stages[1]' must be settings"),
    "stages that are a number": (MINIMAL.split("stages")[0] + "stages: 3\n", "'stages' must be a list"),
    "an augmentation that is a number": (MINIMAL + "augment: 3\n", "'augment' must be settings"),
    "no stages": (MINIMAL.split("stages")[0] + "stages: []\n", "'stages' is empty"),
    "unknown architecture": (
        MINIMAL.replace("resnet18", "vgg"),
        "'architecture' is 'vgg'; known are resnet50",
    ),
    "unknown head": (MINIMAL + "head: big\n", "'head' is 'big'; known are linear, mlp"),
    "unknown optimizer": (MINIMAL + "optimizer: lion\n", "'optimizer' is 'lion'; known are sgd, adamw"),
    "unknown precision": (MINIMAL + "precision: float8\n", "'precision' is 'float8'"),
    "no epochs": (MINIMAL + "  - {epochs: 0}\n", "'stages[1].epochs' must be at least 1, not 0"),
    "all warm-up": (MINIMAL + "warmup_epochs: 3\n", "'warmup_epochs' must be from 0 to 2, not 3"),
    "share above one": (MINIMAL + "label_smoothing: 10\n", "'label_smoothing' must be from 0 to 1, not 10"),
    "no learning": (MINIMAL + "learning_rate: 0\n", "'learning_rate' must be greater than 0"),
    "a mean too few": (MINIMAL + "mean: [1, 2]\nstd: [1, 1, 1]\n", "'mean' has 2 values for 3 bands"),
    "mean without deviation": (MINIMAL + "mean: [1, 2, 3]\n", "must be given both or neither"),
    "shrinking scale": (MINIMAL + "augment: {max_scale: 0.5}\n", "'augment.max_scale' must be at least 1"),
    "unknown level": (MINIMAL + "level: l3\n", "'level' is 'l3'; known are l1c, l2a"),
    "no ground": (MINIMAL + "gsd: 0\n", "'gsd' must be greater than 0"),
    "half a scaling": (
        MINIMAL + "scaling: {reflectance: [0, 1]}\n",
        "the setting 'scaling.values' is missing",
    ),
    "a scaling of three": (
        MINIMAL + "scaling: {reflectance: [0, 0.1, 0.3], values: [1, 255]}\n",
        "'scaling.reflectance' must be a list of 2",
    ),
    "a falling scaling": (
        MINIMAL + "scaling: {reflectance: [0.3, 0], values: [1, 255]}\n",
        "'scaling.reflectance' must rise, not go from 0.3 to 0",
    ),
    "a scaling beyond 16 bits": (
        MINIMAL + "scaling: {reflectance: [0, 1], values: [0, 100000]}\n",
        "'scaling.values' must be from 0 to 32767, not 100000",
    ),
    "unknown stem": (MINIMAL + "stem: wide\n", "'stem' is 'wide'; known are standard, unpooled, full"),
    "unknown schedule": (MINIMAL + "schedule: step\n", "'schedule' is 'step'; known are cosine, one_cycle"),
    "shrinking tiles": (MINIMAL + "upsample: 0.5\n", "'upsample' must be at least 1, not 0.5"),
    "no patience": (MINIMAL + "patience: 0\n", "'patience' must be at least 1, not 0"),
    "less than no mixing": (MINIMAL + "cutmix: -1\n", "'cutmix' must be at least 0, not -1"),
    "more than all mosaics": (MINIMAL + "mosaic_share: 1.5\n", "'mosaic_share' must be from 0 to 1, not 1.5"),
    "opinions of nobody": (MINIMAL + "teacher_cached: true\n", "'teacher_cached' needs a 'teacher'"),
    "no mapping": ("- name\n", "not a list of settings"),
    "empty": ("", "not a list of settings"),
    "no YAML": ("name: [\n", "is not valid YAML"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_named(write, text, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        load_recipe(write(text))
    assert "recipe.yaml" in str(caught.value)


def test_a_recipe_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.yaml cannot be read: No such file"):
        load_recipe(tmp_path / "absent.yaml")
