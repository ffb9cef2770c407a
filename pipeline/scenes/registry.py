"""The product formats that are known, and the questions that are put to each of them in turn."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.scenes.product import MaskDecoder, Product, ProductFacts
from pipeline.scenes.sentinel2 import SafeProduct

FORMATS: tuple[type[Product], ...] = (SafeProduct,)
"""Every product format; the first one that answers is taken."""


def recognise(path: Path) -> str | None:
    """Return the name of the product that a path is, None if it is none. Reads no image."""
    names = (format.recognise(format.root_of(path)) for format in FORMATS)
    return next((name for name in names if name is not None), None)


def root_of(path: Path) -> Path:
    """Return the folder that is meant by the path of a product's metadata; any other path as it is."""
    return next((root for format in FORMATS if (root := format.root_of(path)) != path), path)


def open_product(path: Path) -> Product | None:
    """Return the product that a folder or archive is or holds, None if it is of no known format.

    Raises SceneError if it cannot be used.
    """
    return next((product for format in FORMATS if (product := format.open(path))), None)


def facts_beside(path: Path) -> ProductFacts | None:
    """Return the facts of the product that a file lies in or beside, None if there is no product.

    Raises SceneError if its metadata are damaged.
    """
    return next((facts for format in FORMATS if (facts := format.facts_beside(path))), None)


def mask_decoder(texts: Iterable[str]) -> MaskDecoder | None:
    """Return the decoder for the mask that one of the texts (file names, tags, descriptions) names."""
    decoders = (format.mask_decoder(text) for text in texts for format in FORMATS)
    return next((decoder for decoder in decoders if decoder), None)


def looked_for() -> str:
    """Return what is looked for to find a product of each format, for messages."""
    return ", ".join(format.looked_for for format in FORMATS)
