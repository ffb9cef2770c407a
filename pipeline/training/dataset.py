"""Labelled tiles: a folder of class folders, held in memory as one array."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.scenes.band_names import band_of
from pipeline.values import DIGITAL_NUMBERS, NATURAL_COLOR, Scaling

log = logging.getLogger(__name__)
# Pillow is asked whether a TIFF is a picture; that it is none is no error.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
# A tile without a place on the ground is as good to train on.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")

PICTURES = frozenset({".jpg", ".jpeg", ".png"})
TIFFS = frozenset({".tif", ".tiff"})

# The order in EuroSAT's multispectral files, which name no band: B8A comes last.
EUROSAT_BANDS = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12"),
    "B8A",
)
DIGITAL_NUMBER_LIMIT = 32_767  # of int16; reflectance 3.3, which only glint and broken pixels exceed
GDAL_METADATA = 42112  # the TIFF tag in which GDAL describes bands, among other things
WRAPPERS = 7  # folders around the class folders: EuroSAT's first archive had six of them
SKIPPING = "Replace it, or leave out all such tiles with `skip_unreadable`."
NAMED = 10  # unreadable tiles that a warning names, before they are only counted


class UnreadableTileError(TrainingError):
    """A tile's file is there but is no image, or a broken one."""


@dataclass(frozen=True)
class TileSet:
    """Tiles in memory.

    - `images`: (N, B, T, T); uint8 for pictures and other 8-bit tiles, int16 for multispectral ones:
      digital numbers (reflectance times 10,000), clipped to 0-32767.
    - `labels`: (N,) int64, indexing `classes`.
    - `names`: `Class/file` of each tile.
    - `bands`: Sentinel-2 names in channel order; None where the files do not say.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    bands: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.labels)


def value_step(images: torch.Tensor, scaling: Scaling) -> tuple[float, float]:
    """Return (gain, bias) that bring stored pixels to training values, which are then clipped.

    Pictures hold training values; tiles of 16 bits hold digital numbers of 1/10,000 reflectance.
    """
    if images.dtype == torch.uint8:
        return 1.0, 0.0
    return scaling.stretch / DIGITAL_NUMBERS, scaling.to_value(0.0)


def tile_folder(folder: Path) -> Path:
    """Return the folder of class folders: `folder`, or the only one inside, since archives wrap theirs.

    Raises TrainingError, saying what is there, if there is none or more than one.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder of class folders.")
    found = list(_tile_folders(folder, WRAPPERS))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise TrainingError(
            f"{folder} holds {len(found)} folders of class folders ({names}): name one of them with `data`."
        )
    if _holds_tiles(folder):
        raise TrainingError(f"{folder} holds images but no class folders: name the folder that it lies in.")
    raise TrainingError(f"{folder} holds no class folders with images.")


def find_tiles(folder: Path) -> list[str]:
    """Return the tiles below the folder of class folders in `folder` as sorted `Class/file` names.

    Raises TrainingError if there is no class folder or one of them is empty.
    """
    names: list[str] = []
    for class_folder in _subfolders(tile_folder(folder)):
        tiles = sorted(path.name for path in class_folder.iterdir() if _is_tile(path))
        if not tiles:
            inside = any(_tile_folders(class_folder, WRAPPERS))
            hint = ": if the class folders are inside it, name it with `data`" if inside else ""
            raise TrainingError(f"The class folder {class_folder} holds no image{hint}.")
        names += [f"{class_folder.name}/{tile}" for tile in tiles]
    return names


def load_tiles(
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    bands: Sequence[str] | None = None,
    skip_unreadable: bool = False,
) -> TileSet:
    """Read the named tiles (default: all) into memory, in the order given.

    `bands` are the Sentinel-2 names wanted, in the order wanted; by default what the files hold. Pictures
    hold B04, B03, B02. In GeoTIFFs bands go by their descriptions; 13 bands without are taken in
    EuroSAT's order (B8A last), another number only if as many are wanted, as they come. An 8-bit colour
    TIFF is a picture, unless its bands are described or others than its colours wanted. With
    `skip_unreadable`, broken files are left out with a warning.

    Raises TrainingError naming the first file that cannot be read (UnreadableTileError), lacks a band, has
    other numbers than digital ones or another size than the rest; if pictures and GeoTIFFs are mixed, a
    class has no readable tile, rasterio is needed and absent, or memory does not suffice.
    """
    folder = tile_folder(folder)
    chosen = tuple(find_tiles(folder) if names is None else names)
    _check_one_kind(folder, chosen)
    wanted = None if bands is None else tuple(bands)
    first, layout = _first_readable(folder, chosen, wanted, skip_unreadable)
    images = _allocate(len(chosen), first.pixels)

    def load(i: int) -> UnreadableTileError | None:
        try:
            pixels = layout.read(folder / chosen[i])
        except UnreadableTileError as error:
            if skip_unreadable:
                return error
            raise TrainingError(f"{error} {SKIPPING}") from error
        first.check_like(folder / chosen[i], pixels)
        images[i] = pixels
        return None

    with ThreadPoolExecutor() as pool:
        reading = pool.map(load, range(len(chosen)))
        errors = list(tqdm(reading, "reading tiles", len(chosen), disable=None, leave=False))
    classes = tuple(sorted({name.split("/")[0] for name in chosen}))
    if any(errors):
        images, chosen = _leave_out(images, chosen, errors)
        if lost := sorted(set(classes) - {name.split("/")[0] for name in chosen}):
            raise TrainingError(f"No tile of the class '{lost[0]}' can be read.")
    labels = torch.tensor([classes.index(name.split("/")[0]) for name in chosen])
    return TileSet(torch.from_numpy(images), labels, classes, chosen, layout.bands)


def holds_class_folders(folder: Path) -> bool:
    """Tell whether two classes of tiles or more lie in folders right below `folder`."""
    return sum(map(_holds_tiles, _subfolders(folder))) > 1


def _tile_folders(folder: Path, depth: int) -> Iterator[Path]:
    if any(map(_holds_tiles, _subfolders(folder))):
        yield folder
    elif depth:
        for subfolder in _subfolders(folder):
            yield from _tile_folders(subfolder, depth - 1)


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders that are the user's: neither hidden nor left by macOS's archiver."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX"
    )


def _holds_tiles(folder: Path) -> bool:
    return any(map(_is_tile, folder.iterdir()))


def _is_tile(path: Path) -> bool:
    return path.suffix.lower() in PICTURES | TIFFS and not path.name.startswith(".")


@dataclass(frozen=True)
class _Layout:
    """How to read this set's tiles, and the bands in channel order if that is known."""

    read: Callable[[Path], np.ndarray]  # a (B, H, W) array, uint8 or int16
    bands: tuple[str, ...] | None


@dataclass(frozen=True)
class _FirstTile:
    """What all tiles must be like: `pixels` is (B, T, T)."""

    name: str
    pixels: np.ndarray

    def check_like(self, path: Path, pixels: np.ndarray) -> None:
        """Raise TrainingError for a tile of another size or number of bands."""
        ours, theirs = self.pixels.shape, pixels.shape
        if theirs[1:] != ours[1:]:
            raise TrainingError(
                f"{path} is {_size(pixels)} pixels; the first tile, {self.name}, is {_size(self.pixels)}, "
                "and all must be."
            )
        if theirs[0] != ours[0]:
            raise TrainingError(
                f"{path} has {theirs[0]} bands; the first tile, {self.name}, has {ours[0]}, and all must."
            )
        if pixels.dtype != self.pixels.dtype:
            raise TrainingError(
                f"Only one of {path} and the first tile, {self.name}, holds 8-bit values: either all tiles "
                "must, or none."
            )


def _check_one_kind(folder: Path, names: Sequence[str]) -> None:
    tiff, picture = (
        next((name for name in names if (Path(name).suffix.lower() in TIFFS) is kind), None)
        for kind in (True, False)
    )
    if tiff and picture:
        raise TrainingError(f"{folder} mixes TIFFs ({tiff}) and other pictures ({picture}): keep one kind.")


def _first_readable(
    folder: Path, names: Sequence[str], wanted: tuple[str, ...] | None, skip_unreadable: bool
) -> tuple[_FirstTile, _Layout]:
    """Return the first tile that can be read, and how to read those after it."""
    for name in names:
        path = folder / name
        try:
            layout = (
                _picture_layout(path, wanted) if _is_picture(path, wanted) else _raster_layout(path, wanted)
            )
            pixels = layout.read(path)
        except UnreadableTileError as error:
            if not skip_unreadable:
                raise TrainingError(f"{error} {SKIPPING}") from error
        else:
            if pixels.shape[1] != pixels.shape[2]:
                raise TrainingError(f"{path} is {_size(pixels)} pixels; tiles must be square.")
            return _FirstTile(name, pixels), layout
    raise TrainingError(f"None of the {len(names)} tiles in {folder} can be read.")


def _allocate(count: int, tile: np.ndarray) -> np.ndarray:
    try:
        return np.empty((count, *tile.shape), tile.dtype)
    except MemoryError as error:
        raise TrainingError(
            f"{count} tiles of {len(tile)} bands and {_size(tile)} pixels take "
            f"{count * tile.nbytes / 1e9:.1f} GB, more memory than is free: train on fewer tiles or bands."
        ) from error


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"


def _leave_out(
    images: np.ndarray, names: tuple[str, ...], errors: Sequence[UnreadableTileError | None]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return images and names without the unreadable tiles, of which it warns."""
    unreadable = [error for error in errors if error is not None]
    for error in unreadable[:NAMED]:
        log.warning("%s", error)
    log.warning("%d of %d tiles cannot be read and are left out.", len(unreadable), len(names))
    kept = [i for i, error in enumerate(errors) if error is None]
    for row, i in enumerate(kept):  # in place: a copy would double what is already large
        images[row] = images[i]
    return images[: len(kept)], tuple(names[i] for i in kept)


# Pictures


def _is_picture(path: Path, wanted: tuple[str, ...] | None) -> bool:
    if path.suffix.lower() in PICTURES:
        return True
    if wanted is not None and not set(wanted) <= set(NATURAL_COLOR):
        return False
    try:
        with Image.open(path) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            is_8_bit = set(tags.get(BITSPERSAMPLE, ())) == {8}
            is_described = 'role="description"' in tags.get(GDAL_METADATA, "")
            return image.mode in ("RGB", "RGBA", "P", "YCbCr") and is_8_bit and not is_described
    except (UnidentifiedImageError, OSError):
        return False


def _picture_layout(path: Path, wanted: tuple[str, ...] | None) -> _Layout:
    if wanted is None:
        wanted = NATURAL_COLOR
    if not set(wanted) <= set(NATURAL_COLOR):
        raise TrainingError(
            f"{path} is a picture, with red, green and blue ({', '.join(NATURAL_COLOR)}) alone, and "
            f"{', '.join(wanted)} are wanted: give multispectral GeoTIFF tiles, or a recipe for pictures."
        )
    return _Layout(partial(_read_picture, channels=[NATURAL_COLOR.index(band) for band in wanted]), None)


def _read_picture(path: Path, channels: list[int]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            # Pillow would keep the upper 8 of 16 bits a colour, and says so in the raw mode alone.
            if image.mode.startswith(("I", "F")) or (image.tile and ";16" in str(image.tile[0][3])):
                raise TrainingError(
                    f"{path} holds more than 8 bits a pixel: pictures must have 8 bits a colour; "
                    "digital numbers belong into GeoTIFFs."
                )
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)[channels]
    except FileNotFoundError as error:
        raise TrainingError(f"The tile {path} does not exist.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's word for a broken PNG
        raise UnreadableTileError(f"The tile {path} cannot be read as an image: {error}.") from error


# Multispectral GeoTIFFs


def _raster_layout(path: Path, wanted: tuple[str, ...] | None) -> _Layout:
    with open_tile(path) as dataset:
        names = name_bands(dataset.descriptions)
    if names == EUROSAT_BANDS and not any(dataset.descriptions):
        log.info("The tiles' 13 bands are not named: taken in EuroSAT's order, B01 to B12 and B8A last.")
    held = names if names and all(names) else None
    return _Layout(partial(_read_raster, wanted=wanted), wanted or held)  # type: ignore[arg-type]


def _read_raster(path: Path, wanted: tuple[str, ...] | None) -> np.ndarray:
    with open_tile(path) as dataset:
        if not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
            raise TrainingError(
                f"{path} holds {dataset.dtypes[0]} numbers: multispectral tiles must hold digital numbers, "
                "reflectance times 10,000 as whole numbers (uint16)."
            )
        pixels = dataset.read(_positions(path, dataset.descriptions, wanted))
    if pixels.dtype == np.uint8:
        return pixels
    return np.clip(pixels, 0, DIGITAL_NUMBER_LIMIT).astype(np.int16)


def name_bands(descriptions: Sequence[str | None]) -> tuple[str | None, ...] | None:
    """Return the band that each of a tile's bands is, by description, or None if none is described.

    13 bands of which none is described are EuroSAT's.
    """
    names = tuple(band_of(text or "") for text in descriptions)
    if any(names):
        return names
    return EUROSAT_BANDS if len(names) == len(EUROSAT_BANDS) else None


def _positions(path: Path, descriptions: Sequence[str | None], wanted: tuple[str, ...] | None) -> list[int]:
    """Return the 1-based index in the file of each band wanted."""
    count = len(descriptions)
    if wanted is None:
        return list(range(1, count + 1))
    names = name_bands(descriptions)
    if names is None:
        if count == len(wanted):
            return list(range(1, count + 1))
        raise TrainingError(
            f"{path} has {count} bands, none of which is named, and {len(wanted)} are wanted "
            f"({', '.join(wanted)}): describe them by name, B02 say, in the files."
        )
    held = ", ".join(name or "unnamed" for name in names)
    for band in wanted:
        if names.count(band) != 1:
            how = "lacks" if band not in names else "has more than one"
            raise TrainingError(f"{path} {how} band {band}: its {count} bands are {held}.")
    return [names.index(band) + 1 for band in wanted]


@contextmanager
def open_tile(path: Path) -> Iterator[Any]:
    """Open a GeoTIFF tile with rasterio.

    Raises TrainingError if rasterio or the file is not there, UnreadableTileError if opening the file, or
    what is then read from it, fails.
    """
    rasterio = import_rasterio(path)
    if not path.is_file():
        raise TrainingError(f"The tile {path} does not exist.")
    # Without the option GDAL lists the class folder's thousands of files for every one that it opens.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        try:
            with rasterio.open(path) as dataset:
                yield dataset
        except rasterio.errors.RasterioError as error:
            raise UnreadableTileError(f"The tile {path} cannot be read as an image: {error}.") from error


def import_rasterio(path: Path) -> Any:
    """Return the module; raises TrainingError, naming the multispectral tiles at `path`, if it is absent."""
    try:
        import rasterio
    except ImportError as error:  # GPU servers that train on pictures need not have it
        raise TrainingError(
            f"{path} is multispectral, and rasterio, which reads such tiles, is not installed here: "
            "'pip install rasterio', or train on pictures."
        ) from error
    return rasterio
