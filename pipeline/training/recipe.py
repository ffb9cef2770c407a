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
from pipeline.scenes.sentinel2 import BANDS, band_of
from pipeline.training.augment import AugmentOptions
from pipeline.values import EUROSAT_RGB_SCALING, NATURAL_COLOR, Scaling

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "one_cycle")
IMAGENET = "imagenet"  # the initial weights that torchvision fetches


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one tile size, with the backbone frozen or not."""

    epochs: int
    size: int = 64  # pixels; less than the tile is a random crop at native sharpness
    freeze: bool = False


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run, apart from the data.

    Tiles do not say what their pixels are, so the recipe does, in words of the model's card:

    - `bands`: Sentinel-2 band names in channel order.
    - `level`: `l1c` or `l2a`, the product level whose reflectance the pixels were made of.
    - `gsd`: the size of a pixel on the ground, in metres.
    - `scaling`: how reflectance became pixel values; by default as in EuroSAT's RGB tiles. Values beyond
      its limits are clipped to them, as a scene's are.
    - `license`: under what terms the trained model may be used; empty says nothing.
    """

    name: str
    architecture: str
    stages: tuple[Stage, ...]
    head: str = "linear"
    dropout: float = 0.0
    stem: str = "standard"
    upsample: float = 1.0  # how much the network enlarges its tiles
    bands: tuple[str, ...] = NATURAL_COLOR
    level: str = "l1c"
    gsd: float = 10.0
    scaling: Scaling = EUROSAT_RGB_SCALING
    license: str = ""
    initial_weights: str | None = None  # imagenet, a .safetensors in torchvision's layout, or a bundle
    teacher: str | None = None  # a bundle whose opinion is learnt from, beside the labels
    teacher_weight: float = 0.5
    mean: tuple[float, ...] | None = None  # per band, of the pixel values; None is the initial bundle's or,
    std: tuple[float, ...] | None = None  # without one for the same bands, the training tiles' own
    optimizer: str = "sgd"
    schedule: str = "cosine"
    learning_rate: float = 0.05  # the highest
    weight_decay: float = 5e-4
    warmup_epochs: float = 2
    batch_size: int = 64  # of all processes together
    label_smoothing: float = 0.1
    mixup: float = 0.0  # alpha of the Beta distribution that shares of a mix are drawn from; 0 is off
    cutmix: float = 0.0  # the same; with both, each batch gets the one or the other
    outlier_share: float = 0.0  # of a batch that clouds or snow cover, and that is of no class
    gradient_clip: float = 5.0
    ema_decay: float = 0.999
    validation_share: float = 0.2
    evaluate_every: int = 1
    patience: int | None = None  # stop after so many validations of the last stage without a better one
    precision: str = "auto"  # half precision where the device is faster in it
    compile: bool = False
    seed: int = 0
    augment: AugmentOptions = field(default_factory=AugmentOptions)

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
    """Read a recipe; raises UsageError naming what is unknown, missing, of the wrong kind or out of range.

    Relative paths of files in it start at its own folder.
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
    """Return where a file or a bundle is; a bare name is that of a model that ships, or `imagenet`."""
    if source is None or not ("/" in source or source.endswith(".safetensors")):
        return source
    return str((folder / source).resolve())


def _parse(document: Any) -> Recipe:
    """Make a recipe of what YAML gave; raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError("it is not a list of settings, 'name: value'")
    values = dict(document)
    if isinstance(values.get("stages"), list):  # anything else is told by _build
        values["stages"] = tuple(_build(Stage, s, f"stages[{i}]") for i, s in enumerate(values["stages"]))
    for name, kind in (("scaling", Scaling), ("augment", AugmentOptions)):
        if name in values:
            values[name] = _build(kind, values[name], name)
    recipe = _build(Recipe, values)
    if "warmup_epochs" not in values:  # the usual ones may be too many for a short run
        recipe = replace(recipe, warmup_epochs=max(0, min(recipe.warmup_epochs, recipe.epochs - 1)))
    return recipe


def _build(cls: type, values: Any, where: str = "") -> Any:
    """Make the dataclass `cls` of a mapping whose names and types are checked; raises ValueError."""
    if not isinstance(values, dict):
        raise ValueError(f"'{where}' must be settings, 'name: value', not {values!r}")
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
    """Tell whether a value is of a dataclass field's type; whole numbers are numbers, booleans are not."""
    if isinstance(kind, UnionType):
        nothing = isinstance(value, str) and value.lower() == "none"  # meant as null, and no name of a file
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
    """Explain what everyone writes and YAML 1.1 takes for text: the number `5e-4`, and `none`."""
    if isinstance(value, str) and value.lower() == "none":
        return " (YAML's word for nothing is null)"
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        return f" (to YAML {value} is text: write {value.lower().replace('e', '.0e')})"
    return ""


def _check(recipe: Recipe) -> None:
    """Raise ValueError for a setting out of range."""
    _one_of("architecture", recipe.architecture, tuple(ARCHITECTURES))
    _one_of("head", recipe.head, HEADS)
    _one_of("stem", recipe.stem, STEMS)
    _one_of("optimizer", recipe.optimizer, OPTIMIZERS)
    _one_of("schedule", recipe.schedule, SCHEDULES)
    _one_of("precision", recipe.precision, PRECISIONS)
    _one_of("level", recipe.level, PRODUCT_LEVELS)
    for name in ("reflectance", "values"):
        low, high = getattr(recipe.scaling, name)
        if not low < high:
            raise ValueError(f"'scaling.{name}' must rise, not go from {low:g} to {high:g}")
    for value in recipe.scaling.values:
        _within("scaling.values", value, 0, 32_767)  # tiles are held in 8 or 16 bits
    _check_bands(recipe.bands)
    if not recipe.stages:
        raise ValueError("'stages' is empty")
    for i, stage in enumerate(recipe.stages):
        _within(f"stages[{i}].epochs", stage.epochs, 1)
        _within(f"stages[{i}].size", stage.size, 8)
    _within("batch_size", recipe.batch_size, 2)  # batch norm needs two
    _within("evaluate_every", recipe.evaluate_every, 1)
    _within("warmup_epochs", recipe.warmup_epochs, 0, recipe.epochs - 1)
    if recipe.patience is not None:
        _within("patience", recipe.patience, 1)
    _within("upsample", recipe.upsample, 1)
    for name in ("weight_decay", "mixup", "cutmix"):
        _within(name, getattr(recipe, name), 0)
    for name in ("dropout", "teacher_weight", "label_smoothing", "outlier_share", "ema_decay"):
        _within(name, getattr(recipe, name), 0, 1)
    for name in ("gsd", "learning_rate", "gradient_clip", "validation_share"):
        if getattr(recipe, name) <= 0:
            raise ValueError(f"'{name}' must be greater than 0")
    for name in ("mean", "std"):
        values = getattr(recipe, name)
        if values is not None and len(values) != len(recipe.bands):
            raise ValueError(f"'{name}' has {len(values)} values for {len(recipe.bands)} bands")
    if (recipe.mean is None) != (recipe.std is None):
        raise ValueError("'mean' and 'std' must be given both or neither")
    if recipe.std is not None and min(recipe.std) <= 0:
        raise ValueError("'std' must be greater than 0")
    for name in ("warp_share", "soften_share"):
        _within(f"augment.{name}", getattr(recipe.augment, name), 0, 1)
    _within("augment.max_scale", recipe.augment.max_scale, 1)
    for name in ("max_shift", "band_detail", "gain", "band_gain", "band_offset"):
        _within(f"augment.{name}", getattr(recipe.augment, name), 0)


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
