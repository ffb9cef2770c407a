"""Click options that several commands share, and parameter types. Imports nothing but click and `options`.

An option is called as the field of a dataclass in `pipeline.options` that takes its value.
"""

from collections.abc import Callable
from math import isfinite, nan
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.options import (
    AUTO_PRIOR,
    DEFAULT_MODEL,
    LEVELS,
    MIN_STRIDE,
    NO_POLYGONS,
    POLYGON_FORMATS,
    SAFE_RESOLUTIONS,
)

Declared = TypeVar("Declared", bound=Callable[..., Any])
Decorator = Callable[[Declared], Declared]


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

    name = "auto|NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return None for `auto`, else the number."""
        if value in (None, "auto"):
            return None
        try:
            number = float(value)
        except ValueError:
            number = nan
        if not isfinite(number):
            self.fail(f"'{value}' is neither 'auto' nor a number such as -1000", param, ctx)
        return int(number) if number.is_integer() else number


def together(*options: Decorator) -> Decorator:
    """Return one decorator that adds several options, listed by `--help` in this order."""

    def decorate(command: Declared) -> Declared:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _whole(ctx: click.Context, param: click.Parameter, value: str) -> int:
    return int(value)


output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The folder to write to; created if it does not exist.",
)

model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|DIR",
    help="The name of a model that ships, or the folder of your own.",
)

stride_option = click.option(
    "--stride",
    type=click.IntRange(min=MIN_STRIDE),
    help="Pixels from one tile to the next, and so the size of a map cell: 64 is 640 m, 16 is 160 m. Below "
    "the model's tile size, tiles overlap and are averaged: finer, smoother, slower.  [default: the tile "
    "size, 64]",
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
    help="Where to compute: auto takes the GPU if there is one, cuda:1 the second GPU.",
)

skip_option = click.option(
    "--skip-unreadable", is_flag=True, help="Skip tiles that cannot be read, with a warning."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

offset_option = click.option(
    "--offset",
    type=Offset(),
    default="auto",
    show_default=True,
    help="Added to stored values before scaling: -1000 for Sentinel-2 baseline 04.00 and later, "
    "0 for earlier ones and where an archive has already removed it. In ten-thousandths of reflectance "
    "however the file stores it: for numbers of 0 to 1, -1000 and -0.1 are the same.",
)

# The fields of SceneOptions.
scene_options = together(
    click.option(
        "--bands",
        type=Bands(),
        default=(),
        help="Which band of the file is which, as in red=1,green=2,blue=3.",
    ),
    click.option(
        "--level",
        type=click.Choice(LEVELS),
        default="auto",
        show_default=True,
        help="What the pixels are: Sentinel-2 top-of-atmosphere (l1c) or surface reflectance (l2a), ESA's "
        "true-colour image (tci), or 8-bit values stretched as the model's training tiles are (rgb8).",
    ),
    offset_option,
    click.option(
        "--date",
        metavar="DATE",
        help="When the scene was taken, as 2017-06-13 (Sentinel-2's overpass at 10:30 solar time) or "
        "2017-06-13T10:10:31Z: where no metadata give the sun's angle, it follows from time and place.  "
        "[default: the time in metadata, file name or tags]",
    ),
    click.option(
        "--mask",
        metavar="FILE",
        help="A raster, on any grid, that is 0 where pixels are valid; or a Sentinel-2 scene classification "
        "layer, with SCL in its name, band description or tags.",
    ),
    click.option("--assume-crs", metavar="CRS", help="The CRS of a scene that has none, such as EPSG:32633."),
    click.option(
        "--assume-gsd",
        type=click.FloatRange(min=0, min_open=True),
        metavar="METRES",
        help="The pixel size of a scene without georeference, which is then classified in pixel space.",
    ),
    click.option(
        "--safe-resolution",
        type=click.Choice([str(metres) for metres in SAFE_RESOLUTIONS]),
        default="10",
        show_default=True,
        callback=_whole,
        help="Which files of a SAFE product to read, by their resolution in metres.",
    ),
)

# The fields of ClassifyOptions that decide what a map shows, and those of PredictorOptions.
map_options = together(
    stride_option,
    click.option(
        "--prior",
        default=AUTO_PRIOR,
        show_default=True,
        metavar="auto|europe|world|eurosat|FILE.yaml",
        help="How common each class is on the ground, as the training tiles show as many roads as forests. "
        "europe, world: by land statistics; eurosat: as in the training tiles; FILE: your own shares; auto: "
        "europe or world by the scene's place, eurosat without one.",
    ),
    click.option(
        "--min-confidence",
        type=click.IntRange(0, 100),
        default=0,
        show_default=True,
        metavar="PERCENT",
        help="Cells less certain than this become no data.",
    ),
    polygons_option,
    click.option("--probabilities", is_flag=True, help="Also write a raster with one band per class."),
    click.option("--preview", is_flag=True, help="Also write a picture of the map with its legend (PNG)."),
    click.option(
        "--tta",
        is_flag=True,
        help="Test-time augmentation: average over each tile's eight flips and rotations. Somewhat more "
        "accurate, eight times the work.",
    ),
    device_option,
    click.option(
        "--batch-size", type=click.IntRange(0), default=0, help="Tiles per batch; 0 chooses by device."
    ),
)
