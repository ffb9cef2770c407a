"""A source of pixels: any scene, its bands in the model's order, on the model's ground grid.

`open_scene` answers every question about a scene before the first tile is read: where the bands are
(`imagery`), which grid they are read on (`ground_grid`) and what their numbers mean (`encoding`).
`Scene.open` then hands out readers, one a thread.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info
from pipeline.options import LEVELS, SceneOptions
from pipeline.scenes.bands import Imagery, find_imagery, open_raster, without_query
from pipeline.scenes.encoding import StoredValues, find_encoding
from pipeline.scenes.ground import GroundGrid, ground_grid
from pipeline.scenes.radiometry import PixelEncoding, pixel_transform
from pipeline.scenes.rasters import (
    READ_ERRORS,
    BandLayer,
    MaskLayer,
    OpenLayer,
    OpenMask,
    combine,
    describe_layer,
    describe_mask,
    group_by_file,
    open_layer,
    open_mask,
)
from pipeline.values import PixelTransform

# A square of 3,000 km; a file that declares more is damaged, or days of work that somebody should want.
MAX_PIXELS = 10**11

# A scene of so few pixels is sampled in one piece: windows spread over it meet each block of the file several
# times, and GDAL decodes it each time. Larger ones are sampled in windows, of which there are few.
SAMPLED_WHOLE = 2**21

# A few strips of a large scene. GDAL's default, 5 % of the memory, would grow with the machine and
# keep blocks that are never read again.
GDAL_OPTIONS: dict[str, int | str] = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": 128}

# Files beside a remote image (.msk, .aux.xml) are not looked for. For each that is not there GDAL asks the
# server, one after the other, and rasterio lets no other thread go on meanwhile.
REMOTE = re.compile(
    r"(?:/vsi\w+[/{]*?)*?/vsi(?:curl|s3|gs|az|adls|oss|swift)/|(?!(?:file|zip|tar|gzip):)[\w+.-]{2,}://"
)
REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}

# Scenes without a georeference are refused in our own words. (Filters are the process's, not a
# thread's: set once, not around every open.)
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


class SceneReader:
    """Open handles on a scene's files. Belongs to the thread that opened it."""

    def __init__(
        self, layers: list[OpenLayer], masks: list[OpenMask], shape: tuple[int, int, int], dtype: np.dtype
    ):
        self._layers = layers
        self._masks = masks
        self._bands, self._height, self._width = shape
        self._dtype = dtype

    def read(self, row: int, col: int, height: int, width: int) -> tuple[npt.NDArray, npt.NDArray[np.bool_]]:
        """Return pixels (B, h, w) in the scene's dtype and valid (h, w) of a window inside the scene.

        Raises SceneError, naming the file, where it is damaged.
        """
        if (
            min(row, col) < 0
            or min(height, width) < 1
            or row + height > self._height
            or col + width > self._width
        ):
            raise ValueError(
                f"Window {row, col, height, width} leaves the scene of {self._height} x {self._width}."
            )
        window = Window(col, row, width, height)
        pixels, found = self._read_bands(window)
        found += [mask.read(window) for mask in self._masks]
        valid = combine(found)
        return pixels, np.ones((height, width), dtype=bool) if valid is None else valid

    def _read_bands(self, window: Window) -> tuple[npt.NDArray, list[npt.NDArray[np.bool_]]]:
        if len(self._layers) == 1:  # one file that holds all bands: no copy
            pixels, valid = self._layers[0].read(window)
            found = [] if valid is None else [valid]
        else:
            pixels = np.empty((self._bands, window.height, window.width), dtype=self._dtype)
            found = []
            for opened in self._layers:
                pixels[list(opened.layer.channels)], valid = opened.read(window)
                if valid is not None:
                    found.append(valid)
        # The warper has dealt with zeros of the files that it resamples.
        if all(opened.layer.zero_is_nodata and opened.layer.resampling is None for opened in self._layers):
            found.append(np.asarray(pixels.any(axis=0)))
        return pixels, found


@dataclass(frozen=True)
class Scene:
    """A scene on the model's ground grid; holds no open file, so it goes to any thread or process.

    `transform`, `width` and `height` are the grid's; `crs` is None in pixel space. `block_height` is the
    height, in rows of the grid, of the strips in which the files are best read. `notes` say what was
    found or assumed.
    """

    name: str
    path: str
    crs: CRS | None
    transform: Affine
    width: int
    height: int
    bands: tuple[str, ...]
    dtype: np.dtype
    pixel_transform: PixelTransform
    block_height: int
    notes: tuple[Note, ...]
    encoding: PixelEncoding
    resampling: str | None
    layers: tuple[BandLayer, ...]
    masks: tuple[MaskLayer, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the local files that pixels and masks are read from, zip archives as a whole.

        Statistics and overviews, which come into being when a file is merely looked at, are left out.
        """
        named = [file for layer in self.layers for file in layer.files]
        named += [file for mask in self.masks for file in mask.files]
        local = [
            Path(re.sub(r"^/vsizip/\{?(.*\.zip)\b.*", r"\1", file, flags=re.IGNORECASE))
            for file in named
            if not file.lower().endswith((".aux.xml", ".ovr"))
        ]
        return tuple(path for path in dict.fromkeys(local) if path.exists())

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells whether a scene is still the same, as plain values.

        Names, sizes and times of its files; the folder may be renamed. Of a remote scene only its address,
        without what follows `?`: a signature is renewed, and a secret.
        """
        files = [(file.name, file.stat()) for file in self.files]
        if not files:
            return {"path": without_query(self.path)}
        return {
            "files": [
                {"name": name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns} for name, stat in files
            ]
        }

    @contextmanager
    def open(self) -> Iterator[SceneReader]:
        """Open the scene's files for one thread."""
        shape = len(self.bands), self.height, self.width
        with _open_reader(self.layers, self.masks, shape, self.dtype) as reader:
            yield reader


@contextmanager
def _open_reader(
    layers: tuple[BandLayer, ...], masks: tuple[MaskLayer, ...], shape: tuple[int, int, int], dtype: np.dtype
) -> Iterator[SceneReader]:
    # Inside an Env GDAL's messages go to the logger `rasterio`, outside to stderr.
    with _gdal(layers[0].path), ExitStack() as stack:
        opened = [stack.enter_context(open_layer(layer)) for layer in layers]
        opened_masks = [stack.enter_context(open_mask(mask)) for mask in masks]
        yield SceneReader(opened, opened_masks, shape, dtype)


def open_scene(path: str | Path, card: ModelCard, options: SceneOptions = SceneOptions()) -> Scene:
    """Find out all that reading the scene for this model takes; reads headers, and a sample if needed.

    Raises SceneError if the scene cannot be opened, understood or placed on the ground, UsageError if an
    option cannot be meant.
    """
    if options.level not in LEVELS:
        raise UsageError(f"`level` is one of {', '.join(LEVELS)}, not '{options.level}'.")
    with _gdal(str(path)), _headers_told(path):
        imagery = find_imagery(str(path), card, options.bands, options.safe_resolution)
        grid, scene_shape = _grid_of(imagery, card, options)
        _check_size(imagery.name, grid)
        layers = _band_layers(imagery, grid)
        masks, mask_notes = _mask_layers(imagery, grid, scene_shape, options.mask)
        dtype = np.result_type(*(layer.dtype for layer in layers))
        shape = len(card.bands), grid.height, grid.width

        def draw_sample() -> npt.NDArray:
            with _open_reader(layers, masks, shape, dtype) as reader:
                return _sample(reader, grid)

        stored = StoredValues(dtype, *_file_scaling(layers, len(card.bands)), draw_sample)
        encoding, encoding_notes = find_encoding(card, imagery, stored, options.level, options.offset)
        if encoding.level != "rgb8" and not any(layer.declares_validity for layer in layers):
            # Sentinel-2's definition of no data, also where an archive forgot to declare it.
            layers = tuple(replace(layer, zero_is_nodata=True) for layer in layers)
    return Scene(
        name=imagery.name,
        path=str(path),
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        bands=card.bands,
        dtype=dtype,
        pixel_transform=pixel_transform(card, encoding),
        block_height=min(grid.height, max(layer.block_height for layer in layers)),
        notes=(*imagery.notes, *encoding_notes, *grid.notes, *mask_notes),
        encoding=encoding,
        resampling=grid.resampling.name if grid.resampling else None,
        layers=layers,
        masks=masks,
    )


def _gdal(path: str) -> rasterio.Env:
    """Return GDAL's settings for a scene."""
    return rasterio.Env(**GDAL_OPTIONS, **(REMOTE_OPTIONS if REMOTE.match(path) else {}))


@contextmanager
def _headers_told(path: str | Path) -> Iterator[None]:
    """Tell of a damaged header in our own words, wherever GDAL or rasterio stumble over it."""
    try:
        yield
    except (*READ_ERRORS, UnicodeError) as error:
        raise SceneError(
            f"{path} has a header, or a name, that cannot be read ({error}): fetch it again, or rename it."
        ) from error


def _grid_of(imagery: Imagery, card: ModelCard, options: SceneOptions) -> tuple[GroundGrid, tuple[int, int]]:
    """Return the ground grid, and (height, width) of the finest band's own pixels, which decides it."""
    finest = None
    with ExitStack() as stack:
        for path in dict.fromkeys(source.path for source in imagery.bands):
            dataset = stack.enter_context(open_raster(path))
            if finest is None or dataset.width * dataset.height > finest.width * finest.height:
                finest = dataset
        assert finest is not None
        grid = ground_grid(finest, imagery.name, card.gsd, options.assume_crs, options.assume_gsd)
        return grid, finest.shape


def _check_size(name: str, grid: GroundGrid) -> None:
    if grid.width * grid.height > MAX_PIXELS:
        raise SceneError(
            f"{name} declares {grid.width:,} x {grid.height:,} pixels of {grid.transform.a:g} m, more "
            f"than the {MAX_PIXELS:,} that a scene may have: cut it into parts (gdal_translate -srcwin)."
        )


def _band_layers(imagery: Imagery, grid: GroundGrid) -> tuple[BandLayer, ...]:
    product_nodata = 0.0 if imagery.own_metadata else None  # SPECIAL_VALUE NODATA of every product
    layers = tuple(
        layer
        for path, (indexes, channels) in group_by_file(imagery.bands).items()
        for layer in describe_layer(path, indexes, channels, grid, product_nodata).warped_alone()
    )
    if grid.source.transform and len({layer.shape for layer in layers}) > 1:
        raise SceneError(
            f"{imagery.name} has bands of different sizes and no georeference to bring them together."
        )
    return layers


def _mask_layers(
    imagery: Imagery, grid: GroundGrid, scene_shape: tuple[int, int], stated: Path | str | None
) -> tuple[tuple[MaskLayer, ...], list[Note]]:
    """Return the scene classification that comes along and the mask that the user states."""
    masks = []
    if imagery.scene_classification:
        masks.append(replace(describe_mask(imagery.scene_classification, grid, scene_shape), is_scl=True))
    if stated:
        masks.append(describe_mask(str(stated), grid, scene_shape))
    meanings = {
        True: "no data, saturated pixels, cloud shadow and clouds are left out by the scene classification",
        False: "pixels other than 0 are left out by the mask",
    }
    return tuple(masks), [
        info("mask-applied", "mask", f"{meanings[mask.is_scl].capitalize()} {mask.name}.") for mask in masks
    ]


def _file_scaling(layers: tuple[BandLayer, ...], bands: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return GDAL's scale and offset tags in the order of the model's bands."""
    scales, offsets = [1.0] * bands, [0.0] * bands
    for layer in layers:
        for channel, scale, offset in zip(layer.channels, layer.scales, layer.offsets, strict=True):
            scales[channel], offsets[channel] = scale, offset
    return tuple(scales), tuple(offsets)


def _sample(reader: SceneReader, grid: GroundGrid, windows: int = 6, size: int = 64) -> npt.NDArray:
    """Return valid pixels (B, n) from all over the scene, as cheaply as its size allows."""
    own_pixels = grid.resampling is None
    if max(grid.shape) <= windows * size or (own_pixels and grid.width * grid.height <= SAMPLED_WHOLE):
        pixels, valid = reader.read(0, 0, grid.height, grid.width)
        step = max(1, min(grid.shape) // (windows * size))
        return pixels[:, ::step, ::step][:, valid[::step, ::step]]
    height, width = min(size, grid.height), min(size, grid.width)
    taken = []
    for row in sorted(set(np.linspace(0, grid.height - height, windows).astype(int).tolist())):
        for col in sorted(set(np.linspace(0, grid.width - width, windows).astype(int).tolist())):
            pixels, valid = reader.read(row, col, height, width)
            taken.append(pixels[:, valid])
    return np.concatenate(taken, axis=1)
