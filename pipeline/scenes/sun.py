"""Where the sun stood when a scene was taken: its angle from the zenith, and what told the time.

The metadata's own angle is used if there is one. Otherwise the angle follows from place and time, and the
time is looked for in this order: what the user states, the product's metadata, file names, tags.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import acos, asin, atan2, cos, degrees, radians, sin

from pipeline.errors import UsageError
from pipeline.scenes.bands import Imagery
from pipeline.scenes.ground import LonLat
from pipeline.scenes.hints import date_in, time_in

OVERPASS = timedelta(hours=10, minutes=30)
"""The local solar time at which Sentinel-2 crosses the equator: taken where only a date is known."""

HORIZON = 90.0  # degrees from the zenith
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
DAYS_A_CENTURY = 36525.0


@dataclass(frozen=True)
class Sun:
    """The sun over a scene."""

    zenith: float | None = None
    """Its angle from the zenith in degrees; None if it is not known."""

    source: str = ""
    """What told the angle, or why it is not known; empty if nothing is known about it."""

    date_would_tell: bool = False
    """Whether the angle could be computed if the date were known."""


UNKNOWN_SUN = Sun()
"""The sun over a scene of unknown place."""


def find_sun(imagery: Imagery, place: LonLat | None, stated: str | None = None) -> Sun:
    """Return the sun over a scene at a place; `stated` is the user's `date`.

    Raises:
        UsageError: `stated` is neither a date nor a time.
    """
    moment = None if stated is None else (parse_date(stated), "by `date`")
    if imagery.facts and imagery.facts.sun_zenith is not None:
        return Sun(imagery.facts.sun_zenith, "by the granule's metadata")
    if place is None:
        return UNKNOWN_SUN
    moment = moment or _found_moment(imagery)
    if moment is None:
        return Sun(date_would_tell=True)
    when, source = moment
    if isinstance(when, datetime):
        utc, told = when, f"at {when.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {source}"
    else:
        utc, told = overpass(when, place[0]), f"at 10:30 solar time on {when:%Y-%m-%d}, {source}"
    zenith = sun_zenith(utc, *place)
    if zenith >= HORIZON:
        return Sun(None, f"{told}, it was below the horizon", date_would_tell=True)
    return Sun(zenith, told)


def parse_date(text: str) -> date:
    """Return the date, or the datetime with its time zone, that a user states; UTC if no zone is named.

    Raises:
        UsageError: it is neither.
    """
    try:
        if len(text) <= len("2017-06-13"):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"`date` is a date such as 2017-06-13 or a time such as 2017-06-13T10:10:31Z, not '{text}'."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def overpass(day: date, longitude: float) -> datetime:
    """Return when the local mean solar time at a longitude in degrees is 10:30 on a day, in UTC."""
    return datetime.combine(day, time(), tzinfo=UTC) + OVERPASS - timedelta(hours=longitude / 15)


def sun_zenith(moment: datetime, longitude: float, latitude: float) -> float:
    """Return the sun's angle from the zenith in degrees, without refraction, at a place in degrees.

    The low-precision position of Meeus (Astronomical Algorithms, 2nd ed. 1998, ch. 25) as in NOAA's solar
    calculator (https://gml.noaa.gov/grad/solcalc/calcdetails.html); its error is about 0.01 degrees. The
    hour angle comes from Greenwich's sidereal time (Meeus, eq. 12.4), which makes the equation of time.
    """
    days = (moment - J2000) / timedelta(days=1)
    century = days / DAYS_A_CENTURY
    mean_longitude = 280.46646 + century * (36000.76983 + century * 0.0003032)
    anomaly = radians(357.52911 + century * (35999.05029 - century * 0.0001537))
    center = (
        (1.914602 - century * (0.004817 + century * 0.000014)) * sin(anomaly)
        + (0.019993 - century * 0.000101) * sin(2 * anomaly)
        + 0.000289 * sin(3 * anomaly)
    )
    node = radians(125.04 - 1934.136 * century)
    apparent = radians(mean_longitude + center - 0.00569 - 0.00478 * sin(node))
    obliquity = radians(23.4392911 - 0.0130042 * century + 0.00256 * cos(node))
    declination = asin(sin(obliquity) * sin(apparent))
    ascension = atan2(cos(obliquity) * sin(apparent), cos(apparent))
    sidereal = radians(280.46061837 + 360.98564736629 * days + longitude)
    north, hour_angle = radians(latitude), sidereal - ascension
    height = sin(north) * sin(declination) + cos(north) * cos(declination) * cos(hour_angle)
    return degrees(acos(min(1.0, max(-1.0, height))))


def _found_moment(imagery: Imagery) -> tuple[date, str] | None:
    """Return the time, or else the date, that a scene's metadata, names or tags tell, and which of them."""
    if imagery.facts and imagery.facts.acquired:
        return imagery.facts.acquired, "by the product's metadata"
    found = (
        (time_in(imagery.texts), "by file name or tags"),
        (time_in(imagery.date_tags), "by the file's tags"),
        (date_in([imagery.name]), "by file name"),
        (date_in(imagery.date_tags), "by the file's tags"),
    )
    return next(((when, source) for when, source in found if when), None)
