"""The report as one HTML page, which needs no other file and can be sent by mail."""

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from PIL import Image

from pipeline.model.card import ModelCard
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation, TtaGain
from pipeline.training.robustness import POINTS_TO_LOSE, Condition, Outlier
from pipeline.training.samples import choose_samples

CONFUSIONS = 6
"""Pairs of confused classes that the page lists."""


@dataclass(frozen=True)
class Measurements:
    """What may have been measured in addition to an evaluation; the rest is left out of the report."""

    tta: TtaGain | None = None
    """The gain by test-time augmentation."""

    robustness: tuple[Condition, ...] = ()
    """Accuracy on tiles as scenes show them."""

    outliers: tuple[Outlier, ...] = ()
    """Confidence about what the model has no class for."""


def render_page(
    evaluation: Evaluation,
    tiles: TileSet,
    card: ModelCard,
    measurements: Measurements,
    pictures: dict[str, bytes],
) -> str:
    """Return the page as HTML; `pictures` are PNGs by name, as the template shows them."""
    samples = {
        title: [(sample, _data_uri(_encode(sample.picture))) for sample in group]
        for title, group in choose_samples(evaluation, tiles).items()
    }
    return _template().render(
        card=card,
        training=_course_of_training(card.training),
        summary=evaluation.summary(),
        colors={c.name: c.color for c in card.classes},
        confusions=_worst_confusions(evaluation),
        calibration=evaluation.calibration,
        samples=samples,
        pictures={name: _data_uri(picture) for name, picture in pictures.items()},
        measured=measurements,
        limit=POINTS_TO_LOSE,
    )


def _course_of_training(training: dict[str, Any]) -> dict[str, Any]:
    """Return what a card says about how its model was trained: `facts` to list, `recipe` as YAML."""
    recipe = training.get("recipe") or {}
    epochs = sum(stage["epochs"] for stage in recipe.get("stages", ()))
    best, before = training.get("best_epoch"), training.get("before")
    split = training.get("split", "")
    facts = {
        "Tiles to train on": training.get("tiles"),
        "Split": "as the split files say" if split == "files" else split,
        "Best epoch, which is the model": best and (f"{best} of {epochs}" if epochs else best),
        "Started from": recipe.get("initial_weights"),
        "Runs before this one": before and len(before),
    }
    return {
        "facts": {name: value for name, value in facts.items() if value},
        "recipe": yaml.safe_dump(recipe, sort_keys=False) if recipe else "",
    }


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    return environment.get_template("report.html.jinja")


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _encode(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _worst_confusions(evaluation: Evaluation) -> list[dict[str, Any]]:
    counts = evaluation.confusion()
    of_class = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [
        {
            "true": evaluation.classes[true],
            "predicted": evaluation.classes[predicted],
            "tiles": int(counts[true, predicted]),
            "share": counts[true, predicted] / of_class[true],
        }
        for true, predicted in pairs
        if counts[true, predicted]
    ]
