"""Where a scene's bands are: which file and which band of it, for every band that the model needs."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info
from pipeline.scenes.band_names import SCENE_CLASSIFICATION, band_in_file_name, band_of, user_band
from pipeline.scenes.gdal import open_raster, without_query
from pipeline.scenes.hints import names_true_color
from pipeline.scenes.product import BandSource, MaskSource, Product, ProductFacts
from pipeline.scenes.registry import facts_beside, format_names, open_product, recognise, root_of
from pipeline.values import NATURAL_COLOR

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img", ".nc", ".dat", ".bil", ".png"})
COLOR_BANDS = dict(zip((ColorInterp.red, ColorInterp.green, ColorInterp.blue), NATURAL_COLOR, strict=True))

TELLING_TAGS = re.compile(r"LEVEL|PRODUCT|BASELINE|DESCRIPTION|TITLE", re.IGNORECASE)
"""Names of tags that may name the product that a file was made from."""

DATE_TAGS = re.compile(r"ACQUI|SENSING|START_?TIME|^(TIFFTAG_)?(DATE|TIME|DATE_?TIME)$", re.IGNORECASE)
"""Names of tags that may tell when a scene was taken, and not when it was processed."""


@dataclass(frozen=True)
class Imagery:
    """The model's bands in channel order, and what is known about their pixels without reading them."""

    name: str
    """What the scene's map will be named after."""

    bands: tuple[BandSource, ...]
    """Where each of the model's bands is."""

    facts: ProductFacts | None = None
    """What the metadata of the product say that the files belong to; None if there are none."""

    is_product: bool = False
    """Whether the files are that product's own, so that nobody can have changed their numbers since."""

    nodata: float | None = None
    """The stored value of missing pixels where the files declare none; None if it is not known."""

    mask: MaskSource | None = None
    """A mask that comes with the bands."""

    true_color: bool = False
    """Whether the file is named like ESA's true-colour image."""

    texts: tuple[str, ...] = ()
    """File names and tags that may tell what the pixels are."""

    date_tags: tuple[str, ...] = ()
    """Tags that may tell when the scene was taken."""

    notes: tuple[Note, ...] = ()
    """How the bands were found."""


def find_imagery(
    path: str, card: ModelCard, stated: Sequence[tuple[str, int]], safe_resolution: int
) -> Imagery:
    """Find the card's bands in a raster, a folder of band files, or a product.

    `stated` are (name, 1-based index) pairs of `bands`, which beat everything found. Raises SceneError
    if the path is nothing of the kind or lacks a band, UsageError if `stated` makes no sense.
    """
    local = Path(path)
    if not local.exists():
        if re.match(r"/vsi|\w[\w+.-]+:", path):  # remote, in an archive, or a subdataset: GDAL's to open
            return _in_raster(path, card, stated)
        raise SceneError(f"There is no file or folder {path}.")
    local = root_of(local)
    product = open_product(local)
    if product is None and not local.is_dir():
        if local.suffix.lower() == ".zip":
            raise SceneError(
                f"{path} holds no product of a known format ({format_names()}): unpack it first."
            )
        return _in_raster(path, card, stated)
    if stated:
        raise UsageError(
            f"`bands` numbers the bands of one file, but {path} has each band in a file of its own, found by "
            "name: leave `bands` out."
        )
    return _in_folder(local, card) if product is None else _in_product(product, card, safe_resolution)


def _in_product(product: Product, card: ModelCard, resolution: int) -> Imagery:
    return Imagery(
        name=product.name,
        bands=tuple(product.band_source(band, resolution) for band in card.bands),
        facts=product.facts,
        is_product=True,
        nodata=product.nodata,
        mask=product.mask,
    )


def _in_folder(folder: Path, card: ModelCard) -> Imagery:
    key, files = _complete_set(folder, card)
    chosen = [files[band] for band in card.bands]
    mask = files.get(SCENE_CLASSIFICATION)
    listing = ", ".join(file.name for file in chosen)
    return Imagery(
        name=key or folder.resolve().name,
        bands=tuple(BandSource(str(file), 1) for file in chosen),
        facts=facts_beside(chosen[0]),
        mask=MaskSource(str(mask)) if mask else None,
        texts=(key, chosen[0].name, folder.resolve().name, *_tags(str(chosen[0]), TELLING_TAGS)),
        date_tags=_tags(str(chosen[0]), DATE_TAGS),
        notes=(info("bands-found", None, f"Bands by file name: {listing}."),),
    )


def _complete_set(folder: Path, card: ModelCard) -> tuple[str, dict[str, Path]]:
    """Return the name and the files of the one set of band files that has all of the card's bands."""
    sets = _band_file_sets(folder)
    complete = {key: files for key, files in sets.items() if set(card.bands) <= files.keys()}
    if len(complete) > 1:
        raise SceneError(
            f"The folder {folder} holds the bands of {len(complete)} scenes "
            f"({', '.join(sorted(key or 'unnamed' for key in complete))}): keep each in a folder of its own."
        )
    if not complete:
        found = "; ".join(
            f"{key or 'unnamed'}: {', '.join(sorted(files))}" for key, files in sorted(sets.items())
        )
        raise SceneError(
            f"The folder {folder} has no set of single-band files named after the bands "
            f"{', '.join(card.bands)} that the model needs ({'it has ' + found if found else 'none at all'})."
        )
    return next(iter(complete.items()))


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


def _tags(path: str, wanted: re.Pattern[str]) -> tuple[str, ...]:
    """Return the tags of a file whose name matches, as "KEY=value"."""
    with open_raster(path) as dataset:
        tags = dataset.tags() | dataset.tags(1)
    return tuple(f"{key}={value}" for key, value in tags.items() if wanted.search(key))


def _in_raster(path: str, card: ModelCard, stated: Sequence[tuple[str, int]]) -> Imagery:
    with open_raster(path) as dataset:
        _check_is_image(dataset, path)
        bands = [
            i
            for i, color in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if color != ColorInterp.alpha
        ]
        if len(bands) == 1 and len(card.bands) > 1:
            raise SceneError(_single_band_message(path, card))
        chosen, note = _choose_bands(dataset, path, bands, card, stated)
    local = Path(without_query(path))
    return Imagery(
        name=local.stem if local.exists() else re.sub(r"[^\w.-]+", "_", local.stem),
        bands=tuple(BandSource(path, index) for index in chosen),
        facts=facts_beside(local.absolute()) if local.exists() else None,
        true_color=names_true_color(local.stem),
        texts=(local.name, local.absolute().parent.name, *_tags(path, TELLING_TAGS)),
        date_tags=_tags(path, DATE_TAGS),
        notes=(note,),
    )


def _check_is_image(dataset: DatasetReader, path: str) -> None:
    """Raise SceneError for containers, complex numbers and coloured maps."""
    if dataset.count == 0:
        inner = ", ".join(dataset.subdatasets[:4])
        raise SceneError(
            f"{path} holds no image itself{f', but several inside: give one of {inner}' if inner else ''}."
        )
    if any(dtype.startswith("complex") for dtype in dataset.dtypes):
        raise SceneError(f"{path} holds complex numbers (radar?): the models read optical reflectance.")
    if ColorInterp.palette in dataset.colorinterp:
        raise SceneError(
            f"{path} is a map with a colour table, not an image: if its colours are a picture, expand them "
            "with gdal_translate -expand rgb."
        )


def _single_band_message(path: str, card: ModelCard) -> str:
    needed = ", ".join(card.bands)
    if band_in_file_name(Path(path).stem):
        product = (folder for folder in Path(path).parents if recognise(folder))
        folder = next(product, Path(path).parent)
        return (
            f"{path} is a single band and the model needs {needed}: give the folder of all of them, {folder}."
        )
    return f"{path} has a single band and the model needs {needed}."


def _choose_bands(
    dataset: DatasetReader, path: str, bands: list[int], card: ModelCard, stated: Sequence[tuple[str, int]]
) -> tuple[list[int], Note]:
    """Return the file's band for each of the card's, and a note on how they were found."""
    by_user = _stated_bands(stated, dataset.count, path)
    names, how = _band_names(dataset, bands)
    counts = Counter(names)
    missing = [band for band in card.bands if band not in by_user and not counts[band]]
    if missing:
        raise SceneError(_missing_message(path, names, missing, card))
    for band in card.bands:
        if counts[band] > 1 and band not in by_user:
            repeated = " and ".join(str(i) for i, name in zip(bands, names, strict=True) if name == band)
            raise SceneError(
                f"{path} names band {band} more than once (bands {repeated}): say which with `bands` "
                f"{user_band(band)}=N."
            )
    by_name = {name: i for i, name in zip(bands, names, strict=True) if name}
    chosen = {band: by_user[band] if band in by_user else by_name[band] for band in card.bands}
    listing = ", ".join(f"{user_band(band)}={i}" for band, i in chosen.items())
    source = "as stated by `bands`" if set(card.bands) <= by_user.keys() else f"by {how}"
    return list(chosen.values()), info("bands-found", "bands", f"Bands {source}: {listing}.")


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


def _band_names(dataset: DatasetReader, bands: list[int]) -> tuple[list[str | None], str]:
    """Return the name of each of the file's bands, None where it has none, and what names them."""
    described = [
        band_of(dataset.descriptions[i - 1] or dataset.tags(i).get("NETCDF_VARNAME", "")) for i in bands
    ]
    if any(described):
        return described, "description"
    by_color = [COLOR_BANDS.get(dataset.colorinterp[i - 1]) for i in bands]
    if set(COLOR_BANDS.values()) <= set(by_color):
        return by_color, "colour interpretation"
    if len(bands) == 3 and set(dataset.dtypes) == {"uint8"}:
        return list(NATURAL_COLOR), "position, as the three 8-bit bands are not named: red, green, blue"
    return [None] * len(bands), ""


def _missing_message(path: str, names: list[str | None], missing: list[str], card: ModelCard) -> str:
    example = ",".join(f"{user_band(band)}={i}" for i, band in enumerate(card.bands, start=1))
    if any(names):
        found = f"{len(names)} bands ({', '.join(name or 'unnamed' for name in names)})"
    else:
        found = f"{len(names)} bands, none of which is named"
    if len(names) < len(card.bands):
        return (
            f"{path} has {found}, but the model {card.name} needs {len(card.bands)}: {', '.join(card.bands)}."
        )
    return (
        f"{path} has {found}, and the model needs {', '.join(missing)}: say which band is which with "
        f"`bands`, such as `bands` {example}."
    )
