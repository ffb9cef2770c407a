"""Where a scene's bands are: which file and which band of it, for every band that the model needs."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info
from pipeline.scenes.sentinel2 import (
    ProductMetadata,
    SafeProduct,
    band_in_file_name,
    band_of,
    metadata_beside,
    names_true_colour,
    open_safe_folder,
    open_safe_zip,
    user_band,
)
from pipeline.values import NATURAL_COLOR

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img", ".nc", ".dat", ".bil", ".png"})
COLOUR_BANDS = dict(zip((ColorInterp.red, ColorInterp.green, ColorInterp.blue), NATURAL_COLOR, strict=True))


@dataclass(frozen=True)
class BandSource:
    """One band: a file as GDAL names it and the 1-based index in it."""

    path: str
    index: int


@dataclass(frozen=True)
class Imagery:
    """The model's bands in channel order, and what the files around them tell about the pixels.

    `metadata` is the product's, `own_metadata` whether the files are that product's very own (so that
    nobody can have changed their numbers since). `texts` are names and tags to look for hints in.
    """

    name: str
    bands: tuple[BandSource, ...]
    scene_classification: str | None = None
    metadata: ProductMetadata | None = None
    own_metadata: bool = False
    true_colour: bool = False
    texts: tuple[str, ...] = ()
    notes: tuple[Note, ...] = field(default=())


def find_imagery(
    path: str, card: ModelCard, stated: Sequence[tuple[str, int]], safe_resolution: int
) -> Imagery:
    """Find the card's bands in a raster, a folder of band files, a SAFE folder or its zip.

    `stated` are (name, 1-based index) pairs of `bands`, which beat everything found. Raises SceneError
    if the path is nothing of the kind or lacks a band, UsageError if `stated` cannot be meant.
    """
    local = Path(path)
    if not local.exists():
        if re.match(r"/vsi|\w[\w+.-]+:", path):  # remote, in an archive, or a subdataset: GDAL's to open
            return _in_raster(path, card, stated)
        raise SceneError(f"There is no file or folder {path}.")
    if re.fullmatch(r"MTD_MSIL(1C|2A)\.xml", local.name):
        local = local.parent
    product = None
    if local.is_dir():
        product = open_safe_folder(local)
    elif local.suffix.lower() == ".zip":
        product = open_safe_zip(local)
    if product is None and not local.is_dir():
        return _in_raster(path, card, stated)
    if stated:
        raise UsageError(
            f"`bands` numbers the bands of one file, but {path} keeps each band in a file of its own, found "
            "by name: leave `bands` out."
        )
    return _in_folder(local, card) if product is None else _in_product(product, card, safe_resolution)


def _in_product(product: SafeProduct, card: ModelCard, resolution: int) -> Imagery:
    if "B10" in card.bands and product.metadata.level == "l2a":
        raise SceneError(
            f"The model {card.name} needs band B10, which Level-2A products such as {product.name} lack."
        )
    return Imagery(
        name=product.name,
        bands=tuple(BandSource(product.band_file(band, resolution), 1) for band in card.bands),
        scene_classification=product.scene_classification(),
        metadata=product.metadata,
        own_metadata=True,
    )


def _in_folder(folder: Path, card: ModelCard) -> Imagery:
    sets = _band_file_sets(folder)
    whole = {key: files for key, files in sets.items() if set(card.bands) <= files.keys()}
    if len(whole) > 1:
        raise SceneError(
            f"The folder {folder} holds the bands of {len(whole)} scenes "
            f"({', '.join(sorted(key or 'unnamed' for key in whole))}): keep each in a folder of its own."
        )
    if not whole:
        found = "; ".join(
            f"{key or 'unnamed'}: {', '.join(sorted(files))}" for key, files in sorted(sets.items())
        )
        raise SceneError(
            f"The folder {folder} has no set of single-band files named after the bands "
            f"{', '.join(card.bands)} that the model needs ({'it has ' + found if found else 'none at all'})."
        )
    ((key, files),) = whole.items()
    scl = files.get("SCL")
    return Imagery(
        name=key or folder.resolve().name,
        bands=tuple(BandSource(str(files[band]), 1) for band in card.bands),
        scene_classification=str(scl) if scl else None,
        metadata=metadata_beside(files[card.bands[0]]),
        texts=(key, files[card.bands[0]].name, folder.resolve().name, *_tags(str(files[card.bands[0]]))),
        notes=(
            info(
                "bands-found",
                None,
                f"Bands by file name: {', '.join(files[band].name for band in card.bands)}.",
            ),
        ),
    )


def _band_file_sets(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the folder's band files, grouped by what their names have in common: {set: {band: file}}."""
    sets: dict[str, dict[str, Path]] = defaultdict(dict)
    # Where a folder has a band at 10, 20 and 60 m, the finest sorts first and stays.
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in RASTER_SUFFIXES and (named := band_in_file_name(path.stem)):
            band, key = named
            known = sets[key].setdefault(band, path)
            if known is not path and not re.search(r"_(20|60)m$", path.stem):
                raise SceneError(f"The folder {folder} has band {band} twice: {known.name} and {path.name}.")
    return sets


def _tags(path: str) -> list[str]:
    """Return, as "KEY=value", the tags of a file that may name the product that it was made from."""
    with open_raster(path) as dataset:
        tags = dataset.tags() | dataset.tags(1)
    telling = re.compile(r"LEVEL|PRODUCT|BASELINE|DESCRIPTION|TITLE", re.IGNORECASE)
    return [f"{key}={value}" for key, value in tags.items() if telling.search(key)]


def _in_raster(path: str, card: ModelCard, stated: Sequence[tuple[str, int]]) -> Imagery:
    with open_raster(path) as dataset:
        _refuse_what_is_no_image(dataset, path)
        bands = [
            i
            for i, colour in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if colour != ColorInterp.alpha
        ]
        if len(bands) == 1 and len(card.bands) > 1:
            raise SceneError(_one_band_message(path, card))
        chosen, notes = _choose_bands(dataset, path, bands, card, stated)
    local = Path(without_query(path))
    texts = [local.name, local.absolute().parent.name, *_tags(path)]
    return Imagery(
        name=local.stem if local.exists() else re.sub(r"[^\w.-]+", "_", local.stem),
        bands=tuple(BandSource(path, index) for index in chosen),
        metadata=metadata_beside(local.absolute()) if local.exists() else None,
        own_metadata=False,
        true_colour=names_true_colour(local.stem),
        texts=tuple(texts),
        notes=tuple(notes),
    )


def without_query(path: str) -> str:
    """Return a path or address without what follows `?` in an address: a signature, not a name."""
    return re.sub(r"(://[^?]*)\?.*", r"\1", path, flags=re.DOTALL)


def open_raster(path: str) -> DatasetReader:
    """Open a raster file; raises SceneError, with GDAL's own reason, if it is not one."""
    try:
        return rasterio.open(path)
    except RasterioError as error:
        reason = str(error).replace(path, "").strip(" :'.") or "no reason given"
        raise SceneError(f"{path} cannot be opened as a raster image ({reason}).") from error


def _refuse_what_is_no_image(dataset: DatasetReader, path: str) -> None:
    if dataset.count == 0:
        inner = ", ".join(dataset.subdatasets[:4])
        raise SceneError(
            f"{path} holds no image itself{f', but several inside: give one of {inner}' if inner else ''}."
        )
    if any(np.issubdtype(np.dtype(dtype), np.complexfloating) for dtype in _numpy_dtypes(dataset)):
        raise SceneError(f"{path} holds complex numbers (radar?): the models read optical reflectance.")
    if ColorInterp.palette in dataset.colorinterp:
        raise SceneError(
            f"{path} is a map with a colour table, not an image: if its colours are a picture, expand them "
            "with gdal_translate -expand rgb."
        )


def _numpy_dtypes(dataset: DatasetReader) -> list[str]:
    return ["complex64" if dtype.startswith("complex") else dtype for dtype in dataset.dtypes]


def _one_band_message(path: str, card: ModelCard) -> str:
    needed = ", ".join(card.bands)
    if band_in_file_name(Path(path).stem):
        product = [folder for folder in Path(path).parents if folder.suffix == ".SAFE"]
        folder = product[0] if product else Path(path).parent
        return (
            f"{path} is a single band and the model needs {needed}: give the folder of all of them, {folder}."
        )
    return f"{path} has a single band and the model needs {needed}."


def _choose_bands(
    dataset: DatasetReader, path: str, bands: list[int], card: ModelCard, stated: Sequence[tuple[str, int]]
) -> tuple[list[int], list[Note]]:
    """Return the file's band for each of the card's, and notes that say how it was known."""
    by_user = _stated_bands(stated, dataset.count, path)
    described = [
        band_of(dataset.descriptions[i - 1] or dataset.tags(i).get("NETCDF_VARNAME", "")) for i in bands
    ]
    by_colour = [COLOUR_BANDS.get(dataset.colorinterp[i - 1]) for i in bands]
    if any(described):
        names, how = described, "description"
    elif set(COLOUR_BANDS.values()) <= set(by_colour):
        names, how = by_colour, "colour interpretation"
    elif len(bands) == 3 and set(dataset.dtypes) == {"uint8"}:
        names, how = (
            list(NATURAL_COLOR),
            "position, as the three 8-bit bands are not named: red, green, blue",
        )
    else:
        names, how = [None] * len(bands), ""
    counts = Counter(names)
    missing = [band for band in card.bands if band not in by_user and not counts[band]]
    if missing:
        raise SceneError(_missing_message(path, names, missing, card))
    for band in card.bands:
        if counts[band] > 1 and band not in by_user:
            twice = " and ".join(str(i) for i, name in zip(bands, names, strict=True) if name == band)
            raise SceneError(
                f"{path} names band {band} more than once (bands {twice}): say which with `bands` "
                f"{user_band(band)}=N."
            )
    by_name = {name: i for i, name in zip(bands, names, strict=True) if name}
    chosen = {band: by_user.get(band, by_name.get(band, 0)) for band in card.bands}
    listing = ", ".join(f"{user_band(band)}={i}" for band, i in chosen.items())
    source = "as stated by `bands`" if set(card.bands) <= by_user.keys() else f"by {how}"
    return list(chosen.values()), [info("bands-found", "bands", f"Bands {source}: {listing}.")]


def _stated_bands(stated: Sequence[tuple[str, int]], count: int, path: str) -> dict[str, int]:
    bands: dict[str, int] = {}
    for name, index in stated:
        band = band_of(name)
        if band is None:
            raise UsageError(
                f"`bands` names '{name}', which is no Sentinel-2 band: use red, green, blue, nir or B01 to "
                "B12."
            )
        if band in bands:
            raise UsageError(f"`bands` names {user_band(band)} twice.")
        if not 1 <= index <= count:
            raise UsageError(f"`bands` says {name}={index}, but {path} has the bands 1 to {count}.")
        bands[band] = index
    return bands


def _missing_message(path: str, names: list[str | None], missing: list[str], card: ModelCard) -> str:
    example = ",".join(f"{user_band(band)}={i}" for i, band in enumerate(card.bands, start=1))
    if not any(names):
        found = f"{len(names)} bands, none of which is named"
    else:
        found = f"{len(names)} bands ({', '.join(name or 'unnamed' for name in names)})"
    if len(names) < len(card.bands):
        return (
            f"{path} has {found}, but the model {card.name} needs {len(card.bands)}: {', '.join(card.bands)}."
        )
    return (
        f"{path} has {found}, and the model needs {', '.join(missing)}: say which band is which with "
        f"`bands`, such as `bands` {example}."
    )
