"""Training recipes: the YAML files of `configs/`, read into checked dataclasses."""

import math
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from pipeline.errors import UsageError
from pipeline.model.network import ARCHITECTURES, HEADS, STEMS
from pipeline.options import PRODUCT_LEVELS
from pipeline.scenes.band_names import BANDS, band_of
from pipeline.training.augment import AugmentOptions
from pipeline.values import EUROSAT_RGB_SCALING, NATURAL_COLOR, Scaling

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "one_cycle")
IMAGENET = "imagenet"
"""The initial weights that torchvision fetches."""


@dataclass(frozen=True)
class Stage:
    """A number of epochs at one tile size, with the backbone frozen or not."""

    epochs: int
    """How many."""

    size: int = 64
    """Pixels; less than the tile is a random crop at native sharpness."""

    freeze: bool = False
    """Train the head alone."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, apart from the data.

    Tiles do not say what their pixels mean, so the recipe does, in the terms of the model's card.
    """

    name: str
    """The model's name."""

    architecture: str
    """One of `ARCHITECTURES`."""

    stages: tuple[Stage, ...]
    """What to do in which epochs."""

    head: str = "linear"
    """One of `HEADS`."""

    dropout: float = 0.0
    """Share of features that the head ignores at random while training."""

    stem: str = "standard"
    """One of `STEMS`."""

    upsample: float = 1.0
    """By how much the network enlarges its tiles."""

    bands: tuple[str, ...] = NATURAL_COLOR
    """Sentinel-2 band names in channel order."""

    level: str = "l1c"
    """The product level of the tiles' reflectance, one of `PRODUCT_LEVELS`."""

    gsd: float = 10.0
    """Meters of ground per pixel."""

    scaling: Scaling = EUROSAT_RGB_SCALING
    """How reflectance became pixel values. Values beyond its limits are clipped to them, as a scene's are."""

    license: str = ""
    """The terms under which the trained model may be used; empty says nothing."""

    initial_weights: str | None = None
    """`imagenet`, a .safetensors file in torchvision's layout, or a bundle; null is random."""

    teacher: str | None = None
    """A bundle whose probabilities are learned from, beside the labels."""

    teacher_weight: float = 0.5
    """The teacher's share of the targets; the rest are the labels'."""

    teacher_cached: bool = False
    """Ask the teacher once about each tile as it is, and not about every augmented view: less work, and less
    to learn from it."""

    mean: tuple[float, ...] | None = None
    """Of the pixel values, per band; null is the initial bundle's or, without one for the same bands, the
    training tiles' own."""

    std: tuple[float, ...] | None = None
    """Standard deviation, as `mean`."""

    optimizer: str = "sgd"
    """One of `OPTIMIZERS`."""

    schedule: str = "cosine"
    """How the learning rate rises and falls, one of `SCHEDULES`."""

    learning_rate: float = 0.05
    """The highest."""

    weight_decay: float = 5e-4
    """Of kernels and matrices; biases and scales have none."""

    warmup_epochs: float = 2
    """Epochs in which the learning rate rises."""

    batch_size: int = 64
    """Tiles per step, in all processes together."""

    label_smoothing: float = 0.1
    """Share of the targets that is spread over all classes."""

    mixup: float = 0.0
    """MixUp's alpha, of the Beta distribution that shares are drawn from; 0 is off."""

    cutmix: float = 0.0
    """CutMix's alpha; with both, each batch gets one of them."""

    mosaic_share: float = 0.0
    """Share of each batch that becomes mosaics of two or three tiles, with targets by area."""

    outlier_share: float = 0.0
    """Share of each batch that is covered with made clouds or snow and has no class."""

    gradient_clip: float = 5.0
    """The largest norm of a gradient."""

    ema_decay: float = 0.999
    """How much of the averaged weights stays at each step."""

    validation_share: float = 0.2
    """Share of the tiles to validate on, where no split is given or known."""

    evaluate_every: int = 1
    """Epochs from one validation to the next."""

    patience: int | None = None
    """Stop after so many validations of the last stage without an improvement; null never stops early."""

    precision: str = "auto"
    """One of `PRECISIONS`; auto is half precision where the device is faster in it."""

    compile: bool = False
    """Compile the networks: faster steps, for a minute at the start."""

    seed: int = 0
    """Decides everything that is random."""

    augment: AugmentOptions = field(default_factory=AugmentOptions)
    """How tiles are varied."""

    @property
    def epochs(self) -> int:
        """Return the number of epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> Stage:
        """Return the stage that the epoch (from 0) lies in."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        raise IndexError("epoch beyond the last stage")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values for JSON or a checkpoint."""
        return asdict(self)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe. Relative paths in it start at its own folder.

    Raises:
        UsageError: a setting is unknown, missing, of the wrong type or out of range; the message names it.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"The recipe {path} is not valid YAML: {error}.") from error
    try:
        recipe = _parse(document)
        _check(recipe)
    except ValueError as error:
        raise UsageError(f"The recipe {path} cannot be used: {error}.") from error
    return replace(
        recipe,
        initial_weights=_locate(recipe.initial_weights, path.parent),
        teacher=_locate(recipe.teacher, path.parent),
    )


def _locate(source: str | None, folder: Path) -> str | None:
    """Return the path of a file or bundle; a bare name, of a model that ships or `imagenet`, stays one."""
    if source is None or not ("/" in source or source.endswith(".safetensors")):
        return source
    return str((folder / source).resolve())


def _parse(document: Any) -> Recipe:
    """Make a recipe of a YAML document.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    if not isinstance(document, dict):
        raise ValueError("it is not a list of settings, 'name: value'")  # noqa: TRY004 - the user's file
    values = dict(document)
    if isinstance(values.get("stages"), list):  # _build reports anything else
        values["stages"] = tuple(_build(Stage, s, f"stages[{i}]") for i, s in enumerate(values["stages"]))
    for name, kind in (("scaling", Scaling), ("augment", AugmentOptions)):
        if name in values:
            values[name] = _build(kind, values[name], name)
    recipe = _build(Recipe, values)
    if "warmup_epochs" not in values:  # the default may be too long for a short run
        recipe = replace(recipe, warmup_epochs=max(0, min(recipe.warmup_epochs, recipe.epochs - 1)))
    return recipe


def _build(cls: type, values: Any, where: str = "") -> Any:
    """Make the dataclass `cls` of a mapping, after checking its names and types.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"'{where}' must be settings, 'name: value', not {values!r}")  # noqa: TRY004
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    prefix = where and where + "."
    known = {f.name: f for f in fields(cls)}
    for name in values:
        if name not in known:
            raise ValueError(f"unknown setting '{prefix}{name}'")
    for name, kind in get_type_hints(cls).items():
        if name not in values:
            if known[name].default is known[name].default_factory is MISSING:
                raise ValueError(f"the setting '{prefix}{name}' is missing")
        elif not _is_a(values[name], kind):
            raise ValueError(
                f"'{prefix}{name}' must be {_in_words(kind)}, not {values[name]!r}{_yaml_hint(values[name])}"
            )
    return cls(**values)


def _is_a(value: Any, kind: Any) -> bool:
    """Tell whether a value has a dataclass field's type: an int may be a float, a bool may not."""
    if isinstance(kind, UnionType):
        nothing = isinstance(value, str) and value.lower() == "none"  # meant as null, not as a file name
        return not nothing and any(_is_a(value, option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)  # (float, ...) is of any length, (float, float) of two
        if not isinstance(value, tuple) or (... not in kinds and len(value) != len(kinds)):
            return False
        return all(_is_a(item, kinds[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _in_words(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return f"{_in_words(get_args(kind)[0])} or null"
    if get_origin(kind) is tuple:
        return "a list" if ... in get_args(kind) else f"a list of {len(get_args(kind))}"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[kind]


def _yaml_hint(value: Any) -> str:
    """Explain what YAML 1.1 takes for text although it is meant otherwise: the number `5e-4`, and `none`."""
    if isinstance(value, str) and value.lower() == "none":
        return " (YAML's word for nothing is null)"
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        return f" (to YAML {value} is text: write {value.lower().replace('e', '.0e')})"
    return ""


def _check(recipe: Recipe) -> None:
    """Raise ValueError for a setting out of range."""
    for name, known in (
        ("architecture", tuple(ARCHITECTURES)),
        ("head", HEADS),
        ("stem", STEMS),
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("precision", PRECISIONS),
        ("level", PRODUCT_LEVELS),
    ):
        _one_of(name, getattr(recipe, name), known)
    _check_scaling(recipe.scaling)
    _check_bands(recipe.bands)
    _check_epochs(recipe)
    _within("batch_size", recipe.batch_size, 2)  # batch norm needs two
    _within("upsample", recipe.upsample, 1)
    for name in ("weight_decay", "mixup", "cutmix"):
        _within(name, getattr(recipe, name), 0)
    for name in (
        "dropout",
        "teacher_weight",
        "label_smoothing",
        "mosaic_share",
        "outlier_share",
        "ema_decay",
    ):
        _within(name, getattr(recipe, name), 0, 1)
    for name in ("gsd", "learning_rate", "gradient_clip", "validation_share"):
        if getattr(recipe, name) <= 0:
            raise ValueError(f"'{name}' must be greater than 0")
    if recipe.teacher_cached and recipe.teacher is None:
        raise ValueError("'teacher_cached' needs a 'teacher' whose opinions to cache")
    _check_standards(recipe)
    _check_augment(recipe.augment)


def _check_scaling(scaling: Scaling) -> None:
    for name in ("reflectance", "values"):
        low, high = getattr(scaling, name)
        if not low < high:
            raise ValueError(f"'scaling.{name}' must rise, not go from {low:g} to {high:g}")
    for value in scaling.values:
        _within("scaling.values", value, 0, 32_767)  # tiles are held in 8 or 16 bits


def _check_epochs(recipe: Recipe) -> None:
    if not recipe.stages:
        raise ValueError("'stages' is empty")
    for i, stage in enumerate(recipe.stages):
        _within(f"stages[{i}].epochs", stage.epochs, 1)
        _within(f"stages[{i}].size", stage.size, 8)
    _within("evaluate_every", recipe.evaluate_every, 1)
    _within("warmup_epochs", recipe.warmup_epochs, 0, recipe.epochs - 1)
    if recipe.patience is not None:
        _within("patience", recipe.patience, 1)


def _check_standards(recipe: Recipe) -> None:
    for name in ("mean", "std"):
        values = getattr(recipe, name)
        if values is not None and len(values) != len(recipe.bands):
            raise ValueError(f"'{name}' has {len(values)} values for {len(recipe.bands)} bands")
    if (recipe.mean is None) != (recipe.std is None):
        raise ValueError("'mean' and 'std' must be given both or neither")
    if recipe.std is not None and min(recipe.std) <= 0:
        raise ValueError("'std' must be greater than 0")


def _check_augment(options: AugmentOptions) -> None:
    for name in ("warp_share", "soften_share"):
        _within(f"augment.{name}", getattr(options, name), 0, 1)
    _within("augment.max_scale", options.max_scale, 1)
    for name in ("max_shift", "band_detail", "gain", "band_gain", "band_offset"):
        _within(f"augment.{name}", getattr(options, name), 0)


def _check_bands(bands: Sequence[str]) -> None:
    if not bands:
        raise ValueError("'bands' is empty")
    for band in bands:
        if band not in BANDS:
            meant = band_of(band)
            hint = f": write {meant}" if meant else f"; known are {', '.join(BANDS)}"
            raise ValueError(f"'bands' has '{band}'{hint}")
        if bands.count(band) > 1:
            raise ValueError(f"'bands' names {band} twice")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"'{name}' is '{value}'; known are {', '.join(known)}")


def _within(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        limits = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"'{name}' must be {limits}, not {value}")
