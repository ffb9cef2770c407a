"""`landcover evaluate`: a model measured on labelled tiles. Needs no GDAL: GPU servers may lack it."""

import json
import logging
from functools import partial
from pathlib import Path

import click

from pipeline.commands.printing import print_scores
from pipeline.errors import UsageError
from pipeline.model.bundle import load_bundle
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import PredictorOptions, TileOptions
from pipeline.training.dataset import load_tiles
from pipeline.training.evaluate import evaluate_with, measure_tta
from pipeline.training.history import HISTORY
from pipeline.training.page import Measurements
from pipeline.training.report import report_json, write_report
from pipeline.training.robustness import measure_outliers, measure_robustness
from pipeline.training.split_files import find_unfair_tiles, read_names

log = logging.getLogger(__name__)


def evaluate(
    data: Path,
    model: str,
    names: Path | None,
    output: Path | None,
    *,
    tta: bool,
    robustness: bool,
    raw_tiles: Path | None,
    tile_options: TileOptions,
    predictor_options: PredictorOptions,
    as_json: bool,
) -> None:
    """Measure a model on tiles, print its scores, and write its report if asked to."""
    if raw_tiles and not robustness:
        raise UsageError("--raw-tiles is used by --robustness only: give that too.")
    bundle = load_bundle(model)
    predictor = Predictor(load_network(bundle), bundle.card, predictor_options)
    wanted = read_names(names) if names else None
    load = partial(
        load_tiles,
        bands=bundle.card.bands,
        skip_unreadable=tile_options.skip_unreadable,
        offset=tile_options.offset,
    )
    tiles = load(data, wanted)
    raw = load(raw_tiles) if raw_tiles else None
    for note in find_unfair_tiles(tiles.names, bundle.path):
        log.warning("%s", note.text)
    evaluation = evaluate_with(predictor, tiles)
    measurements = Measurements(
        tta=measure_tta(predictor, tiles) if tta else None,
        robustness=measure_robustness(predictor, tiles, evaluation, raw) if robustness else (),
        outliers=measure_outliers(predictor, tiles) if robustness else (),
    )
    if output is not None:
        history = bundle.path / HISTORY
        there = history if history.is_file() else None
        write_report(output, there, evaluation, tiles, bundle.card, measurements)
    report = report_json(evaluation, bundle.card, measurements)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        print_scores(report)
