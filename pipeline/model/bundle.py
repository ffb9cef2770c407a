"""Model bundles: a folder with the weights and a card that says all that `classify` needs to know.

`model.safetensors` holds the weights: matrices and kernels in half precision, vectors in single.
`card.json` follows the STAC Machine Learning Model extension (`mlm:` fields,
https://github.com/stac-extensions/mlm) where it has a field; what it has none for stands under
`landcover:`.
"""

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from pipeline.errors import ModelError
from pipeline.model.network import build_network
from pipeline.outputs.atomic import make_folder, write_files

WEIGHTS = "model.safetensors"
CARD = "card.json"


@dataclass(frozen=True)
class LandCoverClass:
    """One class of the map: its value in the raster (1-255), its name and its colour as `#rrggbb`."""

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class Scaling:
    """How reflectance became the values of the training tiles: clipped, then stretched linearly."""

    reflectance: tuple[float, float]
    values: tuple[float, float]


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
        if self.level not in ("l1c", "l2a"):
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


@dataclass(frozen=True)
class Bundle:
    """A model on disk: its card and the folder it lies in."""

    card: ModelCard
    path: Path

    def load_network(self) -> nn.Module:
        """Return the network in evaluation mode, float32, on the CPU.

        Raises ModelError if the weights are missing, damaged, or not those that the card describes.
        """
        weights_path = self.path / WEIGHTS
        if not weights_path.is_file():
            raise ModelError(f"The model folder {self.path} has no {WEIGHTS}.")
        if digest_of(weights_path) != self.card.digest:
            raise ModelError(f"{weights_path} is not the file that {CARD} describes: its SHA-256 differs.")
        try:
            weights = load_file(weights_path)
        except SafetensorError as error:
            raise ModelError(f"{weights_path} is damaged: {error}.") from error
        with torch.device("meta"):  # the loaded tensors take the place of random ones that cost time
            network = build_network(
                self.card.architecture,
                bands=len(self.card.bands),
                classes=len(self.card.classes),
                head=self.card.head,
                stem=self.card.stem,
                upsample=self.card.upsample,
            )
        try:
            network.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise ModelError(
                f"{weights_path} does not fit the {self.card.architecture} with {len(self.card.bands)} bands "
                f"and {len(self.card.classes)} classes that {CARD} describes."
            ) from error
        return network.float().eval()


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Find a bundle by the name of one that ships, or by its folder, and read its card.

    Raises ModelError, naming the bundles that ship, if there is none.
    """
    candidates = [Path(name_or_path)]
    if len(candidates[0].parts) == 1:
        candidates.append(shipped_models() / name_or_path)
    for path in candidates:
        if (path / CARD).is_file():
            return Bundle(_read_card(path / CARD), path)
    shipped = ", ".join(list_bundles()) or "none"
    raise ModelError(
        f"No model '{name_or_path}': it is neither a folder with a {CARD} "
        f"nor one of those that ship ({shipped})."
    )


def _read_card(path: Path) -> ModelCard:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.") from error
    try:
        return ModelCard.from_json(document)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def save_bundle(network: nn.Module, card: ModelCard, path: Path) -> Bundle:
    """Write weights and card into the folder `path`, whole or not at all.

    Returns the bundle as `load_bundle` would: its card has the weights' digest. Raises OutputError if
    the folder or a file cannot be written.
    """
    # Vectors (biases, batch-norm statistics) cost nothing and have the wider range: they stay single.
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    weights = save({name: tensor.cpu() for name, tensor in tensors.items()})
    card = replace(card, digest="sha256:" + hashlib.sha256(weights).hexdigest())
    make_folder(path)
    write_files({path / WEIGHTS: weights, path / CARD: _card_bytes(card)})
    return load_bundle(path)


def rewrite_card(bundle: Bundle, **changes: Any) -> Bundle:
    """Change fields of a saved bundle's card, its metrics say; the weights stay."""
    write_files({bundle.path / CARD: _card_bytes(replace(bundle.card, **changes))})
    return load_bundle(bundle.path)


def _card_bytes(card: ModelCard) -> bytes:
    return (json.dumps(card.to_json(), indent=2) + "\n").encode("utf-8")


def list_bundles() -> list[str]:
    """Return the names of the bundles that ship, in alphabetical order."""
    return sorted(card.parent.name for card in shipped_models().glob(f"*/{CARD}"))


def shipped_models() -> Path:
    """Return the folder of the bundles that ship: inside an installed package, else `models/` beside it.

    The environment variable LANDCOVER_MODELS names another one.
    """
    if override := os.environ.get("LANDCOVER_MODELS"):
        return Path(override)
    package = Path(__file__).resolve().parents[1]
    # In this order: beside an installed package `models` may be anybody's.
    packaged = package / "_models"
    return packaged if packaged.is_dir() else package.parent / "models"


def digest_of(path: Path) -> str:
    """Return the file's digest as `sha256:<hex>`."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def standardisation(card: ModelCard, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation as `(1, B, 1, 1)` float32 tensors that broadcast over a batch."""
    shape = (1, len(card.bands), 1, 1)
    mean = torch.tensor(card.mean, dtype=torch.float32, device=device).reshape(shape)
    std = torch.tensor(card.std, dtype=torch.float32, device=device).reshape(shape)
    return mean, std
