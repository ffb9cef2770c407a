"""How right maps of real scenes are: `python benchmarks/real_scenes.py DATA` scores a model on labelled ones.

DATA holds `scenes/NAME.tif` and `truth.json`, which gives for each scene its `level` and `offset`, and one or
both of

- `classes`: the model's classes that count as right anywhere in the scene (a label set);
- `truth`: a raster on the scene's own grid, see `MEANINGS`.

The score is the mean over families (of scenes that share source and kind of truth), so that a family of many
small scenes counts no more than one of a few large ones. The interval is a bootstrap over places: two dates
or product levels of the same ground are drawn together. Choose a model by one half of the places and report
it on the other.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio

from pipeline.classify import PreparedScene, compute_map, prepare_scene
from pipeline.maps.landcover_map import NO_CLASS, LandcoverMap
from pipeline.model.bundle import load_bundle
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import AUTO_PRIOR, DEFAULT_MODEL, ClassifyOptions, PredictorOptions, SceneOptions

GROUPS = {
    "crops": ("AnnualCrop", "PermanentCrop"),
    "grass": ("Pasture", "HerbaceousVegetation"),
    "forest": ("Forest",),
    "built": ("Residential", "Industrial", "Highway"),
    "water": ("River", "SeaLake"),
}

NOT_JUDGED = 0
MEANINGS = {
    1: ("crops",),
    2: ("grass",),
    3: ("forest",),
    4: ("built",),
    5: ("water",),
    6: ("crops", "grass"),
    7: ("crops", "grass", "built"),  # neither forest nor water
}
"""Values of a truth raster, and the groups that are right there."""

DRAWS = 2000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Score:
    """How much of one scene is right, by one kind of truth."""

    family: str
    """Scenes that count together."""

    place: str
    """The ground that it shows; two dates of it are one place."""

    right: float
    """Share of the judged area, 0 to 1."""

    mapped: dict[str, float]
    """Share of each group in the map of the judged area; empty for a label set."""

    true: dict[str, float]
    """Share of each group in the truth, where that names a single group."""


def place_of(name: str) -> str:
    """Return the place of a scene: its name without date or product level."""
    return re.sub(r"_(l1c|l2a|[AB])$", "", name)


def in_half(place: str, half: str) -> bool:
    """Tell whether a place belongs to the half `choose`, `report`, or `all`."""
    first = hashlib.sha256(place.encode()).digest()[0] % 2 == 0
    return half == "all" or first == (half == "choose")


def classify(path: Path, predictor: Predictor, options: ClassifyOptions) -> LandcoverMap:
    """Return the map of a scene, with nothing written."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_scene(str(path), Path(folder), predictor, options)
        assert isinstance(prepared, PreparedScene)  # nothing is there that it could be skipped for
        return compute_map(prepared, predictor).landcover


def group_raster(landcover: LandcoverMap, shape: tuple[int, int], stride: int) -> np.ndarray:
    """Return each pixel's group as an index into `GROUPS` (H, W), -1 where the map has no class."""
    of_id = np.full(256, -1)
    for entry in landcover.classes:
        of_id[entry.id] = next(i for i, names in enumerate(GROUPS.values()) if entry.name in names)
    of_id[NO_CLASS] = -1
    cells = of_id[landcover.class_id]
    return cells.repeat(stride, axis=0).repeat(stride, axis=1)[: shape[0], : shape[1]]


def score_raster(name: str, groups: np.ndarray, truth: np.ndarray) -> Score:
    """Compare a map's groups (H, W) with a truth raster (H, W), pixel by pixel."""
    names = list(GROUPS)
    allowed = np.zeros((256, len(names) + 1), bool)
    for value, meant in MEANINGS.items():
        allowed[value, [names.index(group) for group in meant]] = True
    judged = truth != NOT_JUDGED
    shares = np.bincount(groups[judged] + 1, minlength=len(names) + 1)[1:] / judged.sum()
    single = {value: meant[0] for value, meant in MEANINGS.items() if len(meant) == 1}
    return Score(
        family=f"{re.split('_', name)[0]}{name[-4:] if name.startswith('tm') else ''} pixels",
        place=place_of(name),
        right=float(allowed[truth[judged], groups[judged]].mean()),
        mapped=dict(zip(names, shares.tolist(), strict=True)),
        true={group: float((truth[judged] == value).mean()) for value, group in single.items()},
    )


def score_labels(name: str, landcover: LandcoverMap, classes: Iterable[str]) -> Score:
    """Return the share of a map's cells whose class is one of the label set."""
    right = [entry.id for entry in landcover.classes if entry.name in set(classes)]
    mapped = landcover.class_id[landcover.class_id != NO_CLASS]
    return Score(
        f"{re.split('_', name)[0]} labels", place_of(name), float(np.isin(mapped, right).mean()), {}, {}
    )


def score_scenes(data: Path, predictor: Predictor, options: ClassifyOptions, half: str) -> list[Score]:
    """Classify and score every scene of one half of the places."""
    scores = []
    for name, facts in json.loads((data / "truth.json").read_text()).items():
        if not in_half(place_of(name), half):
            continue
        scene = SceneOptions(level=facts["level"], offset=facts["offset"])
        landcover = classify(data / "scenes" / f"{name}.tif", predictor, replace(options, scene=scene))
        if "truth" in facts:
            with rasterio.open(data / facts["truth"]) as dataset:
                truth = dataset.read(1)
            groups = group_raster(landcover, truth.shape, options.stride_for(predictor.card.tile_size))
            scores.append(score_raster(name, groups, truth))
        if "classes" in facts:
            scores.append(score_labels(name, landcover, facts["classes"]))
    return scores


def mean_over_families(scores: Iterable[Score]) -> float:
    """Return the mean of the families' mean scores."""
    families: dict[str, list[float]] = {}
    for score in scores:
        families.setdefault(score.family, []).append(score.right)
    return float(np.mean([np.mean(rights) for rights in families.values()]))


def bootstrap(scores: list[Score], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean over families, places drawn with replacement."""
    random = np.random.default_rng(seed)
    by_place: dict[str, list[Score]] = {}
    for score in scores:
        by_place.setdefault(score.place, []).append(score)
    places = list(by_place.values())
    drawn = [
        mean_over_families(s for i in random.integers(len(places), size=len(places)) for s in places[i])
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def summarize(scores: list[Score]) -> dict[str, Any]:
    """Return what is printed, as plain values: scores by family, and each group's area bias in points."""
    families = sorted({score.family for score in scores})
    judged = [score for score in scores if score.mapped]
    return {
        "score": mean_over_families(scores),
        "interval": bootstrap(scores),
        "families": {
            family: float(np.mean([s.right for s in scores if s.family == family])) for family in families
        },
        "area_bias_points": {
            group: 100 * float(np.mean([s.mapped[group] - s.true[group] for s in judged if s.true[group]]))
            for group in GROUPS
            if any(s.true[group] for s in judged)
        },
    }


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default=DEFAULT_MODEL, show_default=True)
@click.option("--stride", default=16, show_default=True)
@click.option("--prior", default=AUTO_PRIOR, show_default=True)
@click.option("--half", type=click.Choice(["all", "choose", "report"]), default="all", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(data: Path, model: str, stride: int, prior: str, half: str, device: str, as_json: bool) -> None:
    """Score a model on the labelled scenes in DATA."""
    bundle = load_bundle(model)
    predictor = Predictor(load_network(bundle), bundle.card, PredictorOptions(device=device))
    report = summarize(score_scenes(data, predictor, ClassifyOptions(stride=stride, prior=prior), half))
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    low, high = report["interval"]
    click.echo(f"{model}: {report['score']:.1%} (95 %: {low:.1%} to {high:.1%}), mean over families")
    for family, right in report["families"].items():
        click.echo(f"  {family:<24}{right:>7.1%}")
    for group, points in report["area_bias_points"].items():
        click.echo(f"  area of {group:<16}{points:>+7.1f} points of the map")


if __name__ == "__main__":
    main()
