"""Find scale and offset of a scene's reflectance, and try them against the pixels.

What the user states comes first, then the product's metadata, tags and file names, and finally the values.
All comparisons are made in reflectance, so that it does not matter how a file stores it. A reading that makes
reflectance of the values which no ground has is replaced where another fits, else refused or warned of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import SceneError
from pipeline.notes import Note, info, warning
from pipeline.scenes.hints import baseline_in, offset_of_baseline
from pipeline.scenes.plausibility import (
    NOISE_BELOW,
    SHADOW_BELOW,
    Brightness,
    Calibration,
    Fault,
    fault_of,
    lies_below_the_air,
)
from pipeline.scenes.product import ProductFacts
from pipeline.scenes.stored_values import Numbers, StoredValues
from pipeline.values import DIGITAL_NUMBERS

TEN_THOUSANDTHS = 1 / DIGITAL_NUMBERS
PERCENT = 1 / 100
FULL_SCALE = 1 / 65_535
"""Reflectance of 0 to 1 over all numbers of 16 bits, as some services deliver it."""

OFFSET = -1000
"""Of Sentinel-2 since baseline 04.00, in ten-thousandths."""

LARGEST_OFFSET = -0.15
"""In reflectance, of those that archives remove; larger ones are part of how a sensor scales its values."""

# Reflectance in the darkest band, the offset not applied: while it is in, hardly a pixel lies below the first
# (noise, water, overcorrected shadow); a scene whose dark pixels lie above the second is bright.
OFFSET_IN_ABOVE = 0.09
OFFSET_IN_BELOW = {"l1c": 0.16, "l2a": 0.14}

TAG_IT = "tag the file with its scale (gdal_edit.py -scale)"


@dataclass(frozen=True)
class Evidence:
    """Everything that may tell how stored values become reflectance."""

    name: str
    """What to call the scene in messages."""

    bands: tuple[str, ...]
    """Sentinel-2 names of the bands, empty where they are not known."""

    stored: StoredValues
    """The pixels, and the tags of their files."""

    texts: tuple[str, ...] = ()
    """File names and tags."""

    facts: ProductFacts | None = None
    """What the product's metadata say."""

    is_product: bool = False
    """Whether the files are that product's own, so that nobody can have changed their numbers since."""

    def per_band(self, value: float) -> Numbers:
        """Return the same number for each of the bands."""
        return (float(value),) * len(self.bands)


@dataclass(frozen=True)
class Stated:
    """What the user states about a scene's reflectance."""

    level: str | None
    """Its level, l1c or l2a."""

    offset: float | None
    """Ten-thousandths of reflectance, or reflectance if it is less than 1."""

    @property
    def reflectance_offset(self) -> float | None:
        """Return the offset in reflectance."""
        if self.offset is None or abs(self.offset) < 1:
            return self.offset
        return self.offset / DIGITAL_NUMBERS


def calibrate(evidence: Evidence, level: str | None, stated: Stated) -> tuple[Calibration, list[Note]]:
    """Return how a scene's stored values become reflectance, and how that was found.

    `level` is l1c, l2a or None if it is not known yet.
    """
    scaling, notes = _find_scaling(evidence)
    if (offset := stated.reflectance_offset) is not None:
        calibration = scaling.shifted(offset)
        return calibration, [*notes, _stated_note(stated, calibration)]
    calibration, more = _find_offsets(evidence, level, scaling)
    return calibration, notes + more


# Scale


def _find_scaling(evidence: Evidence) -> tuple[Calibration, list[Note]]:
    """Return the scales and, where the file's own tags state them, the offsets that belong to them."""
    stored = evidence.stored
    declared = _declared_scaling(evidence)
    if declared is not None and not _is_impossible(evidence, declared):
        by_tags = stored.is_scaled and declared.scales == stored.scales
        return declared, [info("scale-found", None, "Scale by the file's own tags.")] if by_tags else []
    scale, notes = _scale_by_values(evidence)
    found = Calibration(evidence.per_band(scale), evidence.per_band(0))
    if declared is None:
        return _with_tagged_offsets(found, stored), notes
    if _fault(evidence, found) is not None:
        return declared, []
    text = (
        f"The scale {_listed(declared.scales)} by the file's tags or metadata is not applied, as it would "
        f"make the scene {_fault_text(evidence, declared)}: the values were taken for {_scale_text(scale)}."
    )
    return found, [warning("scale-ignored", None, text)]


def _declared_scaling(evidence: Evidence) -> Calibration | None:
    """Return what metadata or tags say; the offsets are those of the tags, which go with their scales."""
    facts, stored = evidence.facts, evidence.stored
    if facts and (evidence.is_product or not stored.is_floating):
        return Calibration(tuple(facts.scales[band] for band in evidence.bands), evidence.per_band(0))
    if stored.is_scaled:
        offsets = (offset / scale for offset, scale in zip(stored.offsets, stored.scales, strict=True))
        return Calibration(stored.scales, tuple(offsets))
    return None


def _is_impossible(evidence: Evidence, declared: Calibration) -> bool:
    """Return whether a declared scale makes of the whole scene what no ground reflects."""
    if evidence.is_product or evidence.stored.is_empty:  # nobody can have changed a product's files
        return False
    fault = _fault(evidence, declared)
    if fault is not Fault.BELOW_ZERO:
        return fault is not None
    # Water and shadow are, where too much air was taken off; an offset may have been removed already.
    mostly = bool(declared.brightness(evidence.stored).median.max() < 0)
    return mostly and not _is_removed(evidence, declared, declared.shifted(0))


def _with_tagged_offsets(scaling: Calibration, stored: StoredValues) -> Calibration:
    """Return the calibration with the offset tags of a file that has no scale tags."""
    pairs = zip(stored.offsets, scaling.scales, strict=True)
    # Less than 1 means reflectance: nobody would correct integers by that.
    return replace(
        scaling, offsets=tuple(offset / (scale if abs(offset) < 1 else 1) for offset, scale in pairs)
    )


def _scale_by_values(evidence: Evidence) -> tuple[float, list[Note]]:
    """Return the first of the usual scales that makes of the values what ground reflects."""
    stored = evidence.stored
    usual = _usual_scales(stored)
    if stored.is_empty:
        return usual[0], []
    fitting = [
        scale
        for scale in usual
        if _fault(evidence, Calibration(evidence.per_band(scale), evidence.per_band(0)))
        in (None, Fault.BELOW_ZERO)  # which is the offset's fault
    ]
    scale = fitting[0] if fitting else 1.0 if stored.is_floating and stored.high() <= 2 else TEN_THOUSANDTHS
    if scale in (PERCENT, FULL_SCALE):
        text = f"The values were taken for {_scale_text(scale)}, which alone makes them what ground reflects"
        return scale, [warning("scale-guessed", None, f"{text}: if that is wrong, {TAG_IT}.")]
    if stored.is_floating:
        text = f"Floating-point values, taken for {_scale_text(scale)} by how large they are."
        return scale, [info("scale-by-values", None, text)]
    return scale, []


def _usual_scales(stored: StoredValues) -> tuple[float, ...]:
    """Return the scales that reflectance is stored with in files of this type, the usual one first."""
    if stored.is_floating:
        whole = not stored.is_empty and stored.is_whole
        return (1.0, TEN_THOUSANDTHS) if whole else (1.0, PERCENT, TEN_THOUSANDTHS)
    return (TEN_THOUSANDTHS, FULL_SCALE) if stored.dtype == np.uint16 else (TEN_THOUSANDTHS,)


def _scale_text(scale: float) -> str:
    texts = {
        1.0: "reflectance of 0 to 1",
        PERCENT: "reflectance in percent",
        TEN_THOUSANDTHS: "reflectance x 10,000",
        FULL_SCALE: "reflectance x 65,535",
    }
    return texts.get(scale) or f"reflectance x {1 / scale:g}"


# Offset


def _stated_note(stated: Stated, calibration: Calibration) -> Note:
    plain = set(calibration.scales) == {TEN_THOUSANDTHS} or stated.offset == stated.reflectance_offset
    meaning = "" if plain else f", which is {stated.reflectance_offset:g} of reflectance"
    return info("offset-stated", "offset", f"Offset {stated.offset:g}, as stated by `offset`{meaning}.")


def _find_offsets(
    evidence: Evidence, level: str | None, scaling: Calibration
) -> tuple[Calibration, list[Note]]:
    """Return the calibration with its offsets, so that none is missing and none removed twice."""
    stored = evidence.stored
    bare = scaling.shifted(0)
    declared = _declared_offsets(evidence, scaling)
    if declared is None:
        if stored.is_empty:
            return bare, []
        return _removed_twice(evidence, bare) or _guess_offset(evidence, level, bare)
    calibration, source = declared
    if evidence.is_product or stored.is_empty or not _is_removed(evidence, calibration, bare):
        return calibration, [_applied_note(stored, calibration, source)]
    if mended := _removed_twice(evidence, bare):
        return mended
    text = (
        f"The offset {_listed(calibration.offsets)} {source} is not applied: the darkest pixels hold "
        f"{_dark_value(stored)}, so it was removed already; state `offset` {OFFSET} if that is wrong."
    )
    say = info if stored.is_floating else warning
    return bare, [say("offset-not-applied", "offset", text)]


def _applied_note(stored: StoredValues, calibration: Calibration, source: str) -> Note:
    text = f"Offset {_listed(calibration.offsets)}, {source}"
    # Who makes numbers of 0 to 1 of a product removes the offset, as a rule: bright scenes do not show it.
    if not stored.is_floating or not any(calibration.offsets) or stored.is_empty:
        return info("offset-found", "offset", f"{text}.")
    if calibration.brightness(stored).dark.min() < OFFSET_IN_BELOW["l2a"] + OFFSET / DIGITAL_NUMBERS:
        return info("offset-found", "offset", f"{text}.")
    return warning("offset-found", "offset", f"{text}: state `offset` 0 if it was removed already.")


def _declared_offsets(evidence: Evidence, scaling: Calibration) -> tuple[Calibration, str] | None:
    """Return the offsets that tags, metadata or file names declare, and which of them it was.

    Tags without an offset declare nothing: that is how GDAL writes a scale.
    """
    if any(scaling.offsets):
        return scaling, "by the file's tags"
    if facts := evidence.facts:
        baseline = f" (baseline {facts.baseline})" if facts.baseline else ""
        if missing := [band for band in evidence.bands if band not in facts.offsets]:
            raise SceneError(
                f"The metadata of {evidence.name} give an offset for some bands, but none for "
                f"{', '.join(missing)}: state `offset`, or fetch the metadata again."
            )
        offsets = tuple(
            facts.offsets[band] * (facts.scales[band] / scale)
            for band, scale in zip(evidence.bands, scaling.scales, strict=True)
        )
        return Calibration(scaling.scales, offsets), f"by the product's metadata{baseline}"
    if found := baseline_in(evidence.texts):
        offset = offset_of_baseline(found) / DIGITAL_NUMBERS
        return scaling.shifted(offset), f"as of processing baseline {found}"
    return None


def _is_removed(evidence: Evidence, declared: Calibration, bare: Calibration) -> bool:
    """Return whether an archive removed a declared offset: its values are darker than that would leave."""
    declared_offset = min(s * offset for s, offset in zip(declared.scales, declared.offsets, strict=True))
    return (
        LARGEST_OFFSET < declared_offset < 0
        and declared.brightness(evidence.stored).dark.min() < NOISE_BELOW
        and bare.brightness(evidence.stored).dark.min() < OFFSET_IN_ABOVE
        and _fault(evidence, bare) in (None, Fault.BELOW_ZERO)  # removed once, or twice
    )


def _removed_twice(evidence: Evidence, bare: Calibration) -> tuple[Calibration, list[Note]] | None:
    """Return the calibration that puts back an offset which was removed twice, None if none was."""
    stored = evidence.stored
    found = bare.brightness(stored)
    back = bare.shifted(-OFFSET / DIGITAL_NUMBERS)
    if _fault(evidence, bare) is not Fault.BELOW_ZERO:
        return None
    if back.brightness(stored).dark.min() < NOISE_BELOW:
        return None
    return back, [
        warning(
            "offset-put-back",
            "offset",
            f"The darkest pixels reflect {found.dark.min():.3f}, which no ground does: an offset seems to "
            f"have been removed twice, and {_listed(back.offsets)} was added; state `offset` 0 if that is "
            "wrong.",
        )
    ]


def _guess_offset(evidence: Evidence, level: str | None, bare: Calibration) -> tuple[Calibration, list[Note]]:
    stored = evidence.stored
    dark, held = float(bare.brightness(stored).dark.min()), _dark_value(stored)
    applied = bare.shifted(OFFSET / DIGITAL_NUMBERS)
    if dark < OFFSET_IN_ABOVE:
        usual = set(bare.scales) == {TEN_THOUSANDTHS}
        less = "an offset of 1,000" if usual else f"an offset of {-OFFSET / DIGITAL_NUMBERS:g} in reflectance"
        text = f"Offset 0: the darkest pixels hold {held}, less than {less} would leave."
        return bare, [info("offset-by-values", "offset", text)]
    if contradiction := _contradiction(evidence, level, applied):
        text = (
            f"Offset 0 was assumed: the darkest pixels hold {held}, but with an offset of 1,000 removed "
            f"{contradiction}; state `offset` {OFFSET} if that is wrong."
        )
        return bare, [warning("offset-assumed", "offset", text)]
    if dark < OFFSET_IN_BELOW[level or "l1c"]:
        text = (
            f"The darkest pixels hold {held}: the offset of processing baseline 04.00 seems to be in, and "
            f"{_listed(applied.offsets)} was applied; state `offset` 0 if that is wrong."
        )
        return applied, [warning("offset-guessed", "offset", text)]
    text = (
        f"Offset 0 was assumed, but even the darkest pixels hold {held} (clouds, snow, desert?): state "
        f"`offset` {OFFSET} for a product of baseline 04.00 or later. If the values are not "
        f"{_scale_text(bare.scales[0])}, {TAG_IT}."
    )
    return bare, [warning("offset-assumed", "offset", text)]


def _contradiction(evidence: Evidence, level: str | None, applied: Calibration) -> str | None:
    """Return why a scene cannot be what it would be with the offset removed, None if it can."""
    if level == "l1c" and lies_below_the_air(applied.brightness(evidence.stored), evidence.bands):
        return "they would be darker than the air in front of them"
    if _fault(evidence, applied) in (Fault.TOO_DARK, Fault.BELOW_ZERO):
        return f"the scene would be {_fault_text(evidence, applied)}"
    return None


def _dark_value(stored: StoredValues) -> str:
    """Return the stored value of the darkest pixels."""
    return f"{float(stored.levels[0].min()):.4g}"


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in sorted(set(numbers)))


# The last check


def check_reflectance(evidence: Evidence, level: str, calibration: Calibration, stated: Stated) -> list[Note]:
    """Return warnings of reflectance that no ground has, whichever way its encoding was found.

    Raises SceneError where the whole scene has it, unless the user states the level or offset to blame.
    """
    stored, name = evidence.stored, evidence.name
    as_declared = evidence.is_product and stated.offset is None
    if as_declared or stored.is_empty:  # nobody can have changed a product's own files
        return []
    found = calibration.brightness(stored)
    fault = _fault(evidence, calibration)
    if fault is Fault.BELOW_ZERO or found.dark.min() < SHADOW_BELOW:
        return [_below_zero(name, found, stated)]
    if fault in (Fault.TOO_DARK, Fault.TOO_BRIGHT):
        text = f"As {_listed_scales(calibration)}, {name} is {_fault_text(evidence, calibration)}: {TAG_IT}"
        if stated.level is None:
            raise SceneError(f"{text}, or state `level` to use it all the same.")
        return [
            warning("values-implausible", "level", f"{text}. It is used all the same, as you state `level`.")
        ]
    return _doubts(evidence, level, calibration, found, fault)


def _below_zero(name: str, found: Brightness, stated: Stated) -> Note:
    text = f"the darkest pixels reflect {found.dark.min():.3f}, which no ground does"
    if stated.offset is not None:
        remedy = "state another, or leave it out to have it found"
        return warning("values-implausible", "offset", f"With `offset` {stated.offset:g} {text}: {remedy}.")
    remedy = "declare the value of missing pixels (gdal_edit.py -a_nodata), or state `offset`"
    if found.median.max() < 0:
        raise SceneError(f"{name} cannot be read as reflectance, since {text}: {remedy}.")
    return warning("values-implausible", "offset", f"In {name} {text}: if there are many, {remedy}.")


def _doubts(
    evidence: Evidence, level: str, calibration: Calibration, found: Brightness, fault: Fault | None
) -> list[Note]:
    stored, bands = evidence.stored, evidence.bands
    notes = []
    if fault is Fault.COLORED:
        text = f"The scene is {_fault_text(evidence, calibration)}: check `bands`, or {TAG_IT}."
        notes.append(warning("values-implausible", "bands", text))
    if level == "l1c" and lies_below_the_air(found, bands):
        text = (
            f"The darkest pixels reflect {found.dark.min():.3f}, less than the air in front of them in a "
            "Level-1C scene: if this is surface reflectance, state `level` l2a."
        )
        notes.append(warning("level-doubtful", "level", text))
    if looks_like_8_bit(stored, calibration):
        text = (
            f"Reflectance of {found.high.max():.3f} at most is that of open water: if the values are 8-bit "
            "colours, state `level` rgb8."
        )
        notes.append(warning("values-dark", "level", text))
    return notes


def looks_like_8_bit(stored: StoredValues, calibration: Calibration) -> bool:
    """Return whether a file of more bits may hold 8-bit colours: no value is above 255."""
    plain = set(calibration.scales) == {TEN_THOUSANDTHS} and not any(calibration.offsets)
    return plain and stored.high() <= 255


def _fault(evidence: Evidence, calibration: Calibration) -> Fault | None:
    return fault_of(calibration, evidence.stored, evidence.bands)


def _fault_text(evidence: Evidence, calibration: Calibration) -> str:
    """Say what is impossible about a reading."""
    found, fault = calibration.brightness(evidence.stored), _fault(evidence, calibration)
    if fault is Fault.BELOW_ZERO:
        return f"{fault.value} (reflectance {found.dark.min():.3g})"
    return f"{fault.value if fault else ''} (reflectance {found.high.max():.2g})"


def _listed_scales(calibration: Calibration) -> str:
    return " and ".join(_scale_text(scale) for scale in sorted(set(calibration.scales)))
