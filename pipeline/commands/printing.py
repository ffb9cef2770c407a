"""What commands print: areas, scores, errors and progress bars. Imports nothing heavy, and no other room."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from pipeline.addresses import scrub
from pipeline.commands.declarations import all_commands
from pipeline.errors import LandcoverError

if TYPE_CHECKING:
    from pipeline.maps.areas import ClassArea

log = logging.getLogger("landcover")

FLAGS = {
    option.name: option.opts[0]
    for command in all_commands()
    for option in command.params
    if isinstance(option, click.Option)
}
"""How each option is written on the command line, by its name: `output` as -o, `min_confidence` as
--min-confidence."""


def in_command_words(text: str) -> str:
    """Return a message with its options, named in backticks, as they are written on the command line."""
    return re.sub(r"`(\w+)`", lambda name: FLAGS.get(name[1], name[0]), text)


def print_error(error: Exception) -> None:
    """Print one sentence to stderr; the traceback is logged for --debug."""
    known = isinstance(error, LandcoverError)
    bug = "" if known else f"unexpected {type(error).__name__} (a bug of ours; --debug shows where): "
    click.echo(f"{error_prefix()} {bug}{in_command_words(scrub(str(error)))}", err=True)
    log.debug("where it happened:", exc_info=error)


def error_prefix() -> str:
    """Return the word that every error begins with."""
    return click.style("error:", fg="red")


@contextmanager
def progress_bar(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar in a terminal.

    Gives a function to call with how many were done since the last call, and how many there are.
    """
    with tqdm(desc=name, unit=f" {unit}", disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        yield advance


def print_table(rows: dict[str, Any]) -> None:
    """Print a line for each name and value."""
    for name, value in rows.items():
        click.echo(f"{name + ':':<14}{value}")


def print_areas(areas: "Iterable[ClassArea]") -> None:
    """Print the classes that a map has, with their hectares and shares."""
    for area in areas:
        if area.hectares > 0:
            share = "" if area.share_percent is None else f"{area.share_percent:>6.1f} %"
            click.echo(f"  {area.class_name:<24}{area.hectares:>12,.1f} ha {share}")


def print_scores(report: dict[str, Any]) -> None:
    """Print the scores of a model as `pipeline.training.report.report_json` returns them."""
    click.echo(f"accuracy {report['accuracy']:.2%} on {report['tiles']} tiles")
    if tta := report.get("test_time_augmentation"):
        click.echo(f"with flips and rotations {tta['accuracy']:.2%}, at {tta['slowdown']:.1f} times the time")
    _print_calibration(report["calibration"])
    _print_classes(report["classes"])
    if conditions := report.get("robustness"):
        _print_robustness(conditions)
    if outliers := report.get("outliers"):
        _print_outliers(outliers)


def _print_calibration(calibration: dict[str, Any]) -> None:
    before, after, cross_fitted = (
        f"{calibration[key]['expected_calibration_error']:.2%}" for key in ("before", "after", "cross_fitted")
    )
    click.echo(
        f"calibration error {after} at temperature {calibration['temperature']:g} "
        f"(without: {before}; fitted on other tiles: {cross_fitted})"
    )


def _print_classes(classes: dict[str, dict[str, Any]]) -> None:
    click.echo(f"\n{'class':<24}{'precision':>10}{'recall':>8}{'F1':>8}{'tiles':>8}")
    for name, scores in classes.items():
        # A class without tiles was not measured: its scores would be zeros.
        shown = [f"{scores[key]:.3f}" if scores["tiles"] else "-" for key in ("precision", "recall", "f1")]
        click.echo(f"{name:<24}{shown[0]:>10}{shown[1]:>8}{shown[2]:>8}{scores['tiles']:>8}")


def _print_robustness(conditions: list[dict[str, Any]]) -> None:
    click.echo(f"\n{'condition':<42}{'accuracy':>9}{'points lost':>13}{'same class':>12}{'tiles':>8}")
    for row in conditions:
        click.echo(
            f"{row['condition']:<42}{row['accuracy']:>9.2%}{row['points_lost']:>13.2f}"
            f"{row['same_class']:>12.1%}{row['tiles']:>8}"
        )


def _print_outliers(outliers: list[dict[str, Any]]) -> None:
    click.echo(f"\n{'what has no class':<40}{'confidence':>11}{'90 % sure':>11}  taken for")
    for row in outliers:
        taken = ", ".join(f"{name} {share:.0%}" for name, share in row["classes"].items())
        click.echo(f"{row['outlier']:<40}{row['median_confidence']:>11.2f}{row['sure']:>11.0%}  {taken}")
