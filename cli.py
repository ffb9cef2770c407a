"""The `landcover` command: parses, checks, and calls one function a command.

What is heavy (torch, GDAL) is imported inside the commands, so that `--help` answers at once.
"""

import functools
import json
import logging
import os
import re
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from pipeline.errors import DeviceError, LandcoverError, ModelError, UsageError
from pipeline.options import DEFAULT_MODEL, LEVELS, NO_POLYGONS, POLYGON_FORMATS, SAFE_RESOLUTIONS

if TYPE_CHECKING:
    from pipeline.batch.inputs import SceneInput
    from pipeline.batch.messages import Outcome
    from pipeline.batch.report import Report
    from pipeline.classify import Result
    from pipeline.maps.areas import ClassArea
    from pipeline.model.predictor import Predictor
    from pipeline.options import ClassifyOptions

log = logging.getLogger("landcover")

FLAGS = {"output": "-o"}
WRONG_USE = (UsageError, ModelError, DeviceError)

Command = Callable[..., Any]


class Bands(click.ParamType):
    """`red=1,green=2,blue=3`: band names with their 1-based position in the file."""

    name = "NAME=N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of (name, index) pairs."""
        if isinstance(value, tuple):
            return value
        pairs = []
        for part in value.split(","):
            name, separator, index = part.partition("=")
            if not (separator and name.strip() and index.strip().isdecimal() and int(index) > 0):
                self.fail(f"'{part}' is not of the form name=number, as in red=1,green=2,blue=3", param, ctx)
            pairs.append((name.strip(), int(index)))
        if len({name for name, _ in pairs}) < len(pairs):
            self.fail(f"'{value}' names a band twice", param, ctx)
        return tuple(pairs)


class Offset(click.ParamType):
    """`auto`, or the number that is added to stored values before they are scaled."""

    name = "auto|INT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return None for `auto`, else the number."""
        if value in (None, "auto"):
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"'{value}' is neither 'auto' nor a whole number such as -1000", param, ctx)


# What Ctrl-C leaves to be said, by command; `batch` says it by itself.
GOING_ON = {
    "train": "The same command with --resume goes on from the last checkpoint.",
    "classify": "The same command goes on, inside the scene if it had run for half a minute.",
}


def reports_errors(command: Command) -> Command:
    """Give a command `--debug`, and end it with one clear sentence on stderr when something is wrong."""

    @click.option("--debug", is_flag=True, help="Log everything, and show tracebacks.")
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        _start_logging(debug)
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows what to do
        except KeyboardInterrupt:
            click.echo(f"Interrupted. {GOING_ON.get(command.__name__, '')}".rstrip(), err=True)
            sys.exit(130)  # as shells have it: 128 and the signal's number
        except Exception as error:
            _say_error(error)
            sys.exit(2 if isinstance(error, WRONG_USE) else 1)

    return wrapped


def scene_options(command: Command) -> Command:
    """Options that say what a scene's pixels are; a command gets the fields of `SceneOptions`."""

    @click.option(
        "--bands", type=Bands(), default=(), help="Which of the file's bands are which: red=1,green=2,blue=3."
    )
    @click.option(
        "--level",
        type=click.Choice(LEVELS),
        default="auto",
        show_default=True,
        help="What the pixels are: Sentinel-2 top-of-atmosphere (l1c) or surface reflectance (l2a), ESA's "
        "true-colour image (tci), or 8-bit values stretched as the model's training tiles are (rgb8).",
    )
    @click.option(
        "--offset",
        type=Offset(),
        default="auto",
        show_default=True,
        help="Added to stored values before scaling: -1000 for Sentinel-2 baseline 04.00 and later, "
        "0 before and where an archive has already removed it.",
    )
    @click.option(
        "--mask",
        metavar="FILE",
        help="A raster on any grid: 0 is valid; or a Sentinel-2 scene classification layer, with SCL in its "
        "name, band description or tags.",
    )
    @click.option("--assume-crs", metavar="CRS", help="The CRS of a scene that has none, such as EPSG:32633.")
    @click.option(
        "--assume-gsd",
        type=click.FloatRange(min=0, min_open=True),
        metavar="METRES",
        help="Classify a scene without georeference in pixel space, its pixels being this large.",
    )
    @click.option(
        "--safe-resolution",
        type=click.Choice([str(metres) for metres in SAFE_RESOLUTIONS]),
        default="10",
        show_default=True,
        help="Which files of a SAFE product to read, in metres.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        bands: tuple[tuple[str, int], ...],
        level: str,
        offset: int | None,
        mask: str | None,
        assume_crs: str | None,
        assume_gsd: float | None,
        safe_resolution: str,
        **kwargs: Any,
    ) -> Any:
        options = {
            "bands": bands,
            "level": level,
            "offset": offset,
            "mask": mask,
            "assume_crs": assume_crs,
            "assume_gsd": assume_gsd,
            "safe_resolution": int(safe_resolution),
        }
        return command(*args, scene_options=options, **kwargs)

    return wrapped


output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where to write; made if it is not there.",
)

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    metavar="DIR",
    help="A folder with a folder of tiles for each class.",
)

skip_option = click.option(
    "--skip-unreadable", is_flag=True, help="Leave out tiles that cannot be read, with a warning."
)

model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|DIR",
    help="A model that ships, or the folder of your own.",
)


stride_option = click.option(
    "--stride",
    type=click.IntRange(min=8),
    help="Pixels from one tile to the next, and so the map's cell: 64 is 640 m, 16 is 160 m. Below the "
    "model's tile, tiles overlap and are averaged: finer, smoother, slower.  [default: the tile, 64]",
)


polygons_option = click.option(
    "--polygons",
    type=click.Choice([*POLYGON_FORMATS, NO_POLYGONS]),
    default="geojson",
    show_default=True,
    help="Format of the polygons. GeoJSON is in WGS 84, the others are in the map's CRS.",
)


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute; auto takes the GPU if there is one, cuda:1 the second.",
)


def map_options(command: Command) -> Command:
    """Options that decide a map, and how it is computed.

    A command gets the fields of `ClassifyOptions` as `map_options`, of `PredictorOptions` as
    `predictor_options`.
    """

    @stride_option
    @click.option(
        "--min-confidence",
        type=click.IntRange(0, 100),
        default=0,
        show_default=True,
        metavar="PERCENT",
        help="Cells less certain than this become no data.",
    )
    @polygons_option
    @click.option("--probabilities", is_flag=True, help="Also write a raster with a band a class.")
    @click.option("--preview", is_flag=True, help="Also write a picture of the map with its legend (PNG).")
    @click.option(
        "--tta",
        is_flag=True,
        help="Test-time augmentation: average over each tile's eight flips and rotations. Somewhat more "
        "accurate, eight times the work.",
    )
    @device_option
    @click.option(
        "--batch-size", type=click.IntRange(0), default=0, help="Tiles a batch; 0 chooses by device."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        names = "stride", "min_confidence", "polygons", "probabilities", "preview", "tta"
        options = {name: kwargs.pop(name) for name in names}
        computing = {name: kwargs.pop(name) for name in ("device", "batch_size")}
        return command(*args, map_options=options, predictor_options=computing, **kwargs)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="landcover")
def main() -> None:
    """Turn satellite scenes into land-cover maps.

    Start with:  landcover classify SCENE.tif -o maps
    """


@main.command()
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@output_option
@model_option
@scene_options
@map_options
@click.option(
    "--overwrite",
    is_flag=True,
    help="Classify again what is done already, also where another model or other options made it.",
)
@reports_errors
def classify(
    scenes: tuple[str, ...],
    output: Path,
    model: str,
    scene_options: dict[str, Any],
    map_options: dict[str, Any],
    predictor_options: dict[str, Any],
    overwrite: bool,
) -> None:
    """Classify scenes and write their land-cover maps into a folder.

    SCENE is a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of single-band files (…B02.tif, …B03.tif),
    or a Sentinel-2 SAFE product, unpacked or zipped. For NAME.tif the folder gets
    NAME_landcover.tif (the map), NAME_confidence.tif, NAME_landcover.geojson, NAME_landcover.qml
    (QGIS colours), NAME_areas.csv and NAME_run.json.
    """
    from pipeline.files import make_folder
    from pipeline.model.bundle import load_bundle
    from pipeline.model.predictor import Predictor
    from pipeline.model.weights import load_network
    from pipeline.options import ClassifyOptions, PredictorOptions, SceneOptions

    bundle = load_bundle(model)
    options = ClassifyOptions(scene=SceneOptions(**scene_options), **map_options, overwrite=overwrite)
    options.check(bundle.card.tile_size)
    make_folder(output)
    predictor = Predictor(load_network(bundle), bundle.card, PredictorOptions(**predictor_options))
    failures: dict[str, bool] = {}  # scene -> whether it was wrong use
    done: set[str] = set()
    for scene in scenes:
        try:
            result = _classify_one(scene, output, predictor, options, done)
        except Exception as error:
            _say_error(error)
            failures[scene] = isinstance(error, WRONG_USE)
        else:
            done.add(result.scene.casefold())
            _say_result(result)
    if failures:
        if len(scenes) > 1:
            click.echo(f"{len(failures)} of {len(scenes)} scenes failed: {', '.join(failures)}", err=True)
        sys.exit(2 if len(failures) == len(scenes) and all(failures.values()) else 1)


def _classify_one(
    scene: str, output: Path, predictor: "Predictor", options: "ClassifyOptions", done: set[str]
) -> "Result":
    from pipeline.classify import classify_scene

    with tqdm(desc=Path(scene).name, unit=" tiles", disable=None, leave=False) as bar:

        def advance(tiles: int, total: int) -> None:
            bar.total = total
            bar.update(tiles)

        return classify_scene(scene, output, predictor, options, advance, taken=done)


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="DIR|GLOB|LIST.txt...")
@output_option
@model_option
@scene_options
@map_options
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="How many processes classify at a time: they share the GPUs, or the cores.  [default: one a GPU, "
    "else one with all cores]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="A scene that makes no progress for so long fails: its server has fallen silent, say.",
)
@click.option("--fail-fast", is_flag=True, help="End at the first scene that fails.")
@click.option("--dry-run", is_flag=True, help="List what would be done, and why, and do nothing.")
@click.option("--overwrite", is_flag=True, help="Classify again what is done already.")
@click.pass_context
@reports_errors
def batch(
    ctx: click.Context,
    sources: tuple[str, ...],
    output: Path,
    model: str,
    scene_options: dict[str, Any],
    map_options: dict[str, Any],
    predictor_options: dict[str, Any],
    workers: int | None,
    timeout: float,
    fail_fast: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Classify any number of scenes, and go on whatever happens to one of them.

    Give a folder to search, a pattern in quotes, or a list: a path or an address (https://, s3://,
    /vsi.../) a line. The maps lie in the output folder as the scenes do in theirs. What is done already
    is left as it is, so the same command continues a batch that was interrupted, in any way.

    batch_report.html in the output folder shows all maps, and what failed and why; batch_report.json says
    the same to programs, and logs/ has a file a scene.
    """
    from pipeline.batch.messages import Setup
    from pipeline.batch.run import look_at_scenes, run_batch
    from pipeline.options import BatchOptions, ClassifyOptions, PredictorOptions, SceneOptions

    setup = Setup(
        model,
        ClassifyOptions(
            scene=SceneOptions(**scene_options), **map_options, overwrite=overwrite, refresh=True
        ),
        PredictorOptions(**predictor_options),
        workers,
        debug=ctx.params["debug"],
    )
    if dry_run:
        sys.exit(max((_say_plan(*looked) for looked in look_at_scenes(sources, output, setup)), default=0))
    report = run_batch(sources, output, setup, BatchOptions(timeout, fail_fast), _say_outcome)
    _say_batch(report)
    sys.exit(128 + report.signal if report.signal else int(report.count("failed") > 0))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The joined map: .tif for one file of its own, .vrt for one that shows the maps where they lie.",
)
@click.option("--crs", metavar="CRS", help="Join the maps of this zone, such as EPSG:32633.")
@polygons_option
@click.option("--overwrite", is_flag=True, help="Replace files that are not an earlier mosaic's, too.")
@reports_errors
def mosaic(folder: Path, output: Path, crs: str | None, polygons: str, overwrite: bool) -> None:
    """Join the maps in a folder and below into one.

    For `-o map.tif` also map_confidence.tif, map.geojson (polygons across the borders of scenes), map.qml
    (QGIS colours), map_areas.csv and map_mosaic.json (what was joined) are written.

    The maps must be of one model, one cell size and one zone. Where they overlap, the surer class is taken;
    a .vrt shows the map that is surer on the whole. Maps that start between the cells of the others are
    moved onto them, by half a cell at most.
    """
    from pipeline.maps.mosaic import join_maps
    from pipeline.options import MosaicOptions

    with tqdm(desc=output.name, unit=" maps", disable=None, leave=False) as bar:

        def advance(maps: int, total: int) -> None:
            bar.total = total
            bar.update(maps)

        result = join_maps(folder, output, MosaicOptions(crs, polygons, overwrite), advance)
    rows, columns = result.shape
    maps = f"{result.maps} map{'' if result.maps == 1 else 's'}"
    click.echo(f"{output.name}: {maps}, {rows} x {columns} cells in {result.seconds:.1f} s")
    _say_areas(result.areas)
    click.echo(f"  map: {result.files['landcover']}")


@main.command()
@click.argument("scene")
@model_option
@scene_options
@stride_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def info(scene: str, model: str, scene_options: dict[str, Any], stride: int | None, as_json: bool) -> None:
    """Say what `classify` would do with a scene, and why."""
    from pipeline.classify import describe_scene
    from pipeline.model.bundle import load_bundle
    from pipeline.options import ClassifyOptions, SceneOptions

    options = ClassifyOptions(scene=SceneOptions(**scene_options), stride=stride)
    description = describe_scene(scene, load_bundle(model).card, options)
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    notes = description.pop("notes")
    for key, value in description.items():
        click.echo(f"{key + ':':<14}{value}")
    for note in notes:
        prefix = "warning: " if note["level"] == "warning" else "- "
        click.echo(f"{prefix}{in_command_words(note['text'])}")


@main.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="A folder with a folder of tiles for each class: JPEG, PNG or GeoTIFF.",
)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A recipe.")
@output_option
@click.option(
    "--download",
    is_flag=True,
    help="First fetch the EuroSAT archive with the recipe's bands into the data folder: 95 MB for red, green "
    "and blue, 2 GB for any others. Goes on where an earlier download stopped.",
)
@click.option(
    "--split",
    type=click.Choice(["auto", "files", "random", "location"]),
    default="auto",
    show_default=True,
    help="How to choose the tiles to validate on: as split-train.txt and split-val.txt in the data folder "
    "(with --download, in the folder that it makes there) say, at random in each class, or by location, for "
    "GeoTIFFs, so that neighbours are never on both sides. auto takes the files if they are there, else the "
    "split of the model that training starts from or is taught by, if it names half of the tiles or more, "
    "else random.",
)
@skip_option
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in DIR.")
@click.option("--overwrite", is_flag=True, help="Begin anew although DIR holds a run already.")
@click.option("--tensorboard", is_flag=True, help="Also write what TensorBoard shows into DIR/tensorboard.")
@device_option
@reports_errors
def train(
    data: Path,
    config: Path,
    output: Path,
    download: bool,
    split: str,
    skip_unreadable: bool,
    resume: bool,
    overwrite: bool,
    tensorboard: bool,
    device: str,
) -> None:
    """Train a model on a folder of class folders (EuroSAT or your own) by a recipe of configs/.

    The output folder becomes a model bundle that `classify --model DIR` takes; the split that was used is
    saved in it.

    On several GPUs: torchrun --nproc-per-node 4 --no-python landcover train …
    """
    from pipeline.training.recipe import load_recipe

    recipe = load_recipe(config)
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite begins anew: give one of them.")
    if not download and not data.is_dir():
        raise UsageError(
            f"--data {data} is not a folder: name one, or fetch EuroSAT into it with --download."
        )
    from pipeline.model.bundle import CARD
    from pipeline.training.checkpoint import CHECKPOINT
    from pipeline.training.distributed import is_first_process
    from pipeline.training.train import train as run_training

    if not (resume or overwrite) and any((output / name).exists() for name in (CARD, CHECKPOINT)):
        raise UsageError(
            f"{output} holds a training run already: go on with it with --resume, begin anew with "
            "--overwrite, or choose another folder with -o."
        )
    logging.getLogger("pipeline.training").setLevel(logging.INFO)
    if download:
        from pipeline.training.download import download as fetch
        from pipeline.training.download import eurosat_with

        data = fetch(eurosat_with(recipe.bands), data)
    bundle = run_training(
        data,
        recipe,
        output,
        resume=resume,
        split_method=split,
        skip_unreadable=skip_unreadable,
        events=tensorboard,
        device=device,
    )
    if is_first_process():
        card = bundle.card
        click.echo(
            f"{bundle.path}: {card.metrics['accuracy']:.2%} on validation, "
            f"epoch {card.training['best_epoch']} of {recipe.epochs}"
        )


@main.command()
@data_option
@model_option
@click.option(
    "--names",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A text file of Class/file names: measure on these tiles alone, such as the model's split-val.txt.  "
    "[default: all tiles]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the scores and plots here.",
)
@click.option("--tta", is_flag=True, help="Also measure the mean over each tile's eight flips and rotations.")
@click.option(
    "--robustness",
    is_flag=True,
    help="Also measure the tiles as scenes show them (resampled, as Level-2A), and clouds and snow.",
)
@click.option(
    "--raw-tiles",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="With --robustness: class folders of the multispectral GeoTIFFs that the tiles were made from.",
)
@skip_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def evaluate(
    data: Path,
    model: str,
    names: Path | None,
    output: Path | None,
    tta: bool,
    robustness: bool,
    raw_tiles: Path | None,
    skip_unreadable: bool,
    device: str,
    as_json: bool,
) -> None:
    """Measure a model on labelled tiles: a folder of class folders.

    DIR gets report.html, report.json and the plots as pictures.
    """
    if raw_tiles and not robustness:
        raise UsageError("--raw-tiles is measured by --robustness: give that too.")
    from pipeline.model.bundle import load_bundle
    from pipeline.model.predictor import Predictor
    from pipeline.model.weights import load_network
    from pipeline.options import PredictorOptions
    from pipeline.training.dataset import load_tiles
    from pipeline.training.evaluate import evaluate_with, measure_tta
    from pipeline.training.history import HISTORY
    from pipeline.training.report import Measurements, report_json, write_report
    from pipeline.training.robustness import measure_outliers, measure_robustness
    from pipeline.training.splits import SPLIT_FILES, count_trained_on, known_split, read_names

    bundle = load_bundle(model)
    predictor = Predictor(load_network(bundle), bundle.card, PredictorOptions(device=device))
    load = functools.partial(load_tiles, bands=bundle.card.bands, skip_unreadable=skip_unreadable)
    tiles = load(data, read_names(names) if names else None)
    raw = load(raw_tiles) if raw_tiles else None
    if (split := known_split(bundle.path)) and (seen := count_trained_on(tiles.names, split)):
        fair = bundle.path / SPLIT_FILES[1]
        log.warning(
            "The model was trained on %d of the %d tiles, so it looks better than it is: measure it with "
            "--names %s.",
            seen,
            len(tiles),
            fair,
        )
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
        _say_report(report)


def _say_report(report: dict[str, Any]) -> None:
    click.echo(f"accuracy {report['accuracy']:.2%} on {report['tiles']} tiles")
    if tta := report.get("test_time_augmentation"):
        click.echo(f"with flips and rotations {tta['accuracy']:.2%}, at {tta['slowdown']:.1f} times the time")
    calibration = report["calibration"]
    errors = {
        key: calibration[key]["expected_calibration_error"] for key in ("before", "after", "cross_fitted")
    }
    click.echo(
        f"calibration error {errors['after']:.2%} at temperature {calibration['temperature']:g} "
        f"(without: {errors['before']:.2%}; fitted on other tiles: {errors['cross_fitted']:.2%})"
    )
    click.echo(f"\n{'class':<24}{'precision':>10}{'recall':>8}{'F1':>8}{'tiles':>8}")
    for name, scores in report["classes"].items():
        # A class without tiles was not measured: its scores would be noughts.
        shown = [f"{scores[key]:.3f}" if scores["tiles"] else "-" for key in ("precision", "recall", "f1")]
        click.echo(f"{name:<24}{shown[0]:>10}{shown[1]:>8}{shown[2]:>8}{scores['tiles']:>8}")
    if conditions := report.get("robustness"):
        click.echo(f"\n{'condition':<42}{'accuracy':>9}{'points lost':>13}{'same class':>12}{'tiles':>8}")
        for row in conditions:
            click.echo(
                f"{row['condition']:<42}{row['accuracy']:>9.2%}{row['points_lost']:>13.2f}"
                f"{row['same_class']:>12.1%}{row['tiles']:>8}"
            )
    if outliers := report.get("outliers"):
        click.echo(f"\n{'what has no class':<40}{'confidence':>11}{'90 % sure':>11}  taken for")
        for row in outliers:
            taken = ", ".join(f"{name} {share:.0%}" for name, share in row["classes"].items())
            click.echo(f"{row['outlier']:<40}{row['median_confidence']:>11.2f}{row['sure']:>11.0%}  {taken}")


@main.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to be visited; 0.0.0.0 lets in everybody who reaches this machine.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="0 takes any that is free.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Visitors may look at the scenes and maps in this folder, and at no other file.",
)
@model_option
@click.option(
    "--max-upload",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    metavar="MIB",
    help="How large a scene may be that is sent.",
)
@click.option("--no-browser", is_flag=True, help="Say the address, and open no browser.")
@reports_errors
def app(host: str, port: int, root: Path | None, model: str, max_upload: int, no_browser: bool) -> None:
    """Open a page on which to load an image and see its class, or a scene and see its map.

    All is done by this machine; nothing is fetched from elsewhere. What visitors send is removed when they
    have been away for two hours, and when the app ends. Ctrl-C ends it.
    """
    try:
        from pipeline.app.server import serve
        from pipeline.options import AppOptions
    except ModuleNotFoundError as error:
        raise UsageError(f"The app needs {error.name}: pip install 'landcover[app]'.") from error

    def say_address(address: str) -> None:
        click.echo(f"landcover app: {address} (Ctrl-C ends it)")
        # Without a screen, a browser would take over the terminal.
        screen = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
        if screen and not no_browser and sys.stdout.isatty():
            webbrowser.open(address)

    serve(AppOptions(model, host, port, root, max_upload * 2**20), say_address)


@main.group()
def model() -> None:
    """Look at the models that ship."""


@model.command("list")
@reports_errors
def list_models() -> None:
    """List the models that ship."""
    from pipeline.model.bundle import list_bundles, load_bundle

    for name in list_bundles():
        card = load_bundle(name).card
        accuracy = card.metrics.get("accuracy")
        measured = f"{accuracy:.2%} on {card.metrics['split']}" if accuracy is not None else "not measured"
        click.echo(f"{name:<28}{card.architecture:<18}{len(card.bands)} bands  {measured}")


@model.command("show")
@click.argument("name", metavar="NAME|DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the whole card.")
@reports_errors
def show_model(name: str, as_json: bool) -> None:
    """Show a model's card: what it was trained on, what it gives, how good it is."""
    from pipeline.model.bundle import load_bundle

    card = load_bundle(name).card
    if as_json:
        click.echo(json.dumps(card.to_json(), indent=2))
        return
    low, high = card.scaling.reflectance
    rows = {
        "name": card.name,
        "architecture": f"{card.architecture}, {card.head} head",
        "input": f"{card.tile_size}x{card.tile_size} pixels of {card.gsd:g} m, bands {' '.join(card.bands)}",
        "trained on": f"{card.level.upper()} reflectance {low:g}-{high:g}",
        "accuracy": f"{card.metrics.get('accuracy', float('nan')):.2%} on {card.metrics.get('split')}",
        "license": card.license,
        "digest": card.digest,
    }
    for key, value in rows.items():
        click.echo(f"{key + ':':<14}{value}")
    for c in card.classes:
        click.echo(f"{c.id:>4}  {c.color}  {c.name}")


def _say_result(result: "Result") -> None:
    again = "already done, " if result.skipped else ""
    click.echo(f"{result.scene}: {again}{result.tiles} tiles in {result.seconds:.1f} s")
    _say_areas(result.areas)
    click.echo(f"  map: {result.files['landcover']}")


def _say_areas(areas: "tuple[ClassArea, ...]") -> None:
    for area in areas:
        if area.hectares > 0:
            share = "" if area.share_percent is None else f"{area.share_percent:>6.1f} %"
            click.echo(f"  {area.class_name:<24}{area.hectares:>12,.1f} ha {share}")


def _say_plan(scene: "SceneInput", outcome: "Outcome") -> int:
    """Print what would be done with a scene; returns the exit status that it asks for."""
    from pipeline.batch.inputs import shown

    click.echo(f"{outcome.status:<8} {shown(scene.path)}: {in_command_words(outcome.reason)}")
    return int(outcome.status == "failed")


def _say_outcome(scene: "SceneInput", outcome: "Outcome") -> None:
    """Tell of a scene that failed; where no terminal shows the progress, of every other one, too."""
    from pipeline.batch.inputs import shown
    from pipeline.batch.report import duration

    path = shown(scene.path)
    if outcome.status == "failed":
        where = "" if Path(path).name in outcome.reason else f"{path}: "
        line = f"{click.style('error:', fg='red')} {where}{in_command_words(outcome.reason)}"
    elif not sys.stderr.isatty():
        took = f"{outcome.tiles} tiles in {duration(outcome.seconds)}"
        how = "done already" if outcome.status == "skipped" else took
        line = f"{outcome.status:<8} {path}: {how}"
    else:
        return
    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(line, err=True)


def _say_batch(report: "Report") -> None:
    from pipeline.batch.report import HTML_NAME, duration

    counts = [
        f"{count} {what}"
        for status, what in (
            ("done", "done"),
            ("skipped", "done before"),
            ("failed", "failed"),
            ("interrupted", "not finished"),
        )
        if (count := report.count(status))
    ]
    took = f"{report.tiles} tiles in {duration(report.seconds)}"
    click.echo(f"{len(report.scenes)} scenes: {', '.join(counts)}; {took}")
    if warned := sum(bool(outcome.warnings) for outcome in report.outcomes.values()):
        click.echo(f"{warned} of them with warnings, which the report tells")
    click.echo(f"report: {report.output / HTML_NAME}")
    if report.count("interrupted"):
        click.echo(
            "Run the same command again, without --overwrite, to go on where this one stopped.", err=True
        )


def in_command_words(text: str) -> str:
    """Return a sentence of ours with options as they are written on the command line: `level` as --level."""
    return re.sub(r"`([a-z_]+)`", lambda name: FLAGS.get(name[1], "--" + name[1].replace("_", "-")), text)


def _say_error(error: Exception) -> None:
    known = isinstance(error, LandcoverError)
    bug = "" if known else f"unexpected {type(error).__name__} (a bug of ours; --debug shows where): "
    click.echo(f"{click.style('error:', fg='red')} {bug}{in_command_words(str(error))}", err=True)
    log.debug("where it happened:", exc_info=error)


class _AboveProgressBars(logging.StreamHandler):
    """Log to stderr without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(in_command_words(self.format(record)), file=sys.stderr)


def _start_logging(debug: bool) -> None:
    handler = _AboveProgressBars()
    pattern = "%(levelname)s %(name)s: %(message)s" if debug else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler], force=True)
    # GDAL's remarks on a file's tags are for developers; what matters of them we say ourselves.
    logging.getLogger("rasterio").setLevel(logging.DEBUG if debug else logging.CRITICAL)


if __name__ == "__main__":
    main()
