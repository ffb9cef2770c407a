"""What file names and tags say about Sentinel-2 pixels that lost their metadata: level, baseline, TCI, time.

Strings only.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime

_LEVEL_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:S2MSI|(?:MSI_?)?L(?:EVEL[-_ ]?)?)(1C|2A)(?![A-Za-z0-9])", re.IGNORECASE
)
_BASELINE_TOKEN = re.compile(r"(?:(?<![A-Za-z0-9])N|BASELINE\W{1,3})(0\d)[._]?(\d\d)(?!\d)", re.IGNORECASE)
_TCI_TOKEN = re.compile(r"(?<![A-Za-z0-9])TCI(?![A-Za-z0-9])", re.IGNORECASE)
# Product names give the sensing time first, except for the oldest, which have it after a V. Some of
# BigEarthNet's lack the hour's leading zero.
_NAMED_TIMES = tuple(
    re.compile(rf"(?<![A-Za-z0-9]){prefix}(\d{{8}})T(\d{{5,6}})(?!\d)") for prefix in ("V", "")
)
_ISO_TIME = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:\.\d+)?\s?(Z|UTC|[+-]\d\d:?\d\d)?")
_DATE = re.compile(r"(?<!\d)(\d{4})([-_:]?)(\d\d)\2(\d\d)(?!\d)")
_FIRST_YEAR, _LAST_YEAR = 1972, 2099  # since Landsat 1; other digits are not a date
_TCI_FILE = re.compile(r"T\d\d[A-Z]{3}_\d{8}T\d{6}_TCI(_[126]0m)?")


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


def offset_of_baseline(baseline: str) -> int:
    """Return what is added to stored values: since baseline 04.00 reflectance is stored 1,000 higher."""
    return -1000 if tuple(int(part) for part in baseline.split(".")[:2]) >= (4, 0) else 0


def names_true_color(text: str) -> bool:
    """Return whether a file name is that of ESA's true-colour image."""
    return bool(_TCI_TOKEN.search(text))


def true_color_level_in(texts: Iterable[str]) -> str | None:
    """Return the level of the product whose true-colour image one of the texts, a file name, stands for.

    L2A products name the resolution of every image, L1C products never do.
    """
    for text in texts:
        if match := _TCI_FILE.search(text):
            return "l2a" if match[1] else "l1c"
    return None


def time_in(texts: Iterable[str]) -> datetime | None:
    """Return the time, in UTC where no zone is named, that one of the texts holds; the first one that does.

    Such as 20170613T101031 or 2017-06-13T10:10:31Z.
    """
    return next((moment for text in texts if (moment := _time_in(text))), None)


def date_in(texts: Iterable[str]) -> date | None:
    """Return the date that one of the texts (file names, tags) holds, such as 20170613 or 2017-06-13."""
    for text in texts:
        for year, _, month, day in _DATE.findall(text):
            if _FIRST_YEAR <= int(year) <= _LAST_YEAR and (found := _valid_date(year, month, day)):
                return found
    return None


def _time_in(text: str) -> datetime | None:
    for pattern in _NAMED_TIMES:
        if match := pattern.search(text):
            try:
                moment = datetime.strptime(f"{match[1]}{match[2]:0>6}", "%Y%m%d%H%M%S")
            except ValueError:
                continue
            return moment.replace(tzinfo=UTC)
    if match := _ISO_TIME.search(text):
        try:
            return datetime.fromisoformat(match[1] + (match[2] or "Z").replace("UTC", "Z")).astimezone(UTC)
        except ValueError:
            return None
    return None


def _valid_date(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None
