"""A model's card: what a network was trained on and what its outputs mean. Plain values; no network here.

`card.json` follows the STAC Machine Learning Model extension (`mlm:` fields,
https://github.com/stac-extensions/mlm) where it has a field; what it has none for stands under `landcover:`.
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
    """One class of the map: its value in the raster (1-255), its name and its colour as `#rrggbb`."""

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class ModelCard:
    """What a network was trained on and what it gives.

    `bands` are Sentinel-2 band names in channel order; `level` is the product level of the training
    pixels (`l1c` or `l2a`); `mean` and `std` are per band, on the scale of `scaling.values`; `gsd` is
    in metres; logits are divided by `temperature` before the softmax. `stem` and `upsample` say how the
    network differs from torchvision's (see `build_network`).
    """

    name: str
    architecture: str
    head: str
    bands: tuple[str, ...]
    level: str
    scaling: Scaling
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tile_size: int
    gsd: float
    classes: tuple[LandCoverClass, ...]
    temperature: float = 1.0
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    license: str = ""
    digest: str = ""
    stem: str = "standard"
    upsample: float = 1.0

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
        """Read what `to_json` wrote; raises ModelError naming what is missing or does not fit."""
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
                # What is as in torchvision's networks may be left out.
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
        """Say what in the card cannot be, if anything; weights that do not fit it show when loaded."""
        ids = [c.id for c in self.classes]
        if not len(self.bands) == len(self.mean) == len(self.std) > 0:
            return f"{len(self.bands)} bands with {len(self.mean)} means and {len(self.std)} deviations"
        if not all(math.isfinite(m) for m in self.mean) or not all(0 < s < math.inf for s in self.std):
            return "means must be numbers and standard deviations greater than 0"
        if not ids or len(set(ids)) < len(ids) or not all(1 <= i <= 255 for i in ids):
            return "the classes' values must differ and lie in 1 to 255"
        if not all(re.fullmatch("#[0-9a-f]{6}", c.color) for c in self.classes):
            return "a class's colour must be six hexadecimal digits"
        if self.level not in PRODUCT_LEVELS:
            return f"the level '{self.level}' is neither l1c nor l2a"
        if not 1 <= self.upsample < math.inf:
            return "upsampling must be by 1 or more"
        if not 0 < self.temperature < math.inf or not 0 < self.gsd < math.inf or self.tile_size < 1:
            return "temperature, ground sampling distance and tile size must be greater than 0"
        return None


def _limits(values: list[float]) -> tuple[float, float]:
    """Return two rising limits of a scaling; raises ValueError for anything else."""
    low, high = (float(value) for value in values)
    if not low < high:
        raise ValueError(f"scaling limits {low} and {high} do not rise")
    return low, high
