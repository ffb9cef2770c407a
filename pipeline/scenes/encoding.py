"""Find out what a scene's stored numbers mean: the product level, then scale and offset.

Each is looked for in this order: what the user states, the product's metadata, tags and file names, and
finally the values themselves. Every guess comes with a warning that names the option to overrule it.
"""

from dataclasses import dataclass, replace

from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info, warning
from pipeline.scenes.atmosphere import SUN_ZENITH, clear_atmosphere
from pipeline.scenes.bands import Imagery
from pipeline.scenes.hints import baseline_in, level_in, offset_of_baseline, true_color_level_in
from pipeline.scenes.radiometry import PixelEncoding, reflectance_encoding, rgb8_encoding, tci_encoding
from pipeline.scenes.stored_values import StoredValues
from pipeline.scenes.sun import UNKNOWN_SUN, Sun

LEVEL_NAMES = {"l1c": "Level-1C (top of atmosphere)", "l2a": "Level-2A (surface)"}
TEN_THOUSANDTHS = 1e-4  # Sentinel-2 stores reflectance x 10,000

# Of stored values, in the darkest band: with the offset of 1,000 still in, hardly a pixel lies below the
# first (noise, water, overcorrected shadow); a scene whose dark pixels lie above the second is bright.
OFFSET_IN_ABOVE = 900
OFFSET_IN_BELOW = {"l1c": 1600, "l2a": 1400}
MAX_SATURATED = 0.02  # of the values of 8-bit colours in a file of more bits; a few may be outliers

# Of the brightness of a clear atmosphere in blue: dark pixels above it are seen through the air (L1C).
AIR_SHARE = 0.85

Numbers = tuple[float, ...]
"""One for each of the model's bands."""


@dataclass(frozen=True)
class _Evidence:
    """Everything that may tell what the pixels mean."""

    card: ModelCard
    imagery: Imagery
    stored: StoredValues

    def per_band(self, value: float) -> Numbers:
        """Return the same number for each of the model's bands."""
        return (float(value),) * len(self.card.bands)


def find_encoding(
    card: ModelCard,
    imagery: Imagery,
    stored: StoredValues,
    level: str = "auto",
    offset: int | None = None,
    sun: Sun = UNKNOWN_SUN,
) -> tuple[PixelEncoding, list[Note]]:
    """Return what the scene's pixels mean, and the notes that say how that was found.

    `level` and `offset` are what the user states ("auto" and None: find out), `sun` is the sun over the
    scene. Raises SceneError if
    values and level contradict each other, UsageError if `offset` does not fit the level.
    """
    evidence = _Evidence(card, imagery, stored)
    if level == "auto":
        level, notes = _find_level(evidence)
    else:
        notes = [info("level-stated", "level", f"Level {level}, as stated by `level`.")]
    if level in ("rgb8", "tci") and offset is not None:
        raise UsageError(
            f"`offset` belongs to reflectance (`level` l1c or l2a), not to 8-bit colours (`level` {level})."
        )
    if level == "rgb8":
        return rgb8_encoding(len(card.bands)), notes + _saturation_notes(stored)
    if level == "tci":
        encoding, more = _true_color(evidence)
    else:
        encoding, more = _reflectance(evidence, level, offset)
    notes += more
    encoding = replace(encoding, sun_zenith=sun.zenith)
    if encoding.reflectance != card.level:
        notes.append(_atmosphere_note(card, encoding, sun))
    return encoding, notes


def _find_level(evidence: _Evidence) -> tuple[str, list[Note]]:
    imagery = evidence.imagery
    if evidence.stored.is_8_bit:
        if imagery.true_color:
            return "tci", [info("level-found", "level", "ESA's true-colour image, by its file name.")]
        return "rgb8", [
            warning(
                "level-assumed",
                "level",
                "8-bit colours of unknown stretch: used as if they were the model's own training values; if "
                "this is ESA's true-colour image, say `level` tci.",
            )
        ]
    if imagery.facts:
        level = imagery.facts.level
        return level, [info("level-found", "level", f"{LEVEL_NAMES[level]}, by the product's metadata.")]
    if named := level_in(imagery.texts):
        return named, [info("level-found", "level", f"{LEVEL_NAMES[named]}, by file name or tags.")]
    return _level_by_values(evidence)


def _level_by_values(evidence: _Evidence) -> tuple[str, list[Note]]:
    """Guess the level by blue: seen from above, even black ground has the brightness of the air over it."""
    card, stored = evidence.card, evidence.stored
    overrule = "state `level` l1c or l2a if that is wrong"
    if stored.is_empty or "B02" not in card.bands:
        return card.level, [
            warning(
                "level-assumed",
                "level",
                f"Nothing tells the product level: assumed to be the model's own, {LEVEL_NAMES[card.level]}; "
                f"{overrule}.",
            )
        ]
    scale = _scale_by_values(stored)
    if scale != 1 and stored.high() <= 255:
        raise SceneError(
            f"{evidence.imagery.name} names no product level, and its values are too small for reflectance "
            "x 10,000 and not those of an 8-bit file: state `level` rgb8, l1c or l2a."
        )
    offset = _offset_by_values(stored, "l1c") if scale != 1 else 0
    dark = scale * (stored.dark(card.bands.index("B02")) + offset)
    level = "l1c" if dark > AIR_SHARE * clear_atmosphere("B02")[0] else "l2a"
    return level, [
        warning(
            "level-guessed",
            "level",
            f"Nothing names the product level: {LEVEL_NAMES[level]} was assumed, as the darkest pixels "
            f"reflect {dark:.3f} in blue; {overrule}.",
        )
    ]


def _saturation_notes(stored: StoredValues) -> list[Note]:
    """Warn of stated 8-bit colours that are not: files of more bits may hold 0 to 255, or reflectance."""
    if stored.dtype.itemsize == 1 or stored.is_empty:
        return []
    above = float((stored.sample > 255).mean())
    if above <= MAX_SATURATED:
        return []
    return [
        warning(
            "values-saturated",
            "level",
            f"`level` rgb8 states values of 0 to 255, but {above:.0%} of them lie above and are taken for "
            "255: if these are reflectance, state `level` l1c or l2a.",
        )
    ]


def _true_color(evidence: _Evidence) -> tuple[PixelEncoding, list[Note]]:
    """Return the encoding of ESA's true-colour image; raises SceneError if the values are not its own."""
    imagery, stored = evidence.imagery, evidence.stored
    if stored.dtype.itemsize > 1:
        raise SceneError(
            f"{imagery.name} holds {stored.dtype} values, but ESA's true-colour image, which `level` tci "
            "states, is of 8 bit: use `level` l1c or l2a for reflectance, or convert a picture with "
            "gdal_translate -ot Byte."
        )
    level, note = _true_color_origin(imagery)
    return tci_encoding(level, len(evidence.card.bands)), [note]


def _true_color_origin(imagery: Imagery) -> tuple[str, Note]:
    """Return the level of the product that a true-colour image was made from."""
    if level := (imagery.facts.level if imagery.facts else level_in(imagery.texts)):
        return level, info("product-found", None, f"Made from {LEVEL_NAMES[level]}.")
    if level := true_color_level_in(imagery.texts):
        return level, info("product-found", None, f"Made from {LEVEL_NAMES[level]}, by file name.")
    return "l1c", warning(
        "product-assumed",
        None,
        "Nothing tells which product the true-colour image was made from: Level-1C (top of atmosphere) "
        "was assumed.",
    )


def _reflectance(
    evidence: _Evidence, level: str, stated_offset: int | None
) -> tuple[PixelEncoding, list[Note]]:
    """Return the encoding of reflectance of a level; raises SceneError if the values cannot be that."""
    if evidence.stored.is_8_bit:
        raise SceneError(
            f"{evidence.imagery.name} holds 8-bit values, which cannot be the reflectance that `level` "
            f"{level} states: use `level` tci for ESA's true-colour image or `level` rgb8 for other pictures."
        )
    scales, notes = _find_scales(evidence)
    if stated_offset is not None:
        offsets, more = _stated_offsets(evidence, stated_offset, scales)
    else:
        offsets, more = _find_offsets(evidence, level, scales)
    return reflectance_encoding(level, offsets, scales), notes + more


def _find_scales(evidence: _Evidence) -> tuple[Numbers, list[Note]]:
    """Return the factor per band from stored value (plus offset) to reflectance."""
    facts, stored = evidence.imagery.facts, evidence.stored
    if facts and (evidence.imagery.is_product or not stored.is_floating):
        return tuple(facts.scales[band] for band in evidence.card.bands), []
    if stored.is_scaled:
        return stored.scales, [info("scale-found", None, "Scale and offset by the file's own tags.")]
    scale = _scale_by_values(stored)
    if not stored.is_floating:
        return evidence.per_band(scale), []
    limit = 1 if scale == 1 else 10_000
    text = f"Floating-point reflectance of 0 to {limit:,}, by its values."
    return evidence.per_band(scale), [info("scale-by-values", None, text)]


def _scale_by_values(stored: StoredValues) -> float:
    """Return 1 for floating-point reflectance of 0 to 1, else 1/10,000."""
    if not stored.is_floating:
        return TEN_THOUSANDTHS
    return 1.0 if stored.is_empty or stored.high() <= 2 else TEN_THOUSANDTHS


def _stated_offsets(evidence: _Evidence, stated: int, scales: Numbers) -> tuple[Numbers, list[Note]]:
    if scales[0] != 1:
        return evidence.per_band(stated), [
            info("offset-stated", "offset", f"Offset {stated}, as stated by `offset`.")
        ]
    if stated:
        raise UsageError(
            f"`offset` {stated} is meant for stored integers, but {evidence.imagery.name} holds reflectance "
            "of 0 to 1."
        )
    return evidence.per_band(0), []


def _find_offsets(evidence: _Evidence, level: str, scales: Numbers) -> tuple[Numbers, list[Note]]:
    """Return what is added to stored values before scaling, per band, so that no offset is removed twice."""
    if scales[0] == 1 and not evidence.imagery.is_product:  # reflectance as it is
        return evidence.per_band(0), []
    declared = _declared_offsets(evidence)
    if declared is None:
        offset, notes = _guess_offset(evidence.stored, level)
        return evidence.per_band(offset), notes
    offsets, source = declared
    if not evidence.imagery.is_product and _offset_is_removed(evidence.stored, offsets):
        return evidence.per_band(0), [
            warning(
                "offset-not-applied",
                "offset",
                f"The offset {_listed(offsets)} {source} is not applied: the darkest pixels hold "
                f"{evidence.stored.dark():.0f}, so it was removed already; state `offset` "
                f"{_listed(offsets)} if that is wrong.",
            )
        ]
    return offsets, [info("offset-found", "offset", f"Offset {_listed(offsets)}, {source}.")]


def _declared_offsets(evidence: _Evidence) -> tuple[Numbers, str] | None:
    """Return the offsets that metadata, tags or file names declare, and which of them it was."""
    facts, stored = evidence.imagery.facts, evidence.stored
    if facts:
        baseline = f" (baseline {facts.baseline})" if facts.baseline else ""
        offsets = tuple(facts.offsets[band] for band in evidence.card.bands)
        return offsets, f"by the product's metadata{baseline}"
    if stored.is_scaled:
        pairs = zip(stored.offsets, stored.scales, strict=True)
        return tuple(offset / scale for offset, scale in pairs), "by the file's tags"
    if found := baseline_in(evidence.imagery.texts):
        return evidence.per_band(offset_of_baseline(found)), f"as of processing baseline {found}"
    return None


def _offset_is_removed(stored: StoredValues, offsets: Numbers) -> bool:
    """Return whether an archive removed a declared offset: its values are darker than that would leave."""
    return min(offsets) < 0 and not stored.is_empty and stored.dark() < OFFSET_IN_ABOVE


def _listed(offsets: Numbers) -> str:
    return " ".join(f"{offset:g}" for offset in sorted(set(offsets)))


def _offset_by_values(stored: StoredValues, level: str) -> int:
    return -1000 if OFFSET_IN_ABOVE <= stored.dark() < OFFSET_IN_BELOW[level] else 0


def _guess_offset(stored: StoredValues, level: str) -> tuple[int, list[Note]]:
    if stored.is_empty:
        return 0, []
    dark, offset = stored.dark(), _offset_by_values(stored, level)
    if offset:
        note = warning(
            "offset-guessed",
            "offset",
            f"The darkest pixels hold {dark:.0f}: the offset of processing baseline 04.00 seems to be in, "
            "and -1000 was applied; state `offset` 0 if that is wrong.",
        )
    elif dark < OFFSET_IN_ABOVE:
        note = info(
            "offset-by-values",
            "offset",
            f"Offset 0: the darkest pixels hold {dark:.0f}, less than an offset of 1,000 would leave.",
        )
    else:
        note = warning(
            "offset-assumed",
            "offset",
            f"Offset 0 was assumed, but even the darkest pixels hold {dark:.0f} (clouds, snow, desert?): "
            "state `offset` -1000 for a product of baseline 04.00 or later.",
        )
    return offset, [note]


def _atmosphere_note(card: ModelCard, encoding: PixelEncoding, sun: Sun) -> Note:
    verb = "added to" if encoding.reflectance == "l2a" else "removed from"
    if sun.zenith is None:
        angle = f"an assumed {SUN_ZENITH:.0f}°{f' ({sun.source})' if sun.source else ''}"
    else:
        angle = f"{sun.zenith:.0f}°, {sun.source},"
    found = LEVEL_NAMES[encoding.reflectance or ""]
    remedy = "; state `date` for the sun's own angle" if sun.date_would_tell else ""
    return info(
        "atmosphere-nominal",
        "date" if sun.date_would_tell else None,
        f"The model was trained on {LEVEL_NAMES[card.level]}, the scene is {found}: a nominal clear "
        f"atmosphere, the sun {angle} from the zenith, was {verb} its reflectance{remedy}.",
    )
