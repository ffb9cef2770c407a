"""Which pixels hold no data although no file says so: found by their values, in a sample of them.

Archives forget to declare what fills the ground that a scene does not show, or declare something else.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from pipeline.notes import Note, info
from pipeline.scenes.gdal import READ_ERRORS, open_raster
from pipeline.scenes.radiometry import PixelEncoding
from pipeline.scenes.rasters import BandLayer
from pipeline.scenes.stored_values import REFLECTANCE, Limits, StoredValues, is_data, outside_of

COLORS = 0.0, 65_535.0
"""What colours can be, whatever the type of the file."""

CORNER = 4
"""A picture has a black border if so many pixels, squared, are black in one of its corners."""


def with_validity(
    layers: tuple[BandLayer, ...], stored: StoredValues, encoding: PixelEncoding
) -> tuple[tuple[BandLayer, ...], list[Note]]:
    """Return the layers, and how pixels without data are told in them, with notes of what was found.

    Of reflectance, 0 in every band is no data whatever is declared: that is Sentinel-2's definition. So are
    values that no reflectance can have. In a picture 0 is black, except in a border.
    """
    picture = encoding.level == "rgb8"
    border = picture and all(_has_black_corner(layer) for layer in layers)
    zero = not picture and not all(set(layer.nodata) == {0} for layer in layers)
    limits = _limits(encoding)
    layers = tuple(
        replace(layer, zero_is_nodata=zero, black_border=border, limits=_reachable(layer, limits))
        for layer in layers
    )
    notes = []
    if border:
        notes.append(info("black-border", None, "The picture's black border is left out as no data."))
    if any(layer.limits for layer in layers):
        outside = outside_of(stored.drawn, limits)
        if is_data(stored.drawn[:, outside], stored.drawn):  # another encoding's: not for us to mend
            layers = tuple(replace(layer, limits=()) for layer in layers)
        elif outside.any():
            notes.append(_impossible(stored.drawn, outside))
    if zero and any(layer.declares_validity for layer in layers):
        empty = np.asarray((stored.drawn == 0).all(axis=0))
        if empty.any():
            notes.append(_all_zero(empty, layers))
    return _screened(layers, undeclared=bool(notes)), notes


def _limits(encoding: PixelEncoding) -> tuple[Limits, ...]:
    """Return the stored values between which each of the model's bands means something."""
    if encoding.level == "rgb8":
        return (COLORS,) * len(encoding.scale)
    low, high = REFLECTANCE
    return tuple(
        (low / scale - offset, high / scale - offset)
        for scale, offset in zip(encoding.scale, encoding.offset, strict=True)
    )


def _reachable(layer: BandLayer, limits: Sequence[Limits]) -> tuple[Limits, ...]:
    """Return the limits of a layer's bands in what its type can hold; empty if it can hold nothing else."""
    own = tuple(limits[channel] for channel in layer.channels)
    if np.issubdtype(layer.dtype, np.floating):
        return own
    of_type = np.iinfo(layer.dtype)
    if all(low <= of_type.min and high >= of_type.max for low, high in own):
        return ()
    return tuple(
        (float(np.ceil(max(low, of_type.min))), float(np.floor(min(high, of_type.max)))) for low, high in own
    )


def _has_black_corner(layer: BandLayer) -> bool:
    """Return whether a corner of a file's own pixels is black, so that the black goes on as a border."""
    with open_raster(layer.path) as dataset, suppress(*READ_ERRORS):  # reading the tiles will report damage
        height, width = (min(CORNER, size) for size in dataset.shape)
        windows = (
            Window(col, row, width, height)
            for row in {0, dataset.height - height}
            for col in {0, dataset.width - width}
        )
        return any(not dataset.read(list(layer.indexes), window=window).any() for window in windows)
    return False


def _screened(layers: tuple[BandLayer, ...], *, undeclared: bool) -> tuple[BandLayer, ...]:
    """Return the layers, those masked before they are resampled whose invalid pixels no one value marks.

    `undeclared` tells that some pixels are invalid though no file says so.
    """
    return tuple(
        replace(layer, screened=layer.resampling is not None and _has_several_reasons(layer, undeclared))
        for layer in layers
    )


def _has_several_reasons(layer: BandLayer, undeclared: bool) -> bool:
    declared_for_some = layer.declares_nodata and None in layer.nodata
    return declared_for_some or (undeclared and (layer.declares_validity or bool(layer.limits)))


def _impossible(pixels: npt.NDArray, outside: npt.NDArray[np.bool_]) -> Note:
    values, counts = np.unique(pixels[:, outside], return_counts=True)
    text = (
        f"{_share(outside)} of the pixels hold values that nothing on the ground has, such as "
        f"{values[counts.argmax()]:g}; they are left out as no data, though no file declares that."
    )
    return info("nodata-by-values", None, text)


def _all_zero(empty: npt.NDArray[np.bool_], layers: Sequence[BandLayer]) -> Note:
    declared = sorted({f"{v:g}" for layer in layers for v in layer.nodata if v is not None})
    by = f"{', '.join(declared)} as no data" if declared else "a mask"
    text = (
        f"{_share(empty)} of the pixels are 0 in every band; they are left out as no data, though the file "
        f"declares {by}."
    )
    return info("zero-is-nodata", None, text)


def _share(chosen: npt.NDArray[np.bool_]) -> str:
    share = float(chosen.mean())
    return f"{share:.0%}" if share >= 0.01 else "Less than 1%"
