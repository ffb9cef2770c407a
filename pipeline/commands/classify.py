"""`landcover classify`: each scene in turn, with one loaded model."""

import sys
from pathlib import Path

import click

from pipeline.addresses import file_name_of, shown
from pipeline.classify import Result, check_options, classify_scene
from pipeline.commands.errors import FAILED, WRONG_USE, exit_status
from pipeline.commands.printing import print_areas, print_error, progress_bar
from pipeline.files import make_folder
from pipeline.model.bundle import load_bundle
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import ClassifyOptions, PredictorOptions


def classify(
    scenes: tuple[str, ...],
    output: Path,
    model: str,
    options: ClassifyOptions,
    predictor_options: PredictorOptions,
) -> None:
    """Classify scenes into a folder; one that fails does not stop the others."""
    bundle = load_bundle(model)
    check_options(options, bundle.card)
    make_folder(output)
    predictor = Predictor(load_network(bundle), bundle.card, predictor_options)
    statuses: dict[str, int] = {}  # of the scenes that failed
    done: set[str] = set()
    for scene in scenes:
        try:
            with progress_bar(file_name_of(scene), "tiles") as advance:
                result = classify_scene(scene, output, predictor, options, advance, taken=done)
        except Exception as error:
            print_error(error)
            statuses[scene] = exit_status(error)
        else:
            done.add(result.scene.casefold())
            print_result(result)
    if statuses:
        if len(scenes) > 1:
            click.echo(
                f"{len(statuses)} of {len(scenes)} scenes failed: {', '.join(map(shown, statuses))}", err=True
            )
        nothing_done = len(statuses) == len(scenes)
        sys.exit(WRONG_USE if nothing_done and set(statuses.values()) == {WRONG_USE} else FAILED)


def print_result(result: Result) -> None:
    """Print what a scene's map shows and where it is."""
    again = "already done, " if result.skipped else ""
    click.echo(f"{result.scene}: {again}{result.tiles} tiles in {result.seconds:.1f} s")
    print_areas(result.areas)
    click.echo(f"  map: {result.files['landcover']}")
