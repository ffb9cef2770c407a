"""`landcover batch`: many scenes in worker processes, and a report. Loads neither PyTorch nor a scene."""

import logging
import sys
from dataclasses import replace
from pathlib import Path

import click
from tqdm import tqdm

from pipeline.addresses import file_name_of, shown
from pipeline.batch.inputs import SceneInput
from pipeline.batch.messages import DONE, FAILED, INTERRUPTED, SKIPPED, Outcome, Setup
from pipeline.batch.processes import LocalProcesses
from pipeline.batch.report import HTML_NAME, Report, duration
from pipeline.batch.run import look_at_scenes, run_batch
from pipeline.commands.printing import error_prefix, in_command_words
from pipeline.options import BatchOptions, ClassifyOptions, PredictorOptions

log = logging.getLogger(__name__)

COUNTS = {DONE: "done", SKIPPED: "done before", FAILED: "failed", INTERRUPTED: "not finished"}


def batch(
    sources: tuple[str, ...],
    output: Path,
    *,
    model: str,
    options: ClassifyOptions,
    predictor_options: PredictorOptions,
    batch_options: BatchOptions,
    workers: int | None,
    dry_run: bool,
) -> None:
    """Classify the scenes of `sources`, or print what would be done with each."""
    setup = Setup(
        model=model,
        options=replace(options, refresh=True),
        predictor=predictor_options,
        workers=workers,
        debug=log.isEnabledFor(logging.DEBUG),
    )
    if dry_run:
        failed = False
        for scene, outcome in look_at_scenes(sources, output, setup, LocalProcesses):
            print_plan(scene, outcome)
            failed |= outcome.status == FAILED
        sys.exit(int(failed))
    report = run_batch(sources, output, setup, LocalProcesses, batch_options, print_outcome)
    print_report(report)
    sys.exit(128 + report.signal if report.signal else int(report.count(FAILED) > 0))


def print_plan(scene: SceneInput, outcome: Outcome) -> None:
    """Print what would be done with a scene, and why."""
    click.echo(f"{outcome.status:<8} {shown(scene.path)}: {in_command_words(outcome.reason)}")


def print_outcome(scene: SceneInput, outcome: Outcome) -> None:
    """Print why a scene failed; without a terminal, which shows progress bars, a line for the others too."""
    path = shown(scene.path)
    if outcome.status == FAILED:
        where = "" if file_name_of(scene.path) in outcome.reason else f"{path}: "
        line = f"{error_prefix()} {where}{in_command_words(outcome.reason)}"
    elif not sys.stderr.isatty():
        took = f"{outcome.tiles} tiles in {duration(outcome.seconds)}"
        how = "done already" if outcome.status == SKIPPED else took
        line = f"{outcome.status:<8} {path}: {how}"
    else:
        return
    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(line, err=True)


def print_report(report: Report) -> None:
    """Print how the batch ended and where its report is."""
    counts = [f"{count} {words}" for status, words in COUNTS.items() if (count := report.count(status))]
    took = f"{report.tiles} tiles in {duration(report.seconds)}"
    click.echo(f"{len(report.scenes)} scenes: {', '.join(counts)}; {took}")
    if warned := sum(bool(outcome.warnings) for outcome in report.outcomes.values()):
        click.echo(f"{warned} of them with warnings, which the report lists")
    click.echo(f"report: {report.output / HTML_NAME}")
    if report.count(INTERRUPTED):
        click.echo("Run the same command again, without --overwrite, to continue.", err=True)
