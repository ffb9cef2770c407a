"""All options that a user can set, as frozen dataclasses, and their choices. Imports nothing heavy.

The command, the batch workers and the app build these; all other code receives them. Messages name an option
by its name here, in backticks.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.addresses import shown
from pipeline.errors import UsageError

DEFAULT_MODEL = "eurosat-rgb-resnet50"
"""The shipped model that is used unless another is named."""

PRODUCT_LEVELS = ("l1c", "l2a")
"""Product levels: reflectance at the top of the atmosphere, and at the surface."""

LEVELS = ("auto", *PRODUCT_LEVELS, "tci", "rgb8")
"""What a scene's pixels may be: auto detects it, tci is ESA's true-colour image, rgb8 training values."""

SAFE_RESOLUTIONS = (10, 20, 60)
"""Resolutions of the files in a SAFE product, in metres."""

POLYGON_FORMATS = ("geojson", "gpkg", "fgb", "parquet")
"""Formats in which a map's polygons can be written."""

NO_POLYGONS = "none"
"""The word for writing no polygons."""

MIN_STRIDE = 8
"""The smallest stride, in pixels: below it, a map gets more cells but no more detail."""

AUTO_PRIOR = "auto"
"""The word for choosing a prior by the scene's place."""

TRAINING_PRIOR = "eurosat"
"""The prior that keeps the classes' shares in the training tiles."""

NAMED_PRIORS = (TRAINING_PRIOR, "europe", "world")
"""The priors that ship; any other is a file."""

SPLIT_METHODS = ("auto", "files", "random", "location")
"""How the tiles to validate on are chosen; auto takes split files if there are any."""

JOURNAL_AFTER = 30.0
"""Seconds of work before progress is saved: less is repeated sooner than saved."""


@dataclass(frozen=True)
class SceneOptions:
    """What the user states about a scene; it overrides whatever is found."""

    bands: tuple[tuple[str, int], ...] = ()
    """Band names with their 1-based position in the file."""

    level: str = "auto"
    """One of `LEVELS`."""

    offset: float | None = None
    """Added to stored values before scaling, in ten-thousandths of reflectance (-1000) or, if less than 1, in
    reflectance (-0.1), however the file stores it; None to detect it."""

    mask: Path | str | None = None
    """A raster of pixels to leave out. A URL has to be a str, since a Path turns `//` into `/`."""

    assume_crs: str | None = None
    """The coordinate system of a scene that has none."""

    assume_gsd: float | None = None
    """Metres per pixel of a scene without georeference, which is then classified in pixel space."""

    date: str | None = None
    """When the scene was taken, for the sun's angle where no metadata give it: an ISO date or date-time.

    A date alone means 10:30 local solar time, Sentinel-2's overpass; a time without a zone is UTC.
    """

    safe_resolution: int = 10
    """Which files of a SAFE product are read, one of `SAFE_RESOLUTIONS`."""


@dataclass(frozen=True)
class ClassifyOptions:
    """How to make the map of a scene.

    An existing map is kept. If it was made with another model, input or options, that is an error unless
    `refresh` or `overwrite` is set.
    """

    scene: SceneOptions = field(default_factory=SceneOptions)
    """What the user states about the scene."""

    stride: int | None = None
    """Pixels from one tile to the next; None for the side of the model's tile."""

    prior: str = AUTO_PRIOR
    """How common classes are: one of `NAMED_PRIORS`, a YAML file of shares, or auto to go by the place."""

    min_confidence: int = 0
    """Percent; cells with less confidence become no data."""

    polygons: str = "geojson"
    """One of `POLYGON_FORMATS`, or `NO_POLYGONS`."""

    probabilities: bool = False
    """Also write a raster with one band per class."""

    preview: bool = False
    """Also write a picture of the map with its legend."""

    tta: bool = False
    """Test-time augmentation: the mean over each tile's eight flips and rotations."""

    overwrite: bool = False
    """Classify again even if the map exists, no matter how it was made."""

    refresh: bool = False
    """Classify again if the existing map was made with another model, input or options."""

    reader_threads: int = 0
    """Threads that read the scene; 0 for as many as keep the device busy."""

    journal_after: float = JOURNAL_AFTER
    """Seconds of work after which progress is saved, for a later run to resume."""

    def stride_for(self, tile_size: int) -> int:
        """Return the stride in pixels.

        Raises:
            UsageError: tiles of this size would leave gaps or be too many.
        """
        stride = self.stride or tile_size
        if not MIN_STRIDE <= stride <= tile_size:
            raise UsageError(
                f"`stride` {stride} is out of range: it may be {MIN_STRIDE} to {tile_size} pixels, "
                "the model's tile."
            )
        return stride

    def check(self, tile_size: int) -> None:
        """Raise UsageError if an option is out of range, or does not suit a model of this tile size."""
        self.stride_for(tile_size)
        if not 0 <= self.min_confidence <= 100:
            raise UsageError(f"`min_confidence` is a percentage, not {self.min_confidence}.")
        check_polygons(self.polygons)

    def identity(self, tile_size: int) -> dict[str, Any]:
        """Return the options that change what is written, as plain values for comparing runs."""
        decisive = asdict(replace(self, stride=self.stride_for(tile_size)))
        for name in ("overwrite", "refresh", "reader_threads", "journal_after"):
            del decisive[name]
        if isinstance(self.scene.mask, str):
            decisive["scene"]["mask"] = shown(self.scene.mask)
        return decisive


@dataclass(frozen=True)
class PredictorOptions:
    """How to compute probabilities."""

    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""

    batch_size: int = 0
    """Tiles per batch; 0 for what suits the device."""

    precision: str = "auto"
    """auto, float32, bfloat16 or float16; auto is half precision where the device is faster in it."""

    compile: str = "auto"
    """When to compile the network: auto (for scenes so large that it saves time), always or never."""


@dataclass(frozen=True)
class BatchOptions:
    """How to run a batch of scenes."""

    timeout: float = 600.0
    """Seconds without progress after which a scene counts as failed."""

    fail_fast: bool = False
    """Stop the batch when the first scene fails."""


@dataclass(frozen=True)
class MosaicOptions:
    """How to join maps into a mosaic."""

    crs: str | None = None
    """The coordinate system whose maps are joined; None if all maps have the same."""

    polygons: str = "geojson"
    """One of `POLYGON_FORMATS`, or `NO_POLYGONS`."""

    overwrite: bool = False
    """Also replace files that do not belong to an earlier mosaic."""


@dataclass(frozen=True)
class TileOptions:
    """What the user states about labelled tiles that a model is measured on."""

    skip_unreadable: bool = False
    """Leave out tiles that cannot be read, with a warning."""

    offset: float | None = None
    """Of multispectral tiles, as in `SceneOptions`; None to detect it."""


@dataclass(frozen=True)
class TrainOptions:
    """What the user may decide about a training run, beside the recipe."""

    resume: bool = False
    """Continue from the checkpoint in the output folder; without it, an earlier run there is replaced."""

    split: str = "auto"
    """One of `SPLIT_METHODS`."""

    skip_unreadable: bool = False
    """Leave out tiles that cannot be read, with a warning."""

    offset: float | None = None
    """Of multispectral tiles, as in `SceneOptions`; None to detect it."""

    tensorboard: bool = False
    """Also write what TensorBoard shows."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class AppOptions:
    """How to run the app."""

    model: str
    """Name or folder of the model that is selected at first."""

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = 8000
    """The port to listen on; 0 for any free one."""

    root: Path | None = None
    """A folder whose scenes and maps visitors may open; None for no such folder."""

    max_upload: int = 2 * 2**30
    """The largest scene that may be uploaded, in bytes."""


def check_polygons(polygons: str) -> None:
    """Raise UsageError if this is not a format for polygons."""
    if polygons not in (*POLYGON_FORMATS, NO_POLYGONS):
        raise UsageError(f"`polygons` is one of {', '.join(POLYGON_FORMATS)} and {NO_POLYGONS}.")
