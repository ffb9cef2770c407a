"""Every choice that a user has, as frozen dataclasses, and the words for it. Imports nothing heavy.

The command, the batch's workers and the app build these; all else is given them. An option's name here is the
name that messages give it in backticks.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.addresses import shown
from pipeline.errors import UsageError

DEFAULT_MODEL = "eurosat-rgb-resnet50"

PRODUCT_LEVELS = ("l1c", "l2a")
"""Reflectance at the top of the atmosphere and at the surface."""

LEVELS = ("auto", *PRODUCT_LEVELS, "tci", "rgb8")
"""What a scene's pixels may be: auto finds out, tci is ESA's true-colour image, rgb8 training values."""

SAFE_RESOLUTIONS = (10, 20, 60)
"""Of the files of a SAFE product, in metres."""

POLYGON_FORMATS = ("geojson", "gpkg", "fgb", "parquet")
NO_POLYGONS = "none"

MIN_STRIDE = 8
"""Pixels. Below, a map has more cells than it has to say."""

SPLIT_METHODS = ("auto", "files", "random", "location")
"""How the tiles to validate on are chosen; auto takes split files if there are any."""

JOURNAL_AFTER = 30.0
"""Seconds of work that are sooner done again than kept."""


@dataclass(frozen=True)
class SceneOptions:
    """What the user states about a scene; it beats whatever is found."""

    bands: tuple[tuple[str, int], ...] = ()
    """Band names with their 1-based position in the file."""

    level: str = "auto"
    """One of `LEVELS`."""

    offset: int | None = None
    """Added to stored values before scaling; None to find it out."""

    mask: Path | str | None = None
    """A raster of pixels to leave out. An address has to be a str: a Path makes one slash of two."""

    assume_crs: str | None = None
    """The coordinate system of a scene that has none."""

    assume_gsd: float | None = None
    """Metres a pixel of a scene without georeference, which is then classified in pixel space."""

    safe_resolution: int = 10
    """Which files of a SAFE product are read, one of `SAFE_RESOLUTIONS`."""


@dataclass(frozen=True)
class ClassifyOptions:
    """What the user may decide about one scene's map.

    A map that is there already is left as it is. It is refused if another model, input or options made it,
    unless `refresh` or `overwrite` says otherwise.
    """

    scene: SceneOptions = field(default_factory=SceneOptions)
    """What the scene's pixels are."""

    stride: int | None = None
    """Pixels from one tile to the next; None for the model's tile."""

    min_confidence: int = 0
    """Percent; cells less certain than this become no data."""

    polygons: str = "geojson"
    """One of `POLYGON_FORMATS`, or `NO_POLYGONS`."""

    probabilities: bool = False
    """Also write a raster with a band a class."""

    preview: bool = False
    """Also write a picture of the map with its legend."""

    tta: bool = False
    """Test-time augmentation: the mean over each tile's eight flips and rotations."""

    overwrite: bool = False
    """Classify again what is done already, whoever made it."""

    refresh: bool = False
    """Classify again what another model, input or other options made."""

    reader_threads: int = 0
    """Threads that read the scene; 0 for as many as keep the device busy."""

    journal_after: float = JOURNAL_AFTER
    """Seconds of work after which progress is kept for a later run."""

    def stride_for(self, tile_size: int) -> int:
        """Return the stride; raises UsageError if the model's tiles would leave gaps or be too many."""
        stride = self.stride or tile_size
        if not MIN_STRIDE <= stride <= tile_size:
            raise UsageError(
                f"`stride` {stride} is out of range: it may be {MIN_STRIDE} to {tile_size} pixels, "
                "the model's tile."
            )
        return stride

    def check(self, tile_size: int) -> None:
        """Raise UsageError if an option cannot be meant, or not with a model of this tile size."""
        self.stride_for(tile_size)
        if not 0 <= self.min_confidence <= 100:
            raise UsageError(f"`min_confidence` is a percentage, not {self.min_confidence}.")
        check_polygons(self.polygons)

    def identity(self, tile_size: int) -> dict[str, Any]:
        """Return the options that change what is written, as plain values."""
        decisive = asdict(replace(self, stride=self.stride_for(tile_size)))
        for name in ("overwrite", "refresh", "reader_threads", "journal_after"):
            del decisive[name]
        if isinstance(self.scene.mask, str):
            decisive["scene"]["mask"] = shown(self.scene.mask)
        return decisive


@dataclass(frozen=True)
class PredictorOptions:
    """How to compute."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    batch_size: int = 0
    """Tiles a batch; 0 is the device's own."""

    precision: str = "auto"
    """auto, float32, bfloat16 or float16; auto is half precision where the device is faster in it."""

    compile: str = "auto"
    """auto (if the scene is long enough to pay for it), always or never."""


@dataclass(frozen=True)
class BatchOptions:
    """What the user may decide about a batch."""

    timeout: float = 600.0
    """Seconds without progress after which a scene fails."""

    fail_fast: bool = False
    """End the batch at the first scene that fails."""


@dataclass(frozen=True)
class MosaicOptions:
    """What the user may decide about a mosaic."""

    crs: str | None = None
    """The zone whose maps are joined; None where there is only one."""

    polygons: str = "geojson"
    """One of `POLYGON_FORMATS`, or `NO_POLYGONS`."""

    overwrite: bool = False
    """Replace files that are not an earlier mosaic's, too."""


@dataclass(frozen=True)
class TrainOptions:
    """What the user may decide about a training run, beside the recipe."""

    resume: bool = False
    """Continue from the checkpoint in the output folder; without it, an earlier run there is replaced."""

    split: str = "auto"
    """One of `SPLIT_METHODS`."""

    skip_unreadable: bool = False
    """Leave out tiles that cannot be read, with a warning."""

    tensorboard: bool = False
    """Also write what TensorBoard shows."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class AppOptions:
    """What the user decides about the app."""

    model: str
    """The name or folder of the model that is chosen at first."""

    host: str = "127.0.0.1"
    """The address to listen at."""

    port: int = 8000
    """0 takes any that is free."""

    root: Path | None = None
    """A folder whose scenes and maps visitors may look at."""

    max_upload: int = 2 * 2**30
    """Bytes that a scene may have."""


def check_polygons(polygons: str) -> None:
    """Raise UsageError if there is no such format of polygons."""
    if polygons not in (*POLYGON_FORMATS, NO_POLYGONS):
        raise UsageError(f"`polygons` is one of {', '.join(POLYGON_FORMATS)} and none.")
