"""The `landcover` command: parses, checks, and calls one function a command.

What is heavy (torch, GDAL) is imported inside the commands, so that `--help` answers at once.
"""

import functools
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from pipeline.errors import DeviceError, LandcoverError, ModelError, UsageError

if TYPE_CHECKING:
    from pipeline.classify import ClassifyOptions, Result
    from pipeline.predictor import Predictor
    from pipeline.scene import SceneOptions

log = logging.getLogger("landcover")

DEFAULT_MODEL = "eurosat-rgb-resnet50"
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


def reports_errors(command: Command) -> Command:
    """Give a command `--debug`, and end it with one clear sentence on stderr when something is wrong."""

    @click.option("--debug", is_flag=True, help="Log everything, and show tracebacks.")
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        _start_logging(debug)
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            _say_error(error)
            sys.exit(2 if isinstance(error, WRONG_USE) else 1)

    return wrapped


def scene_options(command: Command) -> Command:
    """Options that say what a scene's pixels are; a command gets them as `scene_options`."""

    @click.option(
        "--bands", type=Bands(), default=(), help="Which of the file's bands are which: red=1,green=2,blue=3."
    )
    @click.option(
        "--level",
        type=click.Choice(["auto", "l1c", "l2a", "tci", "rgb8"]),
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
        help="A raster on any grid: 0 is valid, or a Sentinel-2 scene classification layer (SCL).",
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
        type=click.Choice(["10", "20", "60"]),
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
        from pipeline.scene import SceneOptions

        options = SceneOptions(
            bands=bands,
            level=level,
            offset=offset,
            mask=mask,
            assume_crs=assume_crs,
            assume_gsd=assume_gsd,
            safe_resolution=int(safe_resolution),
        )
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
@stride_option
@scene_options
@click.option(
    "--min-confidence",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    metavar="PERCENT",
    help="Cells less certain than this become no data.",
)
@click.option(
    "--polygons",
    type=click.Choice(["geojson", "gpkg", "fgb", "parquet", "none"]),
    default="geojson",
    show_default=True,
    help="Format of the polygons. GeoJSON is in WGS 84, the others are in the map's CRS.",
)
@click.option("--probabilities", is_flag=True, help="Also write a raster with a band a class.")
@click.option("--preview", is_flag=True, help="Also write a picture of the map with its legend (PNG).")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes the GPU if there is one.",
)
@click.option("--batch-size", type=click.IntRange(0), default=0, help="Tiles a batch; 0 chooses by device.")
@click.option("--overwrite", is_flag=True, help="Replace maps that another model or other options made.")
@reports_errors
def classify(
    scenes: tuple[str, ...],
    output: Path,
    model: str,
    stride: int | None,
    scene_options: "SceneOptions",
    min_confidence: int,
    polygons: str,
    probabilities: bool,
    preview: bool,
    device: str,
    batch_size: int,
    overwrite: bool,
) -> None:
    """Classify scenes and write their land-cover maps into a folder.

    SCENE is a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of single-band files (…B02.tif, …B03.tif),
    or a Sentinel-2 SAFE product, unpacked or zipped. For NAME.tif the folder gets
    NAME_landcover.tif (the map), NAME_confidence.tif, NAME_landcover.geojson, NAME_landcover.qml
    (QGIS colours), NAME_areas.csv and NAME_run.json.
    """
    from pipeline.classify import ClassifyOptions
    from pipeline.model.bundle import load_bundle
    from pipeline.outputs.atomic import make_folder
    from pipeline.predictor import Predictor, PredictorOptions

    bundle = load_bundle(model)
    options = ClassifyOptions(
        scene=scene_options,
        stride=stride,
        min_confidence=min_confidence,
        polygons=polygons,
        probabilities=probabilities,
        preview=preview,
        overwrite=overwrite,
    )
    options.check(bundle.card)
    make_folder(output)
    predictor = Predictor(
        bundle.load_network(), bundle.card, PredictorOptions(device=device, batch_size=batch_size)
    )
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
@click.argument("scene")
@model_option
@scene_options
@stride_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def info(scene: str, model: str, scene_options: "SceneOptions", stride: int | None, as_json: bool) -> None:
    """Say what `classify` would do with a scene, and why."""
    from pipeline.classify import ClassifyOptions, describe_scene
    from pipeline.model.bundle import load_bundle

    description = describe_scene(
        scene, load_bundle(model).card, ClassifyOptions(scene=scene_options, stride=stride)
    )
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    notes = description.pop("notes")
    for key, value in description.items():
        click.echo(f"{key + ':':<14}{value}")
    for note in notes:
        prefix = "warning: " if note["level"] == "warning" else "- "
        click.echo(f"{prefix}{note['text']}")


@main.command()
@data_option
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A recipe.")
@output_option
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in DIR.")
@reports_errors
def train(data: Path, config: Path, output: Path, resume: bool) -> None:
    """Train a model on a folder of class folders (EuroSAT or your own) by a recipe of configs/.

    DIR becomes a model bundle that `classify --model DIR` takes. A split is read from
    split-train.txt and split-val.txt in the data folder, or else drawn, stratified by class.
    """
    from pipeline.training.recipe import load_recipe
    from pipeline.training.train import train as run_training

    recipe = load_recipe(config)
    logging.getLogger("pipeline.training").setLevel(logging.INFO)
    bundle = run_training(data, recipe, output, resume=resume)
    accuracy = bundle.card.metrics["accuracy"]
    click.echo(f"{bundle.path}: {accuracy:.2%} on validation, best of {recipe.epochs} epochs")


@main.command()
@data_option
@model_option
@click.option(
    "--names",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A text file of Class/file names: measure on these tiles alone.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the scores and plots here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reports_errors
def evaluate(data: Path, model: str, names: Path | None, output: Path | None, as_json: bool) -> None:
    """Measure a model on labelled tiles: a folder of class folders."""
    from pipeline.model.bundle import load_bundle
    from pipeline.training.dataset import load_tiles, read_names
    from pipeline.training.evaluate import evaluate_tiles

    tiles = load_tiles(data, read_names(names) if names else None)
    evaluation = evaluate_tiles(load_bundle(model), tiles)
    summary = evaluation.summary()
    if output is not None:
        from pipeline.training.report import write_report

        write_report(output, None, evaluation, tiles)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    click.echo(f"accuracy {summary['accuracy']:.2%} on {summary['tiles']} tiles")
    click.echo(f"{'class':<24}{'precision':>10}{'recall':>8}{'F1':>8}{'tiles':>8}")
    for name, scores in summary["classes"].items():
        click.echo(
            f"{name:<24}{scores['precision']:>10.3f}{scores['recall']:>8.3f}{scores['f1']:>8.3f}{scores['tiles']:>8}"
        )


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
    for area in result.areas:
        if area.hectares > 0:
            share = "" if area.share_percent is None else f"{area.share_percent:>6.1f} %"
            click.echo(f"  {area.class_name:<24}{area.hectares:>12,.1f} ha {share}")
    click.echo(f"  map: {result.files['landcover']}")


def _say_error(error: Exception) -> None:
    known = isinstance(error, LandcoverError)
    bug = "" if known else f"unexpected {type(error).__name__} (a bug of ours; --debug shows where): "
    click.echo(f"{click.style('error:', fg='red')} {bug}{error}", err=True)
    log.debug("where it happened:", exc_info=error)


class _AboveProgressBars(logging.StreamHandler):
    """Log to stderr without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _start_logging(debug: bool) -> None:
    handler = _AboveProgressBars()
    pattern = "%(levelname)s %(name)s: %(message)s" if debug else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler], force=True)
    # GDAL's remarks on a file's tags are for developers; what matters of them we say ourselves.
    logging.getLogger("rasterio").setLevel(logging.DEBUG if debug else logging.CRITICAL)


if __name__ == "__main__":
    main()
