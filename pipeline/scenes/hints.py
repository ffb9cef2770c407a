"""What file names and tags say about Sentinel-2 pixels that lost their metadata: level, baseline, TCI or not.

Strings only.
"""

import re
from collections.abc import Iterable

_LEVEL_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:S2MSI|(?:MSI_?)?L(?:EVEL[-_ ]?)?)(1C|2A)(?![A-Za-z0-9])", re.IGNORECASE
)
_BASELINE_TOKEN = re.compile(r"(?:(?<![A-Za-z0-9])N|BASELINE\W{1,3})(0\d)[._]?(\d\d)(?!\d)", re.IGNORECASE)
_TCI_TOKEN = re.compile(r"(?<![A-Za-z0-9])TCI(?![A-Za-z0-9])", re.IGNORECASE)
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
