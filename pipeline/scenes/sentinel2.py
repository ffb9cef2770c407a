"""What Sentinel-2 defines: band names, product metadata, and where a SAFE product keeps its files."""

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

from pipeline.errors import SceneError

T = TypeVar("T")

# In the order of `band_id` in the product metadata.
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

NATIVE_RESOLUTION = dict.fromkeys(BANDS, 20) | dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
NATIVE_RESOLUTION |= dict.fromkeys(("B01", "B09", "B10"), 60)

# STAC common names, the names of Earth-search's assets, and what people write by hand.
COMMON_NAMES = {
    "B01": ("coastal", "coastalaerosol", "aerosol"),
    "B02": ("blue",),
    "B03": ("green",),
    "B04": ("red",),
    "B05": ("rededge1", "rededge071"),
    "B06": ("rededge2", "rededge075"),
    "B07": ("rededge3", "rededge078"),
    "B08": ("nir", "nearinfrared"),
    "B8A": ("nir08", "narrownir", "nirnarrow"),
    "B09": ("nir09", "watervapour", "watervapor"),
    "B10": ("cirrus",),
    "B11": ("swir1", "swir16"),
    "B12": ("swir2", "swir22"),
}
BAND_OF_NAME = {name: band for band, names in COMMON_NAMES.items() for name in names}
USER_NAME = {"B02": "blue", "B03": "green", "B04": "red"}

# Classes of the L2A scene classification that a map should not be made from: no data, saturated or
# defective, cloud shadow, cloud of medium and high probability, thin cirrus.
SCL_INVALID = (0, 1, 3, 8, 9, 10)

# A product's metadata have some 50 to 600 kB; an archive can hold gigabytes of nothing in a few.
METADATA_BYTES = 16 * 2**20

_BAND_TOKEN = re.compile(r"(?<![A-Za-z0-9])B(0?[1-9]|1[0-2]|0?8A)(?![A-Za-z0-9])", re.IGNORECASE)
_LEVEL_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:S2MSI|(?:MSI_?)?L(?:EVEL[-_ ]?)?)(1C|2A)(?![A-Za-z0-9])", re.IGNORECASE
)
_BASELINE_TOKEN = re.compile(r"(?:(?<![A-Za-z0-9])N|BASELINE\W{1,3})(0\d)[._]?(\d\d)(?!\d)", re.IGNORECASE)
_TCI_TOKEN = re.compile(r"(?<![A-Za-z0-9])TCI(?![A-Za-z0-9])", re.IGNORECASE)
_SCL_TOKEN = re.compile(r"(?<![A-Za-z0-9])SCL(?![A-Za-z0-9])|scene[ _-]classification", re.IGNORECASE)
_IMAGE_FILE = re.compile(r"_(B\d\d|B8A|TCI|SCL)(?:_(10|20|60)m)?\.jp2$", re.IGNORECASE)


def band_of(text: str) -> str | None:
    """Return the band that a description, a variable or an option names, or None.

    Understands "B04", "b4", "red", "Red (665 nm)", "B4, central wavelength 665 nm", "T32UQD_B04_10m".
    """
    if match := _BAND_TOKEN.search(text):
        return _canonical(match[1])
    plain = re.sub(r"[^a-z0-9]", "", re.split(r"[(,:\[]", text)[0].lower())
    return BAND_OF_NAME.get(plain)


def band_in_file_name(stem: str) -> tuple[str, str] | None:
    """Return (band or "SCL", what remains of the name) for the file of a single band, else None.

    The remainder tells sets of band files in one folder apart: `mol_l1c_B02` and `mol_l1c_B03` belong
    together, `other_B02` does not.
    """
    stem = re.sub(r"_(10|20|60)m$", "", stem)
    if matches := list(_BAND_TOKEN.finditer(stem)):
        band, start, end = _canonical(matches[-1][1]), matches[-1].start(), matches[-1].end()
    elif match := _SCL_TOKEN.search(stem):
        band, start, end = "SCL", match.start(), match.end()
    else:
        rest, _, last = stem.rpartition("_")
        if last.lower() not in BAND_OF_NAME:
            return None
        return BAND_OF_NAME[last.lower()], rest
    return band, f"{stem[:start].rstrip('_-. ')}{stem[end:]}"


def _canonical(number: str) -> str:
    return "B8A" if number.upper().endswith("8A") else f"B{int(number):02d}"


def user_band(band: str) -> str:
    """Return the name for messages and `bands`: red, green, blue, or the Sentinel-2 name."""
    return USER_NAME.get(band, band)


def level_in(texts: Iterable[str]) -> str | None:
    """Return `l1c` or `l2a` if one of the texts (file names, tags) says so; the first one that does."""
    for text in texts:
        if match := _LEVEL_TOKEN.search(text):
            return f"l{match[1].lower()}"
    return None


def baseline_in(texts: Iterable[str]) -> str | None:
    """Return the processing baseline, as "04.00", that one of the texts names (N0400, BASELINE=04.00)."""
    for text in texts:
        if match := _BASELINE_TOKEN.search(text):
            return f"{match[1]}.{match[2]}"
    return None


def names_true_colour(text: str) -> bool:
    """Tell whether a file name is that of ESA's true-colour image."""
    return bool(_TCI_TOKEN.search(text))


def names_scene_classification(text: str) -> bool:
    """Tell whether a file name, a tag or a band description means the L2A scene classification."""
    return bool(_SCL_TOKEN.search(text))


def offset_of_baseline(baseline: str) -> int:
    """Return what is added to stored values: since baseline 04.00 reflectance is stored 1,000 higher."""
    return -1000 if tuple(int(part) for part in baseline.split(".")[:2]) >= (4, 0) else 0


@dataclass(frozen=True)
class ProductMetadata:
    """The radiometric part of MTD_MSIL1C.xml or MTD_MSIL2A.xml, and of the granule's MTD_TL.xml.

    Reflectance = (DN + offset of the band) / quantification. `sun_zenith` is the granule's mean, in
    degrees; None where its metadata are not there.
    """

    level: str
    baseline: str
    quantification: float
    offsets: dict[str, float]
    sun_zenith: float | None = None


def parse_metadata(document: bytes, where: str, granule: bytes | None = None) -> ProductMetadata:
    """Read a product's metadata; `granule` is the content of its MTD_TL.xml, if that is at hand.

    Raises SceneError if they are damaged or not Sentinel-2's.
    """
    try:
        root = _parse_xml(document, where)
        texts = {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in root.iter()}
        level = level_in([texts.get("PROCESSING_LEVEL", ""), root.tag])
        if level is None:
            raise SceneError(f"{where} does not say whether the product is Level-1C or Level-2A.")
        kind, quantity = ("RADIO", "") if level == "l1c" else ("BOA", "BOA_")
        offsets = {
            BANDS[int(element.attrib["band_id"])]: float(element.text or "")
            for element in root.iter(f"{kind}_ADD_OFFSET")
        }
        return ProductMetadata(
            level=level,
            baseline=texts.get("PROCESSING_BASELINE", ""),
            quantification=float(texts[f"{quantity}QUANTIFICATION_VALUE"]),
            offsets={band: offsets.get(band, 0.0) for band in BANDS},
            sun_zenith=_sun_zenith(_parse_xml(granule, f"MTD_TL.xml of {where}")) if granule else None,
        )
    except (ElementTree.ParseError, KeyError, IndexError, ValueError) as error:
        raise SceneError(f"{where} is not readable Sentinel-2 product metadata ({error}).") from error


def _parse_xml(document: bytes, where: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise SceneError(
            f"{where} declares XML entities, which Sentinel-2 metadata never do: it was not read."
        )
    return ElementTree.fromstring(document)


def _sun_zenith(granule: ElementTree.Element) -> float | None:
    angle = granule.find(".//Mean_Sun_Angle/ZENITH_ANGLE")
    return None if angle is None else float(angle.text or "")


def _granule_metadata(product: Path) -> bytes | None:
    """Return the content of MTD_TL.xml, if the product's folder has one."""
    document = next(iter(sorted(product.glob("GRANULE/*/MTD_TL.xml"))), None)
    return document.read_bytes() if document else None


def metadata_beside(path: Path) -> ProductMetadata | None:
    """Return the metadata of the product that a file lies in or beside, if there is any."""
    parents = path.absolute().parents
    folders = [parents[0], *(folder for folder in parents if folder.suffix == ".SAFE")]
    for folder in folders:
        for document in sorted(folder.glob("MTD_MSIL*.xml")):
            return parse_metadata(document.read_bytes(), str(document), _granule_metadata(folder))
    return None


@dataclass(frozen=True)
class SafeProduct:
    """A Sentinel-2 product folder, or its zip: metadata and image files by (band, resolution in metres)."""

    name: str
    metadata: ProductMetadata
    files: dict[tuple[str, int], str]

    def band_file(self, band: str, resolution: int) -> str:
        """Return the file to read a band from when 10, 20 or 60 m are asked for.

        A band is not to be had finer than it was measured; then the finest of its files is taken.
        Raises SceneError if the product lacks the file, naming the resolutions it has.
        """
        coarsest = max(resolution, NATIVE_RESOLUTION[band])
        held = sorted(metres for name, metres in self.files if name == band)
        fitting = [metres for metres in held if resolution <= metres <= coarsest]
        if fitting:
            return self.files[band, fitting[0]]
        if not held:
            raise SceneError(
                f"The product {self.name} has no file of band {band}: the model cannot do without it."
            )
        raise SceneError(
            f"The {resolution} m file of band {band} is not in the product {self.name}, which has it at "
            f"{' and '.join(map(str, held))} m: download the product whole, or take those with "
            f"`safe_resolution` {held[0]}."
        )

    def scene_classification(self) -> str | None:
        """Return the finest scene classification layer, if the product has one."""
        held = sorted(metres for name, metres in self.files if name == "SCL")
        return self.files["SCL", held[0]] if held else None


def open_safe_folder(folder: Path) -> SafeProduct | None:
    """Return the product that the folder is, or that lies alone in it; None if there is none.

    Metadata without a GRANULE folder beside it, as among loose band files, make no product.
    """
    folder = folder.resolve()  # "." and ".." have no name
    found = sorted(folder.glob("MTD_MSIL*.xml")) or sorted(folder.glob("*.SAFE/MTD_MSIL*.xml"))
    documents = [document for document in found if (document.parent / "GRANULE").is_dir()]
    if not documents:
        return None
    root = _only([document.parent for document in documents], str(folder))
    metadata = parse_metadata(documents[0].read_bytes(), str(documents[0]), _granule_metadata(root))
    images = [path.as_posix() for path in sorted(root.glob("GRANULE/*/IMG_DATA/**/*.jp2"))]
    return _safe_product(root.name, metadata, images)


def _read_metadata(content: zipfile.ZipFile, name: str, archive: Path) -> bytes:
    """Return a document of an archive; SceneError if it is too large to be one."""
    if (size := content.getinfo(name).file_size) > METADATA_BYTES:  # zipfile reads no more than this says
        raise SceneError(
            f"{archive} holds a {name} of {size:,} bytes, which product metadata never have: the archive is "
            "damaged or no Sentinel-2 product."
        )
    return content.read(name)


def open_safe_zip(archive: Path) -> SafeProduct:
    """Return the product in a zip archive; its image files are named so that GDAL reads them in place.

    Raises SceneError if the archive is damaged or holds no Sentinel-2 product.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            names = content.namelist()
            documents = [name for name in names if re.fullmatch(r"([^/]+/)?MTD_MSIL(1C|2A)\.xml", name)]
            if not documents:
                raise SceneError(
                    f"{archive} holds no Sentinel-2 product (no MTD_MSIL1C.xml or MTD_MSIL2A.xml): unpack it "
                    "first."
                )
            document = _only(documents, str(archive))
            root = document.rpartition("/")[0]
            granules = [name for name in names if name.endswith("/MTD_TL.xml") and name.startswith(root)]
            granule = _read_metadata(content, granules[0], archive) if granules else None
            metadata = parse_metadata(
                _read_metadata(content, document, archive), f"{archive}/{document}", granule
            )
    except (zipfile.BadZipFile, OSError) as error:
        raise SceneError(f"{archive} is a damaged zip archive ({error}): download it again.") from error
    images = [
        f"/vsizip/{{{archive.resolve().as_posix()}}}/{name}"
        for name in sorted(names)
        if name.startswith(f"{root}/GRANULE/" if root else "GRANULE/") and "/IMG_DATA/" in name
    ]
    return _safe_product(root or archive.stem, metadata, images)


def _safe_product(folder: str, metadata: ProductMetadata, images: Sequence[str]) -> SafeProduct:
    name = folder.removesuffix(".SAFE")
    granules = {image.partition("/GRANULE/")[2].partition("/")[0] for image in images}
    if len(granules) > 1:
        raise SceneError(
            f"The product {name} has {len(granules)} granules ({', '.join(sorted(granules))}): give one."
        )
    files: dict[tuple[str, int], str] = {}
    for image in images:
        if match := _IMAGE_FILE.search(image):
            band = match[1].upper()
            files[band, int(match[2] or NATIVE_RESOLUTION.get(band, 10))] = image
    if not files:
        raise SceneError(f"The product {name} holds metadata but no band files: download it whole.")
    return SafeProduct(name, metadata, files)


def _only(found: Sequence[T], where: str) -> T:
    if len(found) > 1:
        raise SceneError(
            f"{where} holds {len(found)} Sentinel-2 products ({', '.join(map(str, found))}): give one."
        )
    return found[0]
