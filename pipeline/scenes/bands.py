"""Where a scene's bands are: which file and which band of it, for every band that the model needs."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from pipeline.addresses import file_name_of, folder_of, is_address, name_of, shown, with_lost_slash
from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info, warning
from pipeline.scenes.band_names import (
    BANDS,
    SCENE_CLASSIFICATION,
    band_in_file_name,
    band_of,
    has_only_a_number,
    is_running_number,
    user_band,
)
from pipeline.scenes.gdal import open_raster
from pipeline.scenes.hints import names_true_color
from pipeline.scenes.product import BandSource, MaskSource, Product, ProductFacts
from pipeline.scenes.registry import facts_beside, looked_for, open_product, recognise, root_of
from pipeline.scenes.sensors import SENTINEL_2, numbering_of, sensor_in
from pipeline.values import NATURAL_COLOR

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img", ".nc", ".dat", ".bil", ".png"})
COLOR_BANDS = dict(zip((ColorInterp.red, ColorInterp.green, ColorInterp.blue), NATURAL_COLOR, strict=True))

TELLING_TAGS = re.compile(
    r"LEVEL|PRODUCT|BASELINE|DESCRIPTION|TITLE|SENSOR|SATELLITE|SPACECRAFT|PLATFORM|MISSION", re.IGNORECASE
)
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
    if is_address(path):
        if whole := with_lost_slash(path):
            raise SceneError(f"{shown(path)} has lost a slash of an address: write {whole}, as plain text.")
        return _in_raster(path, card, stated)
    local = Path(path)
    if not local.exists():
        raise SceneError(f"There is no file or folder {path}.")
    local = root_of(local)
    product = open_product(local)
    if product is None and not local.is_dir():
        if local.suffix.lower() == ".zip":
            raise SceneError(
                f"{path} holds no product: looked for {looked_for()}. Unpack it and give what is in it."
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
    facts, tags = facts_beside(chosen[0]), _tags(str(chosen[0]), TELLING_TAGS)
    sensor = sensor_in([chosen[0].name, *tags]) or (
        SENTINEL_2 if facts else sensor_in([folder.resolve().name])
    )
    _check_file_numbers(folder, chosen, files, sensor)
    return Imagery(
        name=key or folder.resolve().name,
        bands=tuple(BandSource(str(file), 1) for file in chosen),
        facts=facts,
        mask=MaskSource(str(mask)) if mask else None,
        texts=(key, chosen[0].name, folder.resolve().name, *tags),
        date_tags=_tags(str(chosen[0]), DATE_TAGS),
        notes=(info("bands-found", None, f"Bands by file name: {listing}."), *_sensor_notes(sensor)),
    )


def _check_file_numbers(
    folder: Path, chosen: Sequence[Path], files: dict[str, Path], sensor: str | None
) -> None:
    """Raise SceneError if the numbers in file names may not be those of Sentinel-2's bands."""
    if sensor == SENTINEL_2 or not any(has_only_a_number(file.stem) for file in chosen):
        return
    remedy = (
        "rename those of red, green and blue so that they end in _red, _green and _blue, such as "
        f"{folder.resolve().name}_red{chosen[0].suffix}"
    )
    if sensor:
        raise SceneError(
            f"The files in {folder} are named like a {sensor} scene, which does not number its bands as "
            f"Sentinel-2 does{numbering_of(sensor)}: {remedy}."
        )
    counted = set(files) == set(BANDS[: len(files)]) and "B8A" not in files
    if counted and all(is_running_number(file.stem) for file in files.values()):
        raise SceneError(
            f"The files in {folder} are numbered B1 to B{len(files)} and nothing says that they are "
            f"Sentinel-2's bands: {remedy}."
        )


def _sensor_notes(sensor: str | None) -> list[Note]:
    if sensor in (None, SENTINEL_2):
        return []
    return [
        warning(
            "other-sensor",
            None,
            f"The scene looks like one of {sensor}, but the model was trained on Sentinel-2: check the map.",
        )
    ]


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
            f"{', '.join(card.bands)} that the model needs ({'it has ' + found if found else 'none at all'})"
            f": looked for files such as NAME_{card.bands[0]}.tif and for {looked_for()}."
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
        return _matching(dataset, wanted)


def _matching(dataset: DatasetReader, wanted: re.Pattern[str]) -> tuple[str, ...]:
    tags = dataset.tags() | dataset.tags(1)
    return tuple(f"{key}={value}" for key, value in tags.items() if wanted.search(key))


def _in_raster(path: str, card: ModelCard, stated: Sequence[tuple[str, int]]) -> Imagery:
    where = shown(path)
    with open_raster(path) as dataset:
        if dataset.count == 0:
            return _in_container(path, dataset.subdatasets, card, stated)
        _check_is_image(dataset, where)
        bands = [
            i
            for i, color in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if color != ColorInterp.alpha
        ]
        if len(bands) == 1 and len(card.bands) > 1:
            raise SceneError(_single_band_message(path, card))
        tags, date_tags = _matching(dataset, TELLING_TAGS), _matching(dataset, DATE_TAGS)
        local = Path(path)
        file, folder = local.name, local.absolute().parent.name
        if is_address(path):
            file, folder = file_name_of(path), folder_of(path).name
        facts = None if is_address(path) else facts_beside(local.absolute())
        described = [text for text in dataset.descriptions if text]
        sensor = sensor_in([*described, file, *tags]) or (SENTINEL_2 if facts else sensor_in([folder]))
        chosen, note = _choose_bands(dataset, where, bands, card, stated, sensor)
    return Imagery(
        name=name_of(path) if is_address(path) else local.stem,
        bands=tuple(BandSource(path, index) for index in chosen),
        facts=facts,
        true_color=names_true_color(Path(file).stem),
        texts=(file, folder, *tags),
        date_tags=date_tags,
        notes=(note, *_sensor_notes(sensor)),
    )


def _in_container(
    path: str, subdatasets: Sequence[str], card: ModelCard, stated: Sequence[tuple[str, int]]
) -> Imagery:
    """Return the bands that are a subdataset each, as netCDF has them; raises SceneError if they are not."""
    where, named = shown(path), defaultdict(list)
    for inner in subdatasets:
        if band := band_of(re.split(r"[:/]", inner)[-1]):
            named[band].append(inner)
    if stated or any(len(named[band]) != 1 for band in card.bands):
        raise SceneError(_container_message(where, subdatasets, card))
    sources = [named[band][0] for band in card.bands]
    for source in sources:
        with open_raster(source) as dataset:
            _check_is_image(dataset, shown(source))
            if dataset.count > 1:
                raise SceneError(_container_message(where, subdatasets, card))
    file = file_name_of(path)
    listing = ", ".join(re.split(r"[:/]", source)[-1] for source in sources)
    facts = None if is_address(path) else facts_beside(Path(path).absolute())
    return Imagery(
        name=name_of(path) if is_address(path) else Path(path).stem,
        bands=tuple(BandSource(source, 1) for source in sources),
        facts=facts,
        texts=(file, folder_of(path).name, *_tags(sources[0], TELLING_TAGS)),
        date_tags=_tags(sources[0], DATE_TAGS),
        notes=(info("bands-found", None, f"Bands by the names of the images inside: {listing}."),),
    )


def _container_message(path: str, subdatasets: Sequence[str], card: ModelCard) -> str:
    if not subdatasets:
        return f"{path} holds no image: check that it is the file that you mean."
    wide = []
    for inner in subdatasets[:20]:
        with open_raster(inner) as dataset:
            wide += [inner] if dataset.count >= len(card.bands) else []
    if wide:
        return f"{path} holds several images: give one of {', '.join(map(shown, wide[:4]))}."
    listing = ", ".join(re.split(r"[:/]", inner)[-1] for inner in subdatasets[:8])
    return (
        f"{path} holds {len(subdatasets)} images of one band each ({listing}), but not one for each of "
        f"{', '.join(card.bands)}: put those that are the model's bands into one file with gdalbuildvrt "
        "-separate, and give that."
    )


def _check_is_image(dataset: DatasetReader, path: str) -> None:
    """Raise SceneError for complex numbers and coloured maps."""
    if any(dtype.startswith("complex") for dtype in dataset.dtypes):
        raise SceneError(f"{path} holds complex numbers (radar?): the models read optical reflectance.")
    if ColorInterp.palette in dataset.colorinterp:
        raise SceneError(
            f"{path} is a map with a colour table, not an image: if its colours are a picture, expand them "
            "with gdal_translate -expand rgb."
        )


def _single_band_message(path: str, card: ModelCard) -> str:
    needed = ", ".join(card.bands)
    if is_address(path):
        return (
            f"{shown(path)} has a single band and the model needs {needed}: make one image of them with "
            "gdalbuildvrt -separate, and give that."
        )
    if band_in_file_name(Path(path).stem):
        product = (folder for folder in Path(path).parents if recognise(folder))
        folder = next(product, Path(path).parent)
        return (
            f"{path} is a single band and the model needs {needed}: give the folder of all of them, {folder}."
        )
    return f"{path} has a single band and the model needs {needed}."


def _choose_bands(
    dataset: DatasetReader,
    path: str,
    bands: list[int],
    card: ModelCard,
    stated: Sequence[tuple[str, int]],
    sensor: str | None,
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
    numbered = {
        band: by_name[band]
        for band in card.bands
        if band not in by_user and has_only_a_number(_description(dataset, by_name[band]))
    }
    _check_numbers(path, numbered, names, sensor, card)
    chosen = {band: by_user[band] if band in by_user else by_name[band] for band in card.bands}
    listing = ", ".join(f"{user_band(band)}={i}" for band, i in chosen.items())
    source = "as stated by `bands`" if set(card.bands) <= by_user.keys() else f"by {how}"
    return list(chosen.values()), info("bands-found", "bands", f"Bands {source}: {listing}.")


def _check_numbers(
    path: str, numbered: dict[str, int], names: list[str | None], sensor: str | None, card: ModelCard
) -> None:
    """Raise SceneError if bands that only a number names may not be Sentinel-2's of that number.

    A number that is only the band's position in the file says nothing, unless there are as many bands as
    Sentinel-2 has.
    """
    if not numbered or sensor == SENTINEL_2 or (sensor is None and "B8A" in names):
        return
    remedy = f"state the bands of the file with `bands` {_to_fill_in(card)}"
    if sensor:
        raise SceneError(
            f"{path} looks like a {sensor} scene, which does not number its bands as Sentinel-2 does"
            f"{numbering_of(sensor)}: {remedy}."
        )
    positions = all(int(band[1:]) == index for band, index in numbered.items())
    complete = len(names) in (12, 13) and max(numbered) <= "B08"
    if positions and not complete:
        listing = ", ".join(name or "unnamed" for name in names)
        raise SceneError(
            f"{path} only counts its bands ({listing}), which does not "
            f"say what they show, as nothing tells that they are Sentinel-2's: {remedy}."
        )


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
    described = [band_of(_description(dataset, i)) for i in bands]
    if any(described):
        return described, "description"
    by_color = [COLOR_BANDS.get(dataset.colorinterp[i - 1]) for i in bands]
    if set(COLOR_BANDS.values()) <= set(by_color):
        return by_color, "colour interpretation"
    if len(bands) == 3 and set(dataset.dtypes) == {"uint8"}:
        return list(NATURAL_COLOR), "position, as the three 8-bit bands are not named: red, green, blue"
    return [None] * len(bands), ""


def _description(dataset: DatasetReader, index: int) -> str:
    return dataset.descriptions[index - 1] or dataset.tags(index).get("NETCDF_VARNAME", "")


def _to_fill_in(card: ModelCard) -> str:
    """Return how `bands` is written; an example with numbers would be taken for advice."""
    return ",".join(f"{user_band(band)}=N" for band in card.bands) + " (N: the band's number in it)"


def _missing_message(path: str, names: list[str | None], missing: list[str], card: ModelCard) -> str:
    if any(names):
        found = f"{len(names)} bands ({', '.join(name or 'unnamed' for name in names)})"
    else:
        found = f"{len(names)} bands, none of which is named"
    if len(names) < len(card.bands):
        return (
            f"{path} has {found}, but the model {card.name} needs {len(card.bands)}: {', '.join(card.bands)}."
        )
    return (
        f"{path} has {found}, and the model needs {', '.join(missing)}: state the bands of the file with "
        f"`bands` {_to_fill_in(card)}."
    )
