"""Sentinel-2's product format, SAFE: a folder or its zip with metadata, images and a scene classification."""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Self, TypeVar
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from pipeline.errors import SceneError
from pipeline.scenes.band_names import (
    BANDS,
    SCENE_CLASSIFICATION,
    band_in_file_name,
    names_scene_classification,
)
from pipeline.scenes.hints import level_in
from pipeline.scenes.product import BandSource, MaskDecoder, MaskSource, Product, ProductFacts

T = TypeVar("T")

SUFFIX = ".SAFE"
NODATA = 0.0  # SPECIAL_VALUE NODATA in the metadata of every product

# Metres; the finest that a band is delivered in.
NATIVE_RESOLUTION = dict.fromkeys(BANDS, 20) | dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
NATIVE_RESOLUTION |= dict.fromkeys(("B01", "B09", "B10"), 60)

# Classes of the L2A scene classification that a map should not be made from: no data, saturated or
# defective, cloud shadow, cloud of medium and high probability, thin cirrus.
SCL_INVALID = (0, 1, 3, 8, 9, 10)

# A product's metadata have some 50 to 600 kB; an archive can hold gigabytes of nothing in a few.
METADATA_BYTES = 16 * 2**20

# The second form is that of products made before December 2016.
_METADATA_FILE = re.compile(r"(?:MTD_MSIL|S2[A-D]_(?:OPER|USER)_MTD_SAFL)(1C|2A)(?:_\w+)?\.xml")
_METADATA_MEMBER = re.compile(rf"([^/]+/)?{_METADATA_FILE.pattern}")
_GRANULE_METADATA = re.compile(r"MTD_TL\.xml|S2[A-D]_(?:OPER|USER)_MTD_L(?:1C|2A)_TL_\w+\.xml")
_IMAGE_FILE = re.compile(r"_(B\d\d|B8A|TCI|SCL)(?:_(10|20|60)m)?\.jp2$", re.IGNORECASE)


@dataclass(frozen=True)
class SceneClassificationDecoder:
    """Reads the L2A scene classification, classes 0 to 11 of uint8."""

    meaning: str = (
        "No data, saturated pixels, cloud shadow and clouds are left out by the scene classification"
    )
    """What is left out, for a note."""

    _VALID: ClassVar = np.array([value < 12 and value not in SCL_INVALID for value in range(256)])

    def valid(self, values: npt.NDArray) -> npt.NDArray[np.bool_]:
        """Return where the class is one that a map can be made from."""
        return self._VALID[values.astype(np.uint8)]


@dataclass(frozen=True, kw_only=True)
class SafeProduct(Product):
    """A Sentinel-2 product, unpacked or zipped."""

    format_name = "Sentinel-2 SAFE"
    looked_for = "MTD_MSIL1C.xml or MTD_MSIL2A.xml with a folder GRANULE (Sentinel-2 SAFE)"

    files: dict[tuple[str, int], str]
    """The image files by band and resolution in metres, as GDAL names them."""

    @classmethod
    def root_of(cls, path: Path) -> Path:
        """Return the product's folder for its metadata, such as MTD_MSIL1C.xml; any other path as it is."""
        return path.parent if _METADATA_FILE.fullmatch(path.name) else path

    @classmethod
    def recognise(cls, path: Path) -> str | None:
        """Return the name of the product that a folder or zip is, or None; a damaged zip's is its stem."""
        if path.is_dir():
            return path.resolve().name.removesuffix(SUFFIX) if _is_product_folder(path) else None
        if path.suffix.lower() == ".zip" and path.is_file():
            return _name_in_archive(path)
        return None

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Return the product that a folder or zip is or holds, None if there is none.

        Raises SceneError if the zip is damaged, there are several products, or one is incomplete.
        """
        if path.is_dir():
            return cls._open_folder(path)
        return cls._open_zip(path) if path.suffix.lower() == ".zip" else None

    @classmethod
    def facts_beside(cls, path: Path) -> ProductFacts | None:
        """Return the facts of the product that a file lies in or beside, None if there is no product."""
        parents = path.absolute().parents
        folders = [parents[0], *(folder for folder in parents if folder.suffix == SUFFIX)]
        for folder in folders:
            for document in _documents(folder):
                return parse_metadata(document.read_bytes(), str(document), _granule_metadata(folder))
        return None

    @classmethod
    def mask_decoder(cls, text: str) -> MaskDecoder | None:
        """Return the scene classification's decoder if a name, tag or description means one."""
        return SceneClassificationDecoder() if names_scene_classification(text) else None

    def band_source(self, band: str, resolution: int) -> BandSource:
        """Return the file to read a band from when 10, 20 or 60 m are asked for.

        No band is delivered finer than it was measured; then the finest of its files is taken. Raises
        SceneError if the product lacks the file, naming the resolutions it has.
        """
        if band == "B10" and self.facts.level == "l2a":
            raise SceneError(
                f"The model needs band B10, which Level-2A products such as {self.name} do not have."
            )
        coarsest = max(resolution, NATIVE_RESOLUTION[band])
        available = sorted(metres for name, metres in self.files if name == band)
        fitting = [metres for metres in available if resolution <= metres <= coarsest]
        if fitting:
            return BandSource(self.files[band, fitting[0]], 1)
        if not available:
            raise SceneError(f"The product {self.name} has no file of band {band}, which the model needs.")
        raise SceneError(
            f"The {resolution} m file of band {band} is not in the product {self.name}, which has it at "
            f"{' and '.join(map(str, available))} m: download the whole product, or use the files at hand "
            f"with `safe_resolution` {available[0]}."
        )

    @classmethod
    def _open_folder(cls, folder: Path) -> Self | None:
        """Return the product that the folder is, or the only one in it; None if there is none.

        Metadata without a GRANULE folder beside it, as among loose band files, make no product.
        """
        folder = folder.resolve()  # "." and ".." have no name
        inside = (document for inner in sorted(folder.glob(f"*{SUFFIX}")) for document in _documents(inner))
        found = _documents(folder) or list(inside)
        documents = [document for document in found if (document.parent / "GRANULE").is_dir()]
        if not documents:
            _check_not_incomplete(folder)
            return None
        root = _only([document.parent for document in documents], str(folder))
        facts = parse_metadata(documents[0].read_bytes(), str(documents[0]), _granule_metadata(root))
        images = [path.as_posix() for path in sorted(root.glob("GRANULE/*/IMG_DATA/**/*.jp2"))]
        return cls._from_images(root.name, facts, images)

    @classmethod
    def _open_zip(cls, archive: Path) -> Self | None:
        """Return the product in a zip, its image files named so that GDAL reads them in place."""
        try:
            with zipfile.ZipFile(archive) as content:
                names = content.namelist()
                documents = [name for name in names if _METADATA_MEMBER.fullmatch(name)]
                if not documents:
                    return None
                document = _only(documents, str(archive))
                root = document.rpartition("/")[0]
                granules = [
                    name
                    for name in names
                    if name.startswith(root) and _GRANULE_METADATA.fullmatch(name.rpartition("/")[2])
                ]
                granule = (
                    (f"{archive}/{granules[0]}", _read_metadata(content, granules[0], archive))
                    if granules
                    else None
                )
                facts = parse_metadata(
                    _read_metadata(content, document, archive), f"{archive}/{document}", granule
                )
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise SceneError(f"{archive} is a damaged zip archive ({error}): download it again.") from error
        images = [
            f"/vsizip/{{{archive.resolve().as_posix()}}}/{name}"
            for name in sorted(names)
            if name.startswith(f"{root}/GRANULE/" if root else "GRANULE/") and "/IMG_DATA/" in name
        ]
        return cls._from_images(root or archive.stem, facts, images)

    @classmethod
    def _from_images(cls, folder: str, facts: ProductFacts, images: Sequence[str]) -> Self:
        name = folder.removesuffix(SUFFIX)
        granules = {image.partition("/GRANULE/")[2].partition("/")[0] for image in images}
        if len(granules) > 1:
            raise SceneError(
                f"The product {name} has {len(granules)} granules ({', '.join(sorted(granules))}): unpack it "
                "if it is an archive and give the folder IMG_DATA of one of them."
            )
        files: dict[tuple[str, int], str] = {}
        for image in images:
            if match := _IMAGE_FILE.search(image):
                band = match[1].upper()
                files[band, int(match[2] or NATIVE_RESOLUTION.get(band, 10))] = image
        if not files:
            raise SceneError(
                f"The product {name} has metadata but no band files (looked for *_B02.jp2 and the like in "
                "GRANULE/*/IMG_DATA): download the whole product."
            )
        return cls(name=name, facts=facts, nodata=NODATA, mask=_finest_classification(files), files=files)


def parse_metadata(document: bytes, where: str, granule: tuple[str, bytes] | None = None) -> ProductFacts:
    """Read a product's MTD_MSIL1C.xml or MTD_MSIL2A.xml and, if it is at hand, its granule's MTD_TL.xml.

    `granule` is the name and the content of the latter. ESA's definition: reflectance = (DN + offset of the
    band) / quantification. Raises SceneError, naming the document, if one is damaged or not Sentinel-2's.
    """
    with _readable(where):
        root = _parse_xml(document, where)
        texts = {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in root.iter()}
        level = level_in([texts.get("PROCESSING_LEVEL", ""), root.tag])
        if level is None:
            raise SceneError(f"{where} does not say whether the product is Level-1C or Level-2A.")
        offsets = {
            BANDS[int(element.attrib["band_id"])]: float(element.text or "")
            for element in root.iter("RADIO_ADD_OFFSET" if level == "l1c" else "BOA_ADD_OFFSET")
        }
        facts = ProductFacts(
            level=level,
            scales=dict.fromkeys(BANDS, 1 / _quantification(texts, level)),
            offsets=offsets or dict.fromkeys(BANDS, 0.0),  # before baseline 04.00 there are none
            baseline=texts.get("PROCESSING_BASELINE", ""),
            acquired=_time(texts.get("PRODUCT_START_TIME") or texts.get("DATATAKE_SENSING_START", "")),
        )
    if granule is None:
        return facts
    where, document = granule
    with _readable(where):
        return replace(facts, sun_zenith=_sun_zenith(_parse_xml(document, where)))


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Raise SceneError, naming the document `where`, if it is damaged or lacks what is looked for."""
    try:
        yield
    except (ElementTree.ParseError, LookupError, ValueError, ArithmeticError) as error:
        raise SceneError(
            f"{where} is not readable Sentinel-2 product metadata ({error}): download the product again."
        ) from error


def _quantification(texts: Mapping[str, str], level: str) -> float:
    """Return how many stored units make a reflectance of 1; raises LookupError, listing the names tried.

    Level-2A products of 2017 and 2018 have it in a list of their own, L1C_L2A_Quantification_Values_List.
    """
    names = ["QUANTIFICATION_VALUE"]
    if level == "l2a":
        names = ["BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"]
    for name in names:
        if name in texts:
            return float(texts[name])
    raise LookupError(f"it has no {' or '.join(names)}")


def _parse_xml(document: bytes, where: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise SceneError(
            f"{where} declares XML entities, which Sentinel-2 metadata never do: it was not read."
        )
    return ElementTree.fromstring(document)


def _sun_zenith(granule: ElementTree.Element) -> float | None:
    angle = granule.find(".//Mean_Sun_Angle/ZENITH_ANGLE")
    return None if angle is None else float(angle.text or "")


def _time(text: str) -> datetime | None:
    """Return a time such as 2022-10-05T11:54:11.024Z; None if it is not one, as the pixels do not need it."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _is_product_folder(folder: Path) -> bool:
    return folder.name.endswith(SUFFIX) or ((folder / "GRANULE").is_dir() and bool(_documents(folder)))


def _documents(folder: Path) -> list[Path]:
    """Return the metadata of the products that a folder is: one, if all is well."""
    return sorted(path for path in folder.glob("*MTD_*.xml") if _METADATA_FILE.fullmatch(path.name))


def _check_not_incomplete(folder: Path) -> None:
    """Raise SceneError for a product's folder without metadata or images, unless it has loose band files."""
    if folder.suffix != SUFFIX or any(band_in_file_name(path.stem) for path in folder.iterdir()):
        return
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    raise SceneError(
        f"The product {folder} is incomplete: looked for MTD_MSIL1C.xml or MTD_MSIL2A.xml (before "
        f"December 2016 S2A_OPER_MTD_SAFL1C_*.xml) and the folder GRANULE, found {found}: download the whole "
        "product."
    )


def _name_in_archive(archive: Path) -> str | None:
    try:
        with zipfile.ZipFile(archive) as content:
            document = next((name for name in content.namelist() if _METADATA_MEMBER.fullmatch(name)), None)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return archive.stem
    if document is None:
        return None
    return (document.rpartition("/")[0] or archive.stem).removesuffix(SUFFIX)


def _granule_metadata(product: Path) -> tuple[str, bytes] | None:
    """Return the path and the content of the granule's MTD_TL.xml, if the product's folder has one."""
    found = sorted(p for p in product.glob("GRANULE/*/*MTD_*.xml") if _GRANULE_METADATA.fullmatch(p.name))
    return (str(found[0]), found[0].read_bytes()) if found else None


def _read_metadata(content: zipfile.ZipFile, name: str, archive: Path) -> bytes:
    """Return a document of an archive; SceneError if it is too large to be one."""
    if (size := content.getinfo(name).file_size) > METADATA_BYTES:  # zipfile reads no more than this says
        raise SceneError(
            f"{archive} holds a {name} of {size:,} bytes, which product metadata never have: the archive is "
            "damaged or no Sentinel-2 product."
        )
    return content.read(name)


def _finest_classification(files: dict[tuple[str, int], str]) -> MaskSource | None:
    available = sorted(metres for name, metres in files if name == SCENE_CLASSIFICATION)
    if not available:
        return None
    return MaskSource(files[SCENE_CLASSIFICATION, available[0]], SceneClassificationDecoder())


def _only(found: Sequence[T], where: str) -> T:
    if len(found) > 1:
        raise SceneError(
            f"{where} holds {len(found)} Sentinel-2 products ({', '.join(map(str, found))}): give one."
        )
    return found[0]
