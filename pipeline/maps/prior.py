"""How common each class is where a scene lies, and what that makes of a tile's probabilities.

A network trained on tiles takes their shares of the classes for granted: EuroSAT has as many highways as
forests. Bayes' rule exchanges these shares for those of the ground (Saerens, Latinne & Decaestecker, 2002,
Neural Computation 14, eq. 2.4): p'(class) ~ p(class) * share on the ground / share in training.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.errors import UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info
from pipeline.options import AUTO_PRIOR, NAMED_PRIORS, TRAINING_PRIOR

PRIORS = Path(__file__).with_name("priors")
"""The folder of the named priors: a YAML file each, with its source."""

EUROSAT_TILES = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
"""How many tiles EuroSAT has of each class (Helber et al., 2019, table 2): the shares in training."""

EUROPE = (-25.0, 34.0, 45.0, 72.0)
"""West, south, east and north of what counts as Europe, in degrees."""


@dataclass(frozen=True)
class Prior:
    """The shares of classes on the ground, ready for a model's probabilities."""

    name: str
    """A named prior, or the name of the file; `none` for a model that none is known for."""

    shares: dict[str, float]
    """The share of each class, which sum up to 1; empty where the model's own shares are kept."""

    ratio: tuple[float, ...] | None = None
    """Share on the ground by share in training, in the order of the model's classes; None changes nothing."""

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities (k, classes) of tiles on this ground, which sum up to 1 again."""
        if self.ratio is None:
            return probabilities
        weighted = probabilities * np.asarray(self.ratio, np.float64)
        scaled = weighted / weighted.sum(axis=-1, keepdims=True)
        return np.asarray(scaled, probabilities.dtype)

    def record(self) -> dict[str, Any]:
        """Return plain values that tell one prior from another."""
        return {"name": self.name, "shares": self.shares}


def find_prior(wanted: str, card: ModelCard, place: tuple[float, float] | None) -> tuple[Prior, Note]:
    """Return the prior for a scene, and a note that says why; `wanted` is the option `prior`.

    `place` is the scene's longitude and latitude in degrees, None in pixel space.

    Raises:
        UsageError: as `load_prior` does.
    """
    if wanted != AUTO_PRIOR:
        prior = load_prior(wanted, card)
        return prior, _note(f"{prior.name}, as stated by `prior`")
    if not has_eurosat_classes(card):
        return Prior("none", {}), _note("those of the training tiles, as none are known for its classes")
    if place is None:
        return load_prior(TRAINING_PRIOR, card), _note(f"{TRAINING_PRIOR}, as the scene has no place")
    name, where = ("europe", "in") if in_europe(*place) else ("world", "outside")
    remedy = f"`prior` {TRAINING_PRIOR} keeps those of the training tiles"
    return load_prior(name, card), _note(f"{name}, as the scene lies {where} Europe; {remedy}")


def _note(shares: str) -> Note:
    return info("prior-chosen", "prior", f"The model expects classes with these shares: {shares}.")


def check_prior(wanted: str, card: ModelCard) -> None:
    """Raise UsageError if the option `prior` cannot be followed with a model."""
    if wanted != AUTO_PRIOR:
        load_prior(wanted, card)


def in_europe(longitude: float, latitude: float) -> bool:
    """Return whether a place in degrees lies in the box that counts as Europe."""
    west, south, east, north = EUROPE
    return west <= longitude <= east and south <= latitude <= north


def has_eurosat_classes(card: ModelCard) -> bool:
    """Return whether a model's classes are EuroSAT's ten, whose named priors fit it."""
    return {c.name for c in card.classes} == EUROSAT_TILES.keys()


def load_prior(wanted: str, card: ModelCard) -> Prior:
    """Return a named prior or that of a YAML file for a model's classes.

    Raises:
        UsageError: there is no such prior, its file is wrong, or it does not fit the model's classes.
    """
    names = [c.name for c in card.classes]
    if wanted in NAMED_PRIORS and not has_eurosat_classes(card):
        raise UsageError(
            f"`prior` {wanted} has shares of EuroSAT's ten classes, but {card.name} has others: give a file "
            f"that names {', '.join(names)}, or leave `prior` out."
        )
    if wanted == TRAINING_PRIOR:
        return Prior(TRAINING_PRIOR, {})
    if wanted in NAMED_PRIORS:
        return _prior(wanted, read_shares(PRIORS / f"{wanted}.yaml"), names)
    path = Path(wanted)
    if not path.is_file():
        raise UsageError(
            f"`prior` is {AUTO_PRIOR}, {', '.join(NAMED_PRIORS)} or a YAML file of class shares; there is no "
            f"file {wanted}."
        )
    return _prior(path.name, read_shares(path), names)


def read_shares(path: Path) -> dict[str, float]:
    """Return the shares of classes in a YAML file as they are written: any positive numbers.

    Raises:
        UsageError: the file cannot be read, or does not hold shares.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise UsageError(f"The file {path} of `prior` cannot be read as YAML ({error}).") from error
    shares = content.get("shares") if isinstance(content, dict) else None
    if not isinstance(shares, dict):
        raise UsageError(
            f"The file {path} of `prior` holds no class shares: write `shares:` and a line for each class, "
            "such as Forest: 0.35."
        )
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
            raise UsageError(
                f"The file {path} of `prior` gives {name} the share {share}: a share is a number greater "
                "than 0, such as 0.001 for what is hardly ever there."
            )
    return {str(name): float(share) for name, share in shares.items()}


def _prior(name: str, shares: dict[str, float], classes: list[str]) -> Prior:
    """Return the prior of shares, scaled to sum up to 1, for a model's classes.

    A model of other classes than EuroSAT's is taken to have been trained on as many tiles of each.
    """
    missing = [c for c in classes if c not in shares]
    unknown = [c for c in shares if c not in classes]
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"names {', '.join(unknown)}"
        raise UsageError(
            f"`prior` {name} {wrong}: it has to name each of the model's classes and no others "
            f"({', '.join(classes)})."
        )
    total = sum(shares.values())
    ground = {c: shares[c] / total for c in classes}
    tiles = EUROSAT_TILES if set(classes) == EUROSAT_TILES.keys() else dict.fromkeys(classes, 1)
    ratio = tuple(ground[c] / tiles[c] * sum(tiles.values()) for c in classes)
    return Prior(name, ground, ratio)
