"""What every product format has in common: the facts needed to read its pixels, and how it is found.

A format is a subclass of `Product` in a module of its own and a line in `registry.py`. No other module knows
one by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class BandSource:
    """Where one band is."""

    path: str
    """A file, as GDAL names it."""

    index: int
    """The band in it, counted from 1."""


class MaskDecoder(Protocol):
    """Knows what the values of a mask mean. It is pickled with the scene."""

    @property
    def meaning(self) -> str:
        """Say what is left out and by what, for a note that goes on with the file's name."""

    def valid(self, values: npt.NDArray) -> npt.NDArray[np.bool_]:
        """Return which pixels are valid, in the shape of `values`. Outside of the mask's file they are 0."""


@dataclass(frozen=True)
class MaskSource:
    """A mask that comes with the bands."""

    path: str
    """A file, as GDAL names it."""

    decoder: MaskDecoder | None = None
    """What its values mean; None to go by its name, tags and band descriptions."""


@dataclass(frozen=True)
class ProductFacts:
    """What a product's metadata say about its pixels: reflectance = scale * (stored value + offset)."""

    level: str
    """l1c (reflectance at the top of the atmosphere) or l2a (at the surface)."""

    scales: Mapping[str, float]
    """The factor of each band."""

    offsets: Mapping[str, float]
    """What is added to the stored values of each band. A band may be missing if others are there."""

    baseline: str = ""
    """The version of the processing, for messages; empty if there is none."""

    sun_zenith: float | None = None
    """The sun's mean angle from the zenith in degrees; None if it is not known."""

    acquired: datetime | None = None
    """When the scene was taken, with a time zone; None if it is not known."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot be meant, so that nothing is computed from them."""
        for band, scale in self.scales.items():
            if not (isfinite(scale) and scale > 0):
                raise ValueError(f"the scale of {band} is {scale:g}")
        for band, offset in self.offsets.items():
            if not isfinite(offset):
                raise ValueError(f"the offset of {band} is {offset:g}")
        if self.sun_zenith is not None and not 0 <= self.sun_zenith <= 90:
            raise ValueError(f"the sun is {self.sun_zenith:g} degrees from the zenith")


@dataclass(frozen=True, kw_only=True)
class Product(ABC):
    """A scene as its provider delivers it: a folder or an archive whose metadata say what is in it.

    A subclass is a format. Its class methods find and open products; what they return answers for one.
    """

    format_name: ClassVar[str]
    """The format, for messages, such as "Sentinel-2 SAFE"."""

    looked_for: ClassVar[str]
    """The files by which a product is found, for messages."""

    name: str
    """What the scene's map will be named after."""

    facts: ProductFacts
    """What the metadata say about the pixels."""

    nodata: float | None = None
    """The stored value of missing pixels where the files declare none; None if the format defines none."""

    mask: MaskSource | None = None
    """Which pixels to leave out; None if the product has no mask."""

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path) -> str | None:
        """Return the name of the product that a folder or archive is, or None. Reads no image.

        For an archive that is damaged it is the archive's stem: opening it will say what is wrong.
        """

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> Self | None:
        """Return the product that a folder or archive is or holds, None if it is not of this format.

        Raises SceneError if it is of this format and cannot be used.
        """

    @abstractmethod
    def band_source(self, band: str, resolution: int) -> BandSource:
        """Return where a band is; `resolution` in metres is asked for where there are several.

        Raises SceneError if the product lacks the band.
        """

    @classmethod
    def root_of(cls, path: Path) -> Path:
        """Return the folder that is meant by the path of its metadata; any other path as it is."""
        return path

    @classmethod
    def facts_beside(cls, path: Path) -> ProductFacts | None:
        """Return the facts of the product that a file lies in or beside, None if there is no product.

        Raises SceneError if its metadata are damaged.
        """
        return None

    @classmethod
    def mask_decoder(cls, text: str) -> MaskDecoder | None:
        """Return the decoder for a mask of this format if a file name, tag or description names one."""
        return None
