"""What a user can type: every command with its parameters and its help. Imports nothing heavy.

The work of each command is a function in a module of its own, which is imported when the command runs.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from pipeline.commands.lazy import LazyCommand, lazy_command
from pipeline.commands.options import (
    device_option,
    json_option,
    map_options,
    model_option,
    offset_option,
    output_option,
    polygons_option,
    scene_options,
    skip_option,
    stride_option,
)
from pipeline.options import (
    SPLIT_METHODS,
    AppOptions,
    BatchOptions,
    ClassifyOptions,
    MosaicOptions,
    PredictorOptions,
    TileOptions,
    TrainOptions,
)


@lazy_command(
    "pipeline.commands.classify:classify",
    builds={"options": ClassifyOptions, "predictor_options": PredictorOptions},
    interrupted="The same command continues, even inside a scene that had been running for half a minute.",
)
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@output_option
@model_option
@scene_options
@map_options
@click.option(
    "--overwrite",
    is_flag=True,
    help="Classify again what is done already, even if another model or other options made it.",
)
def classify() -> None:
    """Classify scenes and write their land-cover maps into a folder.

    SCENE is a GeoTIFF, COG, VRT or JPEG 2000 file, a folder of single-band files (…B02.tif, …B03.tif),
    or a Sentinel-2 SAFE product, unpacked or zipped. For NAME.tif the folder gets
    NAME_landcover.tif (the map), NAME_confidence.tif, NAME_landcover.geojson, NAME_landcover.qml
    (QGIS colours), NAME_areas.csv and NAME_run.json.
    """


@lazy_command(
    "pipeline.commands.batch:batch",
    builds={
        "options": ClassifyOptions,
        "predictor_options": PredictorOptions,
        "batch_options": BatchOptions,
    },
)
@click.argument("sources", nargs=-1, required=True, metavar="DIR|GLOB|LIST.txt...")
@output_option
@model_option
@scene_options
@map_options
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="How many processes classify at the same time, sharing the GPUs or the cores.  [default: one per "
    "GPU; without a GPU, one that uses all cores]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="A scene that makes no progress for this long fails, for example because its server stopped "
    "answering.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first scene that fails.")
@click.option("--dry-run", is_flag=True, help="List what would be done, and why, and do nothing.")
@click.option("--overwrite", is_flag=True, help="Classify again what is done already.")
def batch() -> None:
    """Classify any number of scenes, and carry on when one of them fails.

    Give a folder to search, a pattern in quotes, or a list with one path or address (https://, s3://,
    /vsi.../) per line. The output folder has the same subfolders as the input. What is done already is
    left as it is, so the same command continues a batch, however it was interrupted.

    batch_report.html in the output folder shows all maps, and what failed and why; batch_report.json holds
    the same for programs, and logs/ has one file per scene.
    """


@lazy_command("pipeline.commands.mosaic:mosaic", builds={"options": MosaicOptions})
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The joined map: .tif for a file of its own, .vrt for one that refers to the maps where they are.",
)
@click.option("--crs", metavar="CRS", help="Join the maps of this zone, such as EPSG:32633.")
@polygons_option
@click.option(
    "--overwrite", is_flag=True, help="Replace existing files even if they are not from an earlier mosaic."
)
def mosaic() -> None:
    """Join all maps in a folder and its subfolders into one.

    For `-o map.tif`, also writes map_confidence.tif, map.geojson (polygons across the borders of scenes),
    map.qml (QGIS colours), map_areas.csv and map_mosaic.json (what was joined).

    The maps must be of one model, one cell size and one zone. Where they overlap, the more confident class
    is taken; a .vrt shows the map that is more confident overall. Maps that start between the cells of the
    others are moved onto them, by half a cell at most.
    """


@lazy_command("pipeline.commands.info:info", builds={"options": ClassifyOptions})
@click.argument("scene")
@model_option
@scene_options
@stride_option
@json_option
def info() -> None:
    """Show what `classify` would do with a scene, and why."""


@lazy_command(
    "pipeline.commands.train:train",
    builds={"options": TrainOptions},
    interrupted="The same command with --resume continues from the last checkpoint.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="A folder with one subfolder of tiles per class: JPEG, PNG or GeoTIFF.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The recipe, such as those in configs/.",
)
@output_option
@click.option(
    "--download",
    is_flag=True,
    help="First download the EuroSAT archive with the recipe's bands into the data folder: 95 MB for red, "
    "green and blue, 2 GB for any others. Continues an earlier download that stopped.",
)
@click.option(
    "--split",
    type=click.Choice(SPLIT_METHODS),
    default="auto",
    show_default=True,
    help="How to choose the validation tiles. files: as listed in split-train.txt and split-val.txt in the "
    "data folder (with --download, in the folder that it creates there). random: at random in each class. "
    "location: by place, for GeoTIFFs, so that neighbours are never on both sides. auto: the files if they "
    "are there; else the split of the model that training starts from, or that teaches it, if it names half "
    "of the tiles or more; else random.",
)
@skip_option
@offset_option
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in DIR.")
@click.option("--overwrite", is_flag=True, help="Start again even if DIR holds a run already.")
@click.option("--tensorboard", is_flag=True, help="Also log to DIR/tensorboard for TensorBoard.")
@device_option
def train() -> None:
    """Train a model on a folder of class folders (EuroSAT or your own) with a recipe from configs/.

    The output folder becomes a model bundle that `classify --model DIR` takes; the split that was used is
    saved in it.

    On several GPUs: torchrun --nproc-per-node 4 --no-python landcover train …
    """


@lazy_command(
    "pipeline.commands.evaluate:evaluate",
    builds={"tile_options": TileOptions, "predictor_options": PredictorOptions},
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    metavar="DIR",
    help="A folder with one subfolder of tiles per class.",
)
@model_option
@click.option(
    "--names",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
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
@offset_option
@device_option
@json_option
def evaluate() -> None:
    """Measure a model on labelled tiles: a folder of class folders.

    DIR gets report.html, report.json and the plots as pictures.
    """


def _mebibytes(ctx: click.Context, param: click.Parameter, value: int) -> int:
    return value * 2**20


@lazy_command("pipeline.commands.app:app", builds={"options": AppOptions}, extra="app")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="The address to listen on; 0.0.0.0 lets in everybody who can reach this machine.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="The port to listen on; 0 takes any free one.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Visitors may open the scenes and maps in this folder, and no other files.",
)
@model_option
@click.option(
    "--max-upload",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    metavar="MIB",
    callback=_mebibytes,
    help="How large an uploaded scene may be.",
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def app() -> None:
    """Open a web page where you load an image and see its class, or a scene and see its map.

    Everything is computed on this machine; nothing is fetched from elsewhere. What visitors upload is
    deleted when they have been away for two hours, and when the app stops. Ctrl-C stops it.
    """


@click.group()
def model() -> None:
    """Look at the models that ship."""


@lazy_command("pipeline.commands.models:list_models", name="list")
def list_models() -> None:
    """List the models that ship."""


@lazy_command("pipeline.commands.models:show_model", name="show")
@click.argument("name", metavar="NAME|DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the whole card.")
def show_model() -> None:
    """Show a model's card: what it was trained on, its classes, how accurate it is."""


model.add_command(list_models)
model.add_command(show_model)

COMMANDS: tuple[click.Command, ...] = (classify, batch, mosaic, info, train, evaluate, app, model)


def all_commands(commands: Iterable[click.Command] = COMMANDS) -> Iterator[LazyCommand]:
    """Yield every command that does something, those inside groups too."""
    for command in commands:
        if isinstance(command, click.Group):
            yield from all_commands(command.commands.values())
        elif isinstance(command, LazyCommand):
            yield command
