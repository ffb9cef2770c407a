"""Bands: each one that the model needs is found in files and folders of every kind, or named as missing."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from scipy.io import netcdf_file

from pipeline.errors import SceneError, UsageError
from pipeline.options import SceneOptions
from pipeline.scenes.scene import open_scene
from tests.support.cards import RGB_CARD
from tests.support.safe import metadata_xml
from tests.support.scenes import (
    MULTI_CARD,
    RGB_BY_POSITION,
    note_texts,
    read_all,
    reflectances,
)


@pytest.mark.parametrize(
    "descriptions",
    [
        ("B02", "B03", "B04", "B08"),
        ("B2", "B3", "B4", "B8"),
        ("blue", "green", "red", "nir"),
        ("Blue", "GREEN", "Red (665 nm)", "NIR"),
        ("B2, central wavelength 490 nm", "B3, central wavelength 560 nm", "B4 (665)", "B8A"),
        ("T33UVP_B02_10m", "T33UVP_B03_10m", "T33UVP_B04_10m", "red edge 1"),
    ],
)
def test_bands_are_found_by_description(write_raster, descriptions):
    pixels = reflectances(bands=4)
    scene = open_scene(write_raster(pixels, "a_L1C.tif", descriptions=descriptions), RGB_CARD)
    assert (read_all(scene)[0] == pixels[[2, 1, 0]]).all()
    assert "red=3, green=2, blue=1" in note_texts(scene, "info")


def test_what_the_user_states_beats_descriptions(write_raster):
    pixels = reflectances(bands=4)
    path = write_raster(pixels, "a_L1C.tif", descriptions=("B02", "B03", "B04", "B08"))
    scene = open_scene(path, RGB_CARD, SceneOptions(bands=(("red", 4), ("B3", 1))))
    assert (read_all(scene)[0] == pixels[[3, 0, 0]]).all()


def test_bands_are_found_by_colour_interpretation(write_raster):
    path = write_raster(reflectances(bands=4), "a_L1C.tif")
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    assert [layer.indexes for layer in open_scene(path, RGB_CARD).layers] == [(3, 2, 1)]


def test_three_unnamed_8_bit_bands_are_red_green_blue(write_raster):
    path = write_raster(reflectances().astype(np.uint8), photometric="MINISBLACK")
    scene = open_scene(path, RGB_CARD)
    assert scene.layers[0].indexes == (1, 2, 3)
    assert "not named" in note_texts(scene, "info")
    assert scene.encoding.level == "rgb8"
    assert "`level` tci" in note_texts(scene, "warning")


@pytest.mark.parametrize("count", [3, 8, 12, 13])
def test_unnamed_16_bit_bands_are_never_guessed(write_raster, count):
    with pytest.raises(SceneError, match=r"none of which is named.*`bands` red=N,green=N,blue=N"):
        open_scene(write_raster(reflectances(bands=count)), RGB_CARD)


def test_a_band_named_twice_is_an_error_until_it_is_stated(write_raster):
    path = write_raster(reflectances(bands=4), "a_L1C.tif", descriptions=("B04", "B03", "B02", "B04"))
    with pytest.raises(SceneError, match=r"B04 more than once \(bands 1 and 4\).*`bands` red=N"):
        open_scene(path, RGB_CARD)
    assert open_scene(path, RGB_CARD, SceneOptions(bands=(("red", 4),))).layers[0].indexes == (4, 2, 3)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ((("red", 9),), "has the bands 1 to 3"),
        ((("purple", 1),), "no Sentinel-2 band"),
        ((("red", 1), ("B04", 2)), "names red twice"),
    ],
)
def test_stated_bands_that_make_no_sense_are_refused(write_raster, bands, message):
    with pytest.raises(UsageError, match=message):
        open_scene(write_raster(reflectances()), RGB_CARD, SceneOptions(bands=bands))


def test_too_few_bands_are_listed(write_raster):
    path = write_raster(reflectances(bands=2), descriptions=("B04", "B03"))
    with pytest.raises(SceneError, match=r"2 bands \(B04, B03\).*needs 3: B04, B03, B02"):
        open_scene(path, RGB_CARD)


@pytest.fixture
def band_folder(write_raster, tmp_path):
    """Write B02, B03, B04 of one scene and return (folder, pixels in the order B04, B03, B02)."""
    pixels = reflectances()
    for i, band in enumerate(("B04", "B03", "B02")):
        write_raster(pixels[i : i + 1], f"set/x_l1c_20200101_{band}.tif")
    return tmp_path / "set", pixels


def test_a_folder_of_band_files(band_folder):
    folder, pixels = band_folder
    scene = open_scene(folder, RGB_CARD)
    assert scene.name == "x_l1c_20200101"
    assert scene.encoding.level == "l1c"
    assert len(scene.files) == 3
    assert (read_all(scene)[0] == pixels).all()


def test_one_file_of_a_set_points_to_its_folder(band_folder):
    with pytest.raises(SceneError, match=r"is a single band.*give the folder .*set\b"):
        open_scene(band_folder[0] / "x_l1c_20200101_B02.tif", RGB_CARD)


def test_two_sets_in_one_folder_are_named(band_folder, write_raster):
    for band in RGB_CARD.bands:
        write_raster(reflectances()[:1], f"set/other_{band}.tif")
    with pytest.raises(SceneError, match=r"2 scenes \(other, x_l1c_20200101\)"):
        open_scene(band_folder[0], RGB_CARD)


def test_a_folder_that_lacks_a_band_says_what_it_has(band_folder):
    (band_folder[0] / "x_l1c_20200101_B03.tif").unlink()
    with pytest.raises(SceneError, match=r"x_l1c_20200101: B02, B04"):
        open_scene(band_folder[0], RGB_CARD)


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: p / "MTD_MSIL2A.xml"], ids=["folder", "metadata"])
def test_loose_band_files_beside_their_products_metadata(band_folder, wrap):
    folder, pixels = band_folder
    (folder / "MTD_MSIL2A.xml").write_text(metadata_xml("l2a", offset=-100))
    scene = open_scene(wrap(folder), RGB_CARD)
    assert (scene.name, scene.encoding.level) == ("x_l1c_20200101", "l2a")
    assert (read_all(scene)[0] == pixels).all()


def test_stated_bands_make_no_sense_for_a_folder(band_folder):
    with pytest.raises(UsageError, match="leave `bands` out"):
        open_scene(band_folder[0], RGB_CARD, SceneOptions(bands=RGB_BY_POSITION))


def test_files_named_by_colour_and_a_scene_classification(write_raster, tmp_path):
    pixels = reflectances()
    for i, colour in enumerate(("red", "green", "blue")):
        write_raster(pixels[i : i + 1], f"S2A_L2A/{colour}.tif")
    classes = np.full((1, 35, 40), 4, np.uint8)
    classes[0, :5, :5] = 9
    write_raster(classes, "S2A_L2A/SCL.tif", transform=from_origin(399_960, 5_300_040, 20, 20))
    scene = open_scene(tmp_path / "S2A_L2A", RGB_CARD)
    assert (scene.name, scene.encoding.level) == ("S2A_L2A", "l2a")
    valid = read_all(scene)[1]
    assert not valid[:10, :10].any()
    assert valid.sum() == valid.size - 100


def test_coarser_bands_come_onto_the_finest_bands_grid(write_raster, tmp_path):
    write_raster(reflectances(60, 60)[:1], "set/L1C_B02.tif")
    write_raster(
        np.full((1, 30, 30), 500, np.uint16),
        "set/L1C_B05.tif",
        transform=from_origin(399_960, 5_300_040, 20, 20),
    )
    write_raster(
        np.full((1, 10, 10), 700, np.uint16),
        "set/L1C_B09.tif",
        transform=from_origin(399_960, 5_300_040, 60, 60),
    )
    scene = open_scene(tmp_path / "set", MULTI_CARD)
    pixels, valid = read_all(scene)
    assert (scene.width, scene.height, scene.resampling) == (60, 60, None)
    assert (pixels[0] == reflectances(60, 60)[0]).all()
    assert (pixels[1] == 500).all()
    assert (pixels[2] == 700).all()
    assert valid.all()


def test_a_real_folder_of_band_files(scenes):
    scene = open_scene(scenes, RGB_CARD)
    assert (scene.name, scene.encoding.level) == ("mol_l1c_20190411", "l1c")
    assert (scene.width, scene.height) == (512, 1024)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SceneError, match="There is no file or folder"):
        open_scene(tmp_path / "absent.tif", RGB_CARD)


def test_a_file_that_is_no_raster_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("hello")
    with pytest.raises(SceneError, match="cannot be opened as a raster image"):
        open_scene(tmp_path / "a.tif", RGB_CARD)


def test_an_empty_folder_has_no_bands(tmp_path):
    with pytest.raises(SceneError, match="none at all"):
        open_scene(tmp_path, RGB_CARD)


def test_complex_numbers_are_refused(write_raster):
    with pytest.raises(SceneError, match="complex"):
        open_scene(write_raster(np.ones((3, 9, 9), np.complex64)), RGB_CARD)


def test_a_colour_table_is_refused(write_raster):
    path = write_raster(np.ones((1, 9, 9), np.uint8), photometric="PALETTE")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {1: (9, 9, 9, 255)})
    with pytest.raises(SceneError, match=r"colour table.*-expand rgb"):
        open_scene(path, RGB_CARD)


def test_a_single_band_is_too_few(write_raster):
    with pytest.raises(SceneError, match="has a single band and the model needs B04, B03, B02"):
        open_scene(write_raster(reflectances(bands=1)), RGB_CARD)


def write_netcdf(path, names=("B02", "B03", "B04"), shape=(70, 80)):
    """Write a variable for each band, as openEO does, that is 300, 600 ... everywhere."""
    with netcdf_file(path, "w") as file:
        for name, values in (
            ("y", 5_300_035 - 10.0 * np.arange(shape[0])),
            ("x", 399_965 + 10.0 * np.arange(shape[1])),
        ):
            file.createDimension(name, len(values))
            axis = file.createVariable(name, "d", (name,))
            axis[:] = values
            axis.units, axis.standard_name = b"m", f"projection_{name}_coordinate".encode()
        crs = file.createVariable("crs", "i", ())
        crs.crs_wkt = crs.spatial_ref = CRS.from_epsg(32633).to_wkt().encode()
        for i, name in enumerate(names, start=1):
            band = file.createVariable(name, "h", ("y", "x"))
            band[:] = np.full(shape, 300 * i, np.int16)
            band.grid_mapping = b"crs"
    return path


def test_bands_that_are_a_netcdf_variable_each(tmp_path):
    scene = open_scene(write_netcdf(tmp_path / "x_L2A.nc"), RGB_CARD)
    assert (scene.name, scene.encoding.level, scene.crs.to_epsg()) == ("x_L2A", "l2a", 32633)
    assert read_all(scene)[0][:, 5, 5].tolist() == [900, 600, 300]
    assert [file.name for file in scene.files] == ["x_L2A.nc"]


def test_netcdf_variables_that_are_no_bands_are_put_into_one_file(tmp_path):
    path = write_netcdf(tmp_path / "x_L2A.nc", ("first", "second", "third"))
    with pytest.raises(SceneError, match=r"one band each \(first, second, third\).*gdalbuildvrt -separate"):
        open_scene(path, RGB_CARD)
    with rasterio.open(path) as container:
        inner = container.subdatasets
    with pytest.raises(SceneError, match=r"single band .* gdalbuildvrt -separate"):
        open_scene(inner[0], RGB_CARD)
    sources = "".join(
        f'<VRTRasterBand dataType="Int16" band="{i}"><SimpleSource><SourceFilename>{name}</SourceFilename>'
        "</SimpleSource></VRTRasterBand>"
        for i, name in enumerate(inner, start=1)
    )  # as gdalbuildvrt -separate writes it
    (tmp_path / "stack_L2A.vrt").write_text(
        f'<VRTDataset rasterXSize="80" rasterYSize="70"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>399960, 10, 0, 5300040, 0, -10</GeoTransform>{sources}</VRTDataset>"
    )
    scene = open_scene(tmp_path / "stack_L2A.vrt", RGB_CARD, STATED)
    assert read_all(scene)[0][:, 5, 5].tolist() == [900, 600, 300]


def test_an_address_that_lost_a_slash_is_told_whole():
    with pytest.raises(SceneError, match=r"lost a slash of an address: write http://host/a\.tif"):
        open_scene(Path("http://host/a.tif"), RGB_CARD)


RUNNING = ("B1", "B2", "B3", "B4")
STATED = SceneOptions(bands=(("red", 3), ("green", 2), ("blue", 1)))


@pytest.mark.parametrize(
    ("descriptions", "name"),
    [
        (RUNNING, "planet.tif"),
        (("B01", "B02", "B03", "B04"), "own.tif"),
        (("Band B1", "Band B2", "Band B3", "Band B4", "Band B5", "Band B7"), "tm.tif"),
        (tuple(f"B{i}" for i in range(1, 12)), "eleven.tif"),
    ],
)
def test_a_running_number_is_no_band_until_it_is_stated(write_raster, descriptions, name):
    pixels = reflectances(bands=len(descriptions))
    path = write_raster(pixels, name, descriptions=descriptions)
    with pytest.raises(SceneError, match=r"only counts its bands \(B01, .*`bands` red=N,green=N,blue=N"):
        open_scene(path, RGB_CARD)
    scene = open_scene(path, RGB_CARD, STATED)
    assert (read_all(scene)[0] == pixels[[2, 1, 0]]).all()


@pytest.mark.parametrize(
    ("descriptions", "name", "tags"),
    [
        (RUNNING, "S2A_MSIL1C_20230105.tif", {}),
        (RUNNING, "T33UVP_20230105.tif", {}),
        (RUNNING, "sentinel-2/cut.tif", {}),
        (RUNNING, "cut.tif", {"PROCESSING_BASELINE": "04.00"}),
        (RUNNING, "cut.tif", {"PLATFORM": "Sentinel-2B"}),
        (("B1", "B2 (blue)", "B3 (green)", "B4 (red)"), "cut.tif", {}),
        (("B1, 443 nm", "B2, 492.4 nm", "B3, 560 nm", "B4, 665 nm"), "cut.tif", {}),
        (tuple(f"B{i:02d}" for i in range(1, 13)), "cut.tif", {}),
        (tuple(f"B{i}" for i in range(1, 14)), "cut.tif", {}),
        (("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A"), "cut.tif", {}),
    ],
)
def test_numbers_are_bands_where_something_says_sentinel_2(write_raster, descriptions, name, tags):
    path = write_raster(reflectances(bands=len(descriptions)), name, descriptions=descriptions, tags=tags)
    assert open_scene(path, RGB_CARD).layers[0].indexes == (4, 3, 2)


@pytest.mark.parametrize(
    ("descriptions", "indexes"),
    [
        (("B04", "B03", "B02"), (1, 2, 3)),
        (("B8", "B4", "B3", "B2"), (2, 3, 4)),
        (("B2", "B3", "B4"), (3, 2, 1)),
    ],
)
def test_numbers_that_are_no_positions_are_bands(write_raster, descriptions, indexes):
    pixels = reflectances(bands=len(descriptions))
    assert open_scene(write_raster(pixels, descriptions=descriptions), RGB_CARD).layers[0].indexes == indexes


@pytest.mark.parametrize(
    ("descriptions", "name", "tags", "sensor"),
    [
        (RUNNING, "20220117_104343_3B_AnalyticMS_SR.tif", {}, "PlanetScope"),
        (("B2", "B3", "B4", "B5"), "LC08_L2SP_193026_20200801.tif", {}, "Landsat 8 or 9 .*4, 3 and 2"),
        (RUNNING, "LE07_L1TP_193026.tif", {}, "Landsat 7 .*3, 2 and 1"),
        (RUNNING, "x.tif", {"SPACECRAFT_ID": "LANDSAT_5"}, "Landsat 4 or 5"),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4"), "export.tif", {}, "Landsat scene"),
        (("B02", "B03", "B04", "B05"), "S2/HLS.L30.T33UVP.2020214T100021.v2.0.tif", {}, "Landsat 8 or 9"),
    ],
)
def test_another_sensors_numbers_are_no_bands(write_raster, descriptions, name, tags, sensor):
    path = write_raster(reflectances(bands=4), name, descriptions=descriptions, tags=tags)
    with pytest.raises(SceneError, match=rf"looks like a {sensor}.*`bands` red=N,green=N,blue=N"):
        open_scene(path, RGB_CARD)
    scene = open_scene(path, RGB_CARD, STATED)
    assert scene.layers[0].indexes == (3, 2, 1)
    assert "trained on Sentinel-2" in note_texts(scene, "warning")


def test_hls_of_sentinel_2_is_sentinel_2(write_raster):
    path = write_raster(reflectances(bands=4), "HLS.S30.T33UVP.2020214.v2.0.tif", descriptions=RUNNING)
    assert open_scene(path, RGB_CARD).layers[0].indexes == (4, 3, 2)


def test_colours_count_more_than_numbers(write_raster):
    names = ("B1 (blue)", "B2 (green)", "B3 (red)", "B4 (nir)")
    scene = open_scene(write_raster(reflectances(bands=4), descriptions=names), RGB_CARD)
    assert scene.layers[0].indexes == (3, 2, 1)


def test_files_of_another_sensor_are_renamed_by_colour(write_raster, tmp_path):
    for number in range(1, 5):
        write_raster(reflectances(dark=100 * number)[:1], f"s/LE07_L1TP_193026_B{number}.tif")
    with pytest.raises(SceneError, match=r"Landsat 7 numbers red, green and blue 3, 2 and 1.*s_red\.tif"):
        open_scene(tmp_path / "s", RGB_CARD)
    for number, color in ((3, "red"), (2, "green"), (1, "blue")):
        (tmp_path / f"s/LE07_L1TP_193026_B{number}.tif").rename(tmp_path / f"s/s_{color}.tif")
    assert (read_all(open_scene(tmp_path / "s", RGB_CARD))[0][0] == reflectances(dark=300)[0]).all()


def test_files_that_are_only_counted_are_renamed_by_colour(write_raster, tmp_path):
    for number in range(1, 5):
        write_raster(reflectances(dark=100 * number)[:1], f"s/x_B{number}.tif")
    with pytest.raises(SceneError, match=r"numbered B1 to B4 .*_red, _green and _blue"):
        open_scene(tmp_path / "s", RGB_CARD)
    for number, color in ((3, "red"), (2, "green"), (1, "blue")):
        (tmp_path / f"s/x_B{number}.tif").rename(tmp_path / f"s/s_{color}.tif")
    assert (read_all(open_scene(tmp_path / "s", RGB_CARD))[0][0] == reflectances(dark=300)[0]).all()


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        SceneError, match=r"looked for files such as NAME_B04\.tif and for MTD_MSIL1C\.xml or"
    ):
        open_scene(tmp_path, RGB_CARD)
