"""A source of pixels: any scene, its bands in the model's order, on the model's ground grid.

`open_scene` answers every question about a scene before the first tile is read: where the bands are
(`bands`), which grid they are read on (`ground`) and what their numbers mean (`encoding`). `Scene.open` then
hands out readers, one for each thread.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from pipeline.addresses import local_archive, scrub, shown
from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info
from pipeline.options import LEVELS, SceneOptions
from pipeline.scenes.bands import Imagery, find_imagery
from pipeline.scenes.encoding import find_encoding
from pipeline.scenes.gdal import READ_ERRORS, gdal_settings, open_raster
from pipeline.scenes.ground import GroundGrid, LonLat, center_lonlat, ground_grid
from pipeline.scenes.masks import MaskLayer, OpenMask, describe_mask, open_mask
from pipeline.scenes.radiometry import PixelEncoding, pixel_transform
from pipeline.scenes.rasters import BandLayer, OpenLayer, combine, describe_layer, group_by_file, open_layer
from pipeline.scenes.stored_values import StoredValues, checked_tags
from pipeline.scenes.sun import find_sun
from pipeline.scenes.validity import with_validity
from pipeline.values import PixelTransform

# A square of 3,000 km; a file that declares more is damaged, or would take days that nobody asked for.
MAX_PIXELS = 10**11

# A scene of so few pixels is sampled in one piece: windows spread over it meet each block of the file several
# times, and GDAL decodes it each time. Larger ones are sampled in a few windows.
SAMPLED_WHOLE = 2**21

# Scenes without a georeference are refused in our own words. (Filters are the process's, not a
# thread's: set once, not around every open.)
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


class SceneReader:
    """Open handles on a scene's files. Belongs to the thread that opened it."""

    def __init__(
        self, layers: list[OpenLayer], masks: list[OpenMask], shape: tuple[int, int, int], dtype: np.dtype
    ) -> None:
        self._layers = layers
        self._masks = masks
        self._bands, self._height, self._width = shape
        self._dtype = dtype
        # The warper has dealt with zeros of the files in which they mark invalid pixels.
        self._zero_is_nodata = all(
            opened.layer.zero_is_nodata and not opened.layer.zero_is_resolved for opened in layers
        )
        self._black_border = all(opened.layer.black_border for opened in layers)

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
        if self._black_border and width < self._width:  # it goes on from the edges of the scene
            pixels, whole = self.read(row, 0, height, self._width)
            return pixels[:, :, col : col + width], whole[:, col : col + width]
        window = Window(col, row, width, height)
        pixels, found = self._read_bands(window)
        if self._black_border:
            found.append(~_from_edges(np.logical_not(pixels.any(axis=0))))
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
        if self._zero_is_nodata:
            found.append(np.asarray(pixels.any(axis=0)))
        return pixels, found


def _from_edges(black: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which black pixels (h, w) have only black ones between them and the left or the right edge.

    Each row is judged by itself, so that it does not matter how a scene is cut into strips.
    """
    left = np.logical_and.accumulate(black, axis=1)
    right = np.logical_and.accumulate(black[:, ::-1], axis=1)[:, ::-1]
    return left | right


@dataclass(frozen=True)
class Scene:
    """A scene on the model's ground grid; has no open file, so it goes to any thread or process."""

    name: str
    """What its files are named after."""

    path: str
    """What the user gave: a path or an address."""

    crs: CRS | None
    """The coordinate system of the ground grid; None in pixel space."""

    transform: Affine
    """From pixels of the ground grid to its coordinates."""

    width: int
    """Pixels of the ground grid from left to right."""

    height: int
    """Pixels of the ground grid from top to bottom."""

    bands: tuple[str, ...]
    """The model's bands, in channel order."""

    dtype: np.dtype
    """The type of the stored pixels."""

    pixel_transform: PixelTransform
    """From stored pixels to the values that the model was trained on."""

    block_height: int
    """Rows of the ground grid in the strips in which the files are best read."""

    notes: tuple[Note, ...]
    """What was found or assumed."""

    encoding: PixelEncoding
    """What the stored pixels mean."""

    resampling: str | None
    """How the pixels are brought onto the ground grid; None if they lie on it already."""

    layers: tuple[BandLayer, ...]
    """The files of the bands."""

    masks: tuple[MaskLayer, ...]
    """The files that say which pixels to leave out."""

    acquired: datetime | None = None
    """When the scene was taken, with a time zone; None if its product does not say."""

    place: LonLat | None = None
    """Where its centre is; None in pixel space."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the local files that pixels and masks are read from, zip archives as a whole.

        Statistics and overviews are left out: viewers write them just by opening a file.
        """
        named = [file for layer in self.layers for file in layer.files]
        named += [file for mask in self.masks for file in mask.files]
        local = [
            Path(local_archive(file) or file)
            for file in named
            if not file.lower().endswith((".aux.xml", ".ovr"))
        ]
        return tuple(path for path in dict.fromkeys(local) if path.exists())

    def fingerprint(self) -> dict[str, Any]:
        """Return plain values that change when the scene's files do.

        Names, sizes and times of its files; the folder may be renamed. Of a remote scene only the address,
        without its secrets: a signature is renewed.
        """
        files = [(file.name, file.stat()) for file in self.files]
        if not files:
            return {"path": shown(self.path)}
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
    with gdal_settings(layers[0].path), ExitStack() as stack:
        opened = [stack.enter_context(open_layer(layer)) for layer in layers]
        opened_masks = [stack.enter_context(open_mask(mask)) for mask in masks]
        yield SceneReader(opened, opened_masks, shape, dtype)


def open_scene(path: str | Path, card: ModelCard, options: SceneOptions = SceneOptions()) -> Scene:
    """Find out everything needed to read a scene for a model; reads headers, and a sample if needed.

    Raises SceneError if the scene cannot be opened, understood or placed on the ground, UsageError if an
    option makes no sense.
    """
    if options.level not in LEVELS:
        raise UsageError(f"`level` is one of {', '.join(LEVELS)}, not '{options.level}'.")
    with gdal_settings(str(path)), _header_errors(path):
        imagery = find_imagery(str(path), card, options.bands, options.safe_resolution)
        grid, scene_shape = _grid_of(imagery, card, options)
        _check_size(imagery.name, grid)
        layers = _band_layers(imagery, grid)
        masks, mask_notes = _mask_layers(imagery, grid, scene_shape, options.mask)
        stored, tag_notes = _stored_values(imagery.name, layers, masks, grid, card.bands)
        place = center_lonlat(grid.crs, grid.transform, grid.width, grid.height)
        sun = find_sun(imagery, place, options.date)
        encoding, encoding_notes = find_encoding(card, imagery, stored, options.level, options.offset, sun)
        validity_notes: list[Note] = []
        if not imagery.is_product:  # a product says which of its pixels hold no data
            layers, validity_notes = with_validity(layers, stored, encoding)
    return Scene(
        name=imagery.name,
        path=str(path),
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        bands=card.bands,
        dtype=stored.dtype,
        pixel_transform=pixel_transform(card, encoding),
        block_height=min(grid.height, max(layer.block_height for layer in layers)),
        notes=(*imagery.notes, *tag_notes, *encoding_notes, *validity_notes, *grid.notes, *mask_notes),
        encoding=encoding,
        resampling=grid.resampling.name if grid.resampling else None,
        layers=tuple(part for layer in layers for part in layer.warped_alone()),
        masks=masks,
        acquired=imagery.facts.acquired if imagery.facts else None,
        place=place,
    )


@contextmanager
def _header_errors(path: str | Path) -> Iterator[None]:
    """Raise SceneError for a damaged header or a path that cannot be looked at, wherever that shows."""
    try:
        yield
    except (*READ_ERRORS, UnicodeError) as error:
        reason = scrub(str(error), str(path))
        raise SceneError(
            f"{shown(str(path))} has a header, or a name, that cannot be read ({reason}): fetch it again, or "
            "rename it."
        ) from error
    except OSError as error:
        raise SceneError(
            f"{shown(str(path))} cannot be read ({error.strerror}): check its name and who may read it."
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
    layers = tuple(
        describe_layer(path, indexes, channels, grid, imagery.nodata)
        for path, (indexes, channels) in group_by_file(imagery.bands).items()
    )
    if grid.source.transform and len({layer.shape for layer in layers}) > 1:
        raise SceneError(
            f"{imagery.name} has bands of different sizes and no georeference to bring them together."
        )
    return layers


def _mask_layers(
    imagery: Imagery, grid: GroundGrid, scene_shape: tuple[int, int], stated: Path | str | None
) -> tuple[tuple[MaskLayer, ...], list[Note]]:
    """Return the mask that comes with the bands and the one that the user states."""
    masks = []
    if imagery.mask:
        masks.append(describe_mask(imagery.mask.path, grid, scene_shape, imagery.mask.decoder))
    if stated:
        masks.append(describe_mask(str(stated), grid, scene_shape))
    notes = [info("mask-applied", "mask", f"{mask.decoder.meaning} {mask.name}.") for mask in masks]
    return tuple(masks), notes


def _stored_values(
    name: str,
    layers: tuple[BandLayer, ...],
    masks: tuple[MaskLayer, ...],
    grid: GroundGrid,
    bands: tuple[str, ...],
) -> tuple[StoredValues, list[Note]]:
    dtype = np.result_type(*(layer.dtype for layer in layers))
    tags = {
        channel: (scale, offset)
        for layer in layers
        for channel, scale, offset in zip(layer.channels, layer.scales, layer.offsets, strict=True)
    }
    tagged = zip(*(tags[channel] for channel in range(len(bands))), strict=True)
    scales, offsets, notes = checked_tags(name, bands, *tagged)

    def draw_sample() -> npt.NDArray:
        own = tuple(layer.as_sampled() for layer in layers)
        with _open_reader(own, masks, (len(bands), *grid.shape), dtype) as reader:
            return _sample(reader, grid)

    return StoredValues(dtype, scales, offsets, draw_sample), notes


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
