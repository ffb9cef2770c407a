"""A model's card: what a network was trained on and what its outputs mean. Plain values, no network.

`card.json` uses the fields of the STAC Machine Learning Model extension (`mlm:`,
https://github.com/stac-extensions/mlm) where there are any, and fields of its own (`landcover:`) otherwise.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ModelError
from pipeline.options import PRODUCT_LEVELS
from pipeline.values import Scaling


@dataclass(frozen=True)
class LandCoverClass:
    """One class of the map."""

    id: int
    """Its value in the raster, 1 to 255."""

    name: str
    """Its name, as legends and tables show it."""

    color: str
    """Its colour in the map, as `#rrggbb`."""


@dataclass(frozen=True)
class ModelCard:
    """What a network was trained on and what its outputs mean."""

    name: str
    """The model's name; a shipped model's folder has the same name."""

    architecture: str
    """The network: a name in the table of `pipeline.model.network`."""

    head: str
    """The layers after the backbone, `linear` or `mlp`."""

    bands: tuple[str, ...]
    """Names of the Sentinel-2 bands, in the order of the network's input channels."""

    level: str
    """Product level of the training pixels, one of `PRODUCT_LEVELS`."""

    scaling: Scaling
    """How reflectance became training values."""

    mean: tuple[float, ...]
    """Mean of the training values in each band, for standardising the input."""

    std: tuple[float, ...]
    """Standard deviation of the training values in each band."""

    tile_size: int
    """Side of a tile in pixels."""

    gsd: float
    """Ground sampling distance of the training pixels, in metres."""

    classes: tuple[LandCoverClass, ...]
    """The classes, in the order of the network's outputs."""

    temperature: float = 1.0
    """Divides the logits before the softmax, so that confidence agrees with accuracy."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Measured quality: accuracy, the split it was measured on, and more."""

    training: dict[str, Any] = field(default_factory=dict)
    """How the model was trained: recipe, data, best epoch."""

    license: str = ""
    """The license of the weights."""

    digest: str = ""
    """Digest of the weights file, as `sha256:<hex>`; empty until the bundle is saved."""

    stem: str = "standard"
    """How much resolution the network's first layers keep, see `pipeline.model.network.STEMS`."""

    upsample: float = 1.0
    """Factor by which the network enlarges its input."""

    def to_json(self) -> dict[str, Any]:
        """Return the card as STAC MLM properties."""
        return {
            "mlm:name": self.name,
            "mlm:architecture": self.architecture,
            "mlm:tasks": ["scene-classification"],
            "mlm:framework": "pytorch",
            "mlm:input": [
                {
                    "name": "tile",
                    "bands": list(self.bands),
                    "input": {
                        "shape": [-1, len(self.bands), self.tile_size, self.tile_size],
                        "dim_order": ["batch", "bands", "height", "width"],
                        "data_type": "float32",
                    },
                    "value_scaling": [
                        {"type": "z-score", "mean": mean, "stddev": std}
                        for mean, std in zip(self.mean, self.std, strict=True)
                    ],
                }
            ],
            "mlm:output": [
                {
                    "name": "land-cover",
                    "tasks": ["scene-classification"],
                    "result": {
                        "shape": [-1, len(self.classes)],
                        "dim_order": ["batch", "class"],
                        "data_type": "float32",
                    },
                    "classification:classes": [
                        {"value": c.id, "name": c.name, "color_hint": c.color.lstrip("#").upper()}
                        for c in self.classes
                    ],
                }
            ],
            "landcover:head": self.head,
            "landcover:stem": self.stem,
            "landcover:upsample": self.upsample,
            "landcover:level": self.level,
            "landcover:scaling": {
                "reflectance": list(self.scaling.reflectance),
                "values": list(self.scaling.values),
            },
            "landcover:gsd": self.gsd,
            "landcover:temperature": self.temperature,
            "landcover:metrics": self.metrics,
            "landcover:training": self.training,
            "landcover:digest": self.digest,
            "license": self.license,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ModelCard":
        """Read what `to_json` wrote.

        Raises:
            ModelError: a field is missing or damaged, or fields contradict each other.
        """
        try:
            (model_input,) = document["mlm:input"]
            (model_output,) = document["mlm:output"]
            scaling = document["landcover:scaling"]
            card = cls(
                name=document["mlm:name"],
                architecture=document["mlm:architecture"],
                head=document["landcover:head"],
                bands=tuple(model_input["bands"]),
                level=document["landcover:level"],
                scaling=Scaling(_limits(scaling["reflectance"]), _limits(scaling["values"])),
                mean=tuple(float(s["mean"]) for s in model_input["value_scaling"]),
                std=tuple(float(s["stddev"]) for s in model_input["value_scaling"]),
                tile_size=int(model_input["input"]["shape"][-1]),
                gsd=float(document["landcover:gsd"]),
                classes=tuple(
                    LandCoverClass(int(c["value"]), c["name"], "#" + c["color_hint"].lower())
                    for c in model_output["classification:classes"]
                ),
                temperature=float(document["landcover:temperature"]),
                metrics=document["landcover:metrics"],
                training=document["landcover:training"],
                license=document["license"],
                digest=document["landcover:digest"],
                # May be missing: the defaults are torchvision's network.
                stem=document.get("landcover:stem", "standard"),
                upsample=float(document.get("landcover:upsample", 1)),
            )
        except KeyError as error:
            raise ModelError(f"The model's card lacks the field {error}.") from error
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise ModelError(f"The model's card cannot be understood: {error}.") from error
        if mismatch := card._mismatch():
            raise ModelError(f"The model's card contradicts itself: {mismatch}.")
        return card

    def _mismatch(self) -> str | None:
        """Return the first contradiction in the card, if any; whether it fits the weights shows later."""
        ids = [c.id for c in self.classes]
        sizes = self.temperature, self.gsd
        checks = (
            (
                len(self.bands) == len(self.mean) == len(self.std) > 0,
                f"{len(self.bands)} bands with {len(self.mean)} means and {len(self.std)} deviations",
            ),
            (
                all(math.isfinite(m) for m in self.mean) and all(0 < s < math.inf for s in self.std),
                "means must be numbers and standard deviations greater than 0",
            ),
            (
                ids and len(set(ids)) == len(ids) and all(1 <= i <= 255 for i in ids),
                "the classes' values must differ and lie in 1 to 255",
            ),
            (
                all(re.fullmatch("#[0-9a-f]{6}", c.color) for c in self.classes),
                "a class's colour must be six hexadecimal digits",
            ),
            (self.level in PRODUCT_LEVELS, f"the level '{self.level}' is neither l1c nor l2a"),
            (1 <= self.upsample < math.inf, "upsampling must be by 1 or more"),
            (
                all(0 < size < math.inf for size in sizes) and self.tile_size >= 1,
                "temperature, ground sampling distance and tile size must be greater than 0",
            ),
        )
        return next((problem for holds, problem in checks if not holds), None)


def _limits(values: list[float]) -> tuple[float, float]:
    """Return the two limits of a scaling; raise ValueError if they are not two rising numbers."""
    low, high = (float(value) for value in values)
    if not low < high:
        raise ValueError(f"scaling limits {low} and {high} do not rise")
    return low, high
