"""Where the sun stood: by metadata, or by time and place, and what is said about it."""

from datetime import UTC, date, datetime

import pytest

from pipeline.errors import UsageError
from pipeline.options import SceneOptions
from pipeline.scenes.hints import date_in, time_in
from pipeline.scenes.scene import open_scene
from pipeline.scenes.sun import overpass, parse_date, sun_zenith
from tests.support.cards import RGB_CARD
from tests.support.scenes import RGB_BY_POSITION, note_texts, open_named, reflectances

OCTOBER = "MY_L2A_20171017T101030_T33.tif"


@pytest.mark.parametrize(
    ("moment", "longitude", "latitude", "zenith"),
    [
        # Reda and Andreas (2004), Solar Position Algorithm, NREL/TP-560-34302, table A5.1: the elevation
        # without refraction is 39.872046 degrees.
        (datetime(2003, 10, 17, 19, 30, 30, tzinfo=UTC), -105.1786, 39.742476, 50.128),
        # Equinox and solstices by almanac, in UTC: the sun is over the equator and over the tropics, and the
        # equation of time is -7.4, -1.8 and +2.1 minutes at noon in Greenwich.
        (datetime(2024, 3, 20, 12, 7, 24, tzinfo=UTC), 0, 0, 0.15),
        (datetime(2024, 6, 20, 12, 1, 48, tzinfo=UTC), 0, 50, 50 - 23.436),
        (datetime(2024, 12, 21, 11, 58, 0, tzinfo=UTC), 0, 50, 50 + 23.437),
        # The zenith of a pole is the sun's declination's complement at any hour.
        (datetime(2024, 6, 20, 3, tzinfo=UTC), 77, 90, 90 - 23.436),
        (datetime(2024, 6, 20, 3, tzinfo=UTC), 77, -90, 90 + 23.436),
    ],
)  # fmt: skip
def test_the_sun_stands_where_the_almanac_says(moment, longitude, latitude, zenith):
    assert sun_zenith(moment, longitude, latitude) == pytest.approx(zenith, abs=0.1)


def test_the_overpass_is_at_half_past_ten_by_the_sun():
    assert overpass(date(2017, 6, 13), 0) == datetime(2017, 6, 13, 10, 30, tzinfo=UTC)
    assert overpass(date(2017, 6, 13), -45) == datetime(2017, 6, 13, 13, 30, tzinfo=UTC)
    assert overpass(date(2017, 6, 13), 178) == datetime(2017, 6, 12, 22, 38, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("S2A_MSIL1C_20190411T105021_N0207_R051_T31UFU_20190411T130806", datetime(2019, 4, 11, 10, 50, 21)),
        ("S2A_OPER_MSIL1C_PDMC_20160101T200000_R022_V20151230T101010", datetime(2015, 12, 30, 10, 10, 10)),
        ("ben1__20180525T94030_55_30.tif", datetime(2018, 5, 25, 9, 40, 30)),
        ("ACQUISITION=2017-06-13T10:10:31.026Z", datetime(2017, 6, 13, 10, 10, 31)),
        ("ACQUISITION=2017-06-13 12:10:31+02:00", datetime(2017, 6, 13, 10, 10, 31)),
        ("20171399T101031", None),
        ("T33UUP_33_69", None),
        ("scene_20170613.tif", None),
    ],
)  # fmt: skip
def test_times_in_names_and_tags(text, moment):
    assert time_in(["nothing", text]) == (moment and moment.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("ben2_20170613_T33UUP_33_69", date(2017, 6, 13)),
        ("TIFFTAG_DATETIME=2017:06:13 10:10:31", date(2017, 6, 13)),
        ("scene-2017-06-13", date(2017, 6, 13)),
        ("10300112_20170613", date(2017, 6, 13)),
        ("20171313", None),
        ("120170613", None),
        ("2017-0613", None),
    ],
)
def test_dates_in_names_and_tags(text, day):
    assert date_in([text]) == day


def l2a(write_raster, name="mine_l2a.tif", tags=None, date=None):
    return open_named(write_raster, reflectances(), name, tags, date=date, level="l2a")


@pytest.mark.parametrize(
    ("name", "tags", "stated", "said"),
    [
        (OCTOBER, None, None, "58°, at 2017-10-17 10:10 UTC, by file name or tags,"),
        ("a.tif", {"ACQUISITION_DATE": "2017-10-17T10:10:30Z"}, None, "58°, at 2017-10-17 10:10 UTC, by the"),
        ("a_20171017.tif", None, None, "°, at 10:30 solar time on 2017-10-17, by file name,"),
        ("a.tif", {"TIFFTAG_DATETIME": "2017:10:17 23:00:00"}, None, "on 2017-10-17, by the file's tags,"),
        (OCTOBER, None, "2017-06-13", "°, at 10:30 solar time on 2017-06-13, by `date`,"),
        (OCTOBER, None, "2017-06-13T10:10:31+00:00", "°, at 2017-06-13 10:10 UTC, by `date`,"),
        ("a.tif", None, None, "an assumed 40° from the zenith, was added to its reflectance; state `date`"),
        ("a_20171017T230000.tif", None, None, "40° (at 2017-10-17 23:00 UTC, by file name or tags, it was"),
        ("a.tif", {"CREATION_DATE": "2017-10-17T10:10:30Z"}, None, "assumed 40°"),
    ],
)  # fmt: skip
def test_it_is_said_where_the_sun_stood_and_what_told_so(write_raster, name, tags, stated, said):
    assert said in note_texts(l2a(write_raster, name, tags, stated), "info")


def test_a_lower_sun_brightens_the_air(write_raster):
    summer, winter = (l2a(write_raster, date=day) for day in ("2017-06-13", "2017-12-13"))
    assert summer.encoding.sun_zenith < 40 < winter.encoding.sun_zenith
    assert winter.pixel_transform.bias[2] > summer.pixel_transform.bias[2]


def test_without_a_place_the_sun_is_not_known(write_raster):
    path = write_raster(reflectances(), "a_l2a_20170613.tif", crs=None, transform=None)
    scene = open_scene(path, RGB_CARD, SceneOptions(bands=RGB_BY_POSITION, assume_gsd=10, level="l2a"))
    assert scene.place is None
    assert scene.encoding.sun_zenith is None
    assert "state `date`" not in note_texts(scene, "info")


@pytest.mark.parametrize("text", ["yesterday", "2017-13-01", "13.06.2017", "", "2017-06-13T25:00"])
def test_what_is_no_date_is_refused_with_an_example(write_raster, text):
    with pytest.raises(UsageError, match=r"`date` is a date such as 2017-06-13 or .*, not"):
        l2a(write_raster, date=text)


def test_a_time_without_a_zone_is_utc():
    assert parse_date("2017-06-13T10:10") == datetime(2017, 6, 13, 10, 10, tzinfo=UTC)
    assert parse_date("20170613") == date(2017, 6, 13)
