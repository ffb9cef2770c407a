"""The models that the page offers, each loaded when it is first needed."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.model.bundle import Bundle, list_bundles, load_bundle
from pipeline.model.card import ModelCard
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network

Use = Literal["images", "scenes"]


@dataclass
class _Slot:
    """A predictor that is made by the first thread to need it."""

    predictor: Predictor | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Models:
    """The bundles that ship and the one that the app was started with, which is `default`.

    A predictor does one thing at a time, so each model has two: a single image need not wait for a scene to
    finish. Raises ModelError if there is no model `name_or_path`.
    """

    def __init__(self, name_or_path: str) -> None:
        chosen = load_bundle(name_or_path)
        self._bundles: dict[str, Bundle] = {name: load_bundle(name) for name in list_bundles()}
        self.default = chosen.card.name
        if self.default in self._bundles and Path(self._bundles[self.default].path) != chosen.path:
            self.default = f"{chosen.card.name} ({chosen.path.resolve().name})"
        self._bundles[self.default] = chosen
        self._slots = {(name, use): _Slot() for name in self._bundles for use in ("images", "scenes")}

    def card(self, name: str) -> ModelCard:
        """Return a model's card; raises UsageError for a model that is not offered."""
        if name not in self._bundles:
            raise UsageError(f"There is no model {name}: choose one of {', '.join(self._bundles)}.")
        return self._bundles[name].card

    def predictor(self, name: str, use: Use) -> Predictor:
        """Return a model that is ready for use; raises ModelError if its weights cannot be loaded."""
        card = self.card(name)
        slot = self._slots[name, use]
        with slot.lock:
            if slot.predictor is None:
                slot.predictor = Predictor(load_network(self._bundles[name]), card)
            return slot.predictor

    def describe(self) -> list[dict[str, Any]]:
        """Return what the page needs to know about each model, the default first."""
        names = sorted(self._bundles, key=lambda name: (name != self.default, name))
        return [{"name": name, **_describe(self._bundles[name].card)} for name in names]


def _describe(card: ModelCard) -> dict[str, Any]:
    return {
        "architecture": card.architecture,
        "accuracy": card.metrics.get("accuracy"),
        "tile": card.tile_size,
        "gsd": card.gsd,
        "bands": list(card.bands),
        "classes": [{"id": c.id, "name": c.name, "color": c.color} for c in card.classes],
    }
