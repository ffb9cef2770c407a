"""The whole path, from a file of pixels to the files of a map, against what is known to be true."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as transform_points

from pipeline.classify import classify_scene, prepare_scene, scene_is_done
from pipeline.errors import OutputError, SceneError, UsageError
from pipeline.maps import outputs
from pipeline.maps.prior import load_prior
from pipeline.options import ClassifyOptions, SceneOptions
from pipeline.scenes.reader import read_blocks
from pipeline.scenes.synthetic import write_scene
from pipeline.training.dataset import load_tiles
from pipeline.training.evaluate import evaluate_bundle

UTM = from_origin(399_960, 5_300_040, 10, 10)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


@pytest.fixture(scope="module")
def validation_tiles(landcover_data, tmp_path_factory):
    """Return the folder of the 5,400 labelled validation tiles."""
    import zipfile

    folder = tmp_path_factory.mktemp("validation")
    with zipfile.ZipFile(landcover_data / "eurosat" / "EuroSAT_RGB-val.zip") as archive:
        archive.extractall(folder)
    return folder / "EuroSAT_RGB"


@pytest.mark.slow
def test_a_mosaic_of_labelled_tiles_gives_the_labels_that_evaluate_predicts(
    light, light_predictor, validation_tiles, tmp_path, write_raster
):
    evaluation = evaluate_bundle(light, validation_tiles)
    tiles = load_tiles(validation_tiles)
    rows, columns = 72, 75
    mosaic = (
        tiles.images.numpy()
        .reshape(rows, columns, 3, 64, 64)
        .transpose(2, 0, 3, 1, 4)
        .reshape(3, rows * 64, columns * 64)
    )
    scene = write_raster(mosaic, "mosaic.tif", photometric="RGB", compress="deflate", tiled=True)

    options = ClassifyOptions(scene=SceneOptions(level="rgb8"), prior="eurosat")  # as in evaluation
    result = classify_scene(str(scene), tmp_path, light_predictor, options)

    with rasterio.open(result.files["landcover"]) as raster:
        class_id = raster.read(1)
        assert raster.transform == UTM @ Affine.scale(64)
    assert evaluation.accuracy > 0.9
    assert np.array_equal(class_id.ravel(), evaluation.predicted + 1)
    confidence = read(result.files["confidence"]).ravel()
    assert np.array_equal(confidence, np.round(100 * evaluation.probabilities.max(axis=1)))


def noise(bands: int, height: int, width: int, low: int = 300, high: int = 2500) -> np.ndarray:
    return np.random.default_rng(1).integers(low, high, (bands, height, width)).astype(np.uint16)


def classify(path, output, predictor, **options):
    return classify_scene(str(path), output, predictor, ClassifyOptions(**options))


@pytest.fixture
def l1c(write_raster):
    """Return a function that writes an L1C scene with named bands."""

    def write(height=192, width=256, **kwargs):
        return write_raster(
            noise(3, height, width),
            descriptions=("B04", "B03", "B02"),
            tags={"PROCESSING_LEVEL": "Level-1C"},
            **kwargs,
        )

    return write


def test_every_output_of_a_utm_scene_has_its_corners(l1c, tmp_path, light_predictor):
    scene = l1c()
    result = classify(scene, tmp_path / "out", light_predictor, probabilities=True, polygons="gpkg")
    with rasterio.open(scene) as raster:
        bounds = np.array(raster.bounds)
    for kind in ("landcover", "confidence", "probabilities"):
        with rasterio.open(result.files[kind]) as raster:
            assert raster.crs == CRS.from_epsg(32633)
            assert np.abs(np.array(raster.bounds) - bounds).max() < 1e-6
    polygons = geopandas.read_file(result.files["polygons"])
    assert np.abs(polygons.total_bounds - bounds).max() < 1e-6
    assert polygons.area_ha.sum() == pytest.approx(192 * 256 / 100, rel=1e-3)


def test_polygons_and_areas_end_where_the_scene_ends_within_a_tile(l1c, tmp_path, light_predictor):
    scene = l1c(height=150, width=100)
    result = classify(scene, tmp_path / "out", light_predictor, polygons="gpkg")
    assert read(result.files["landcover"]).shape == (3, 2)
    with rasterio.open(scene) as raster:
        bounds = np.array(raster.bounds)
    polygons = geopandas.read_file(result.files["polygons"])
    assert np.abs(polygons.total_bounds - bounds).max() < 1e-6
    assert sum(area.hectares for area in result.areas) == pytest.approx(150 * 100 / 100, rel=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (63, 64)])
def test_a_scene_smaller_than_a_tile_gives_a_map(l1c, tmp_path, light_predictor, size):
    result = classify(l1c(*size), tmp_path / "out", light_predictor)
    assert (read(result.files["landcover"]) > 0).all()


def test_strides_agree_on_the_ground_they_cover(l1c, tmp_path, light_predictor):
    scene = l1c()
    for stride in (8, 16, 48, 64):
        result = classify(scene, tmp_path / str(stride), light_predictor, stride=stride)
        with rasterio.open(result.files["landcover"]) as raster:
            assert raster.shape == (-(-192 // stride), -(-256 // stride))
            assert (raster.transform.c, raster.transform.f) == (UTM.c, UTM.f)
            assert raster.res == (10 * stride, 10 * stride)


def test_a_known_point_of_a_scene_in_degrees_lands_in_its_cell(write_raster, tmp_path, light_predictor):
    # A rough square of 1.3 km in smooth, dark water: only its cells can be anything else.
    pixels = np.full((3, 512, 512), 800, np.uint16)
    pixels[:, 256:384, 256:384] = noise(3, 128, 128)
    pixel = 10 / 111_320
    geographic = from_origin(15.0, 48.0, pixel / np.cos(np.radians(48)), pixel)
    scene = write_raster(
        pixels,
        crs="EPSG:4326",
        transform=geographic,
        descriptions=("B04", "B03", "B02"),
        tags={"PROCESSING_LEVEL": "Level-1C"},
    )
    result = classify(scene, tmp_path / "out", light_predictor)
    inside = geographic @ (320, 320)
    outside = geographic @ (120, 120)
    with rasterio.open(result.files["landcover"]) as raster:
        assert raster.crs == CRS.from_epsg(32633)
        assert raster.res == (640, 640)
        values = {}
        for name, (longitude, latitude) in {"inside": inside, "outside": outside}.items():
            (x,), (y,) = transform_points("EPSG:4326", raster.crs, [longitude], [latitude])
            values[name] = raster.read(1)[raster.index(x, y)]
    assert values["outside"] == 10, "SeaLake"
    assert values["inside"] not in (0, 10)


def test_ground_without_data_has_no_class(write_raster, tmp_path, light_predictor):
    pixels = noise(3, 128, 256)
    pixels[:, :, 128:] = 0
    scene = write_raster(
        pixels, nodata=0, descriptions=("B04", "B03", "B02"), tags={"PROCESSING_LEVEL": "Level-1C"}
    )
    result = classify(scene, tmp_path / "out", light_predictor)
    class_id, confidence = read(result.files["landcover"]), read(result.files["confidence"])
    assert (class_id[:, :2] > 0).all()
    assert (class_id[:, 2:] == 0).all()
    assert (confidence[:, 2:] == 255).all()
    assert result.tiles == 4, "tiles without data are not worth the network's time"


def test_a_mask_that_leaves_nothing_is_named(l1c, write_raster, tmp_path, light_predictor, caplog):
    """Fmask is a field of bits: clear land has some too, and water all over. Its clouds alone are a mask."""
    scene = l1c()
    with rasterio.open(scene) as raster:
        bits = np.full((1, *raster.shape), 64 | 32, np.uint8)
        placed = {"crs": raster.crs, "transform": raster.transform}
    bits[:, :64] |= 2
    mask = write_raster(bits, "HLS.S30.Fmask.tif", **placed)
    classify(scene, tmp_path / "none", light_predictor, scene=SceneOptions(mask=mask))
    assert "the mask HLS.S30.Fmask.tif" in caplog.records[-1].message
    clouds = write_raster((bits & 2 > 0).astype(np.uint8), "clouds.tif", **placed)
    result = classify(scene, tmp_path / "some", light_predictor, scene=SceneOptions(mask=clouds))
    assert sum(area.hectares for area in result.areas[:-1]) == pytest.approx(128 * 256 / 100, rel=1e-3)


def test_a_scene_of_nodata_gives_an_empty_map_and_says_so(write_raster, tmp_path, light_predictor, caplog):
    scene = write_raster(np.zeros((3, 128, 128), np.uint16), nodata=0, descriptions=("B04", "B03", "B02"))
    result = classify(scene, tmp_path / "out", light_predictor)
    assert (read(result.files["landcover"]) == 0).all()
    assert any("no valid pixel" in record.message for record in caplog.records)
    assert "no valid pixel" in classify(scene, tmp_path / "out", light_predictor).warnings[-1]


@pytest.mark.parametrize("overcast", [True, False])
def test_a_map_that_is_mostly_guessed_says_so_and_any_other_does_not(
    tmp_path, light_predictor, caplog, overcast
):
    path = write_scene(tmp_path / "scene.tif", size=640)
    if overcast:
        with rasterio.open(path, "r+") as scene:
            cloud = 8000 + 50 * noise(scene.count, 640, 640, low=0, high=20)
            cloud[:, :128] = scene.read()[:, :128]  # a fifth of it is clear
            scene.write(cloud)
    classify(path, tmp_path / "out", light_predictor)
    again = classify(path, tmp_path / "out", light_predictor)
    assert again.skipped
    for texts in ([record.getMessage() for record in caplog.records], again.warnings):
        assert any("less than 40 % sure of" in text for text in texts) == overcast
    if overcast:
        assert "`min_confidence` 40 leaves such cells out" in again.warnings[-1]


def test_cells_below_the_confidence_asked_for_are_no_data(tmp_path, light_predictor):
    scene = write_scene(tmp_path / "scene.tif", size=640)
    result = classify(scene, tmp_path / "out", light_predictor, min_confidence=90)
    confidence = read(result.files["confidence"])
    assert ((read(result.files["landcover"]) == 0) == (confidence < 90)).all()
    assert 0 < (confidence < 90).sum() < confidence.size


def test_run_json_says_what_was_done_and_a_second_run_leaves_it(l1c, tmp_path, light, light_predictor):
    scene = l1c()
    first = classify(scene, tmp_path / "out", light_predictor)
    record = json.loads(first.files["run"].read_text())
    assert record["model"] == {"name": light.card.name, "digest": light.card.digest}
    assert record["options"]["stride"] == 64
    assert record["tiles"] == 12
    assert any("Level-1C" in note["text"] for note in record["notes"])
    again = classify(scene, tmp_path / "out", light_predictor)
    assert again.skipped
    assert again.areas == first.areas
    with pytest.raises(OutputError, match=r"other options.*`overwrite`"):
        classify(scene, tmp_path / "out", light_predictor, stride=32)
    assert not classify(scene, tmp_path / "out", light_predictor, stride=32, overwrite=True).skipped


def test_the_prior_that_was_chosen_is_part_of_a_maps_identity(l1c, tmp_path, light_predictor):
    """Its shares count: the same words or the same file may come to mean others."""
    scene, out = l1c(), tmp_path / "out"
    record = json.loads(classify(scene, out, light_predictor).files["run"].read_text())
    assert record["options"]["prior"]["name"] == "europe"
    assert sum(record["options"]["prior"]["shares"].values()) == pytest.approx(1)
    assert any("lies in Europe" in note["text"] for note in record["notes"])
    assert classify(scene, out, light_predictor, prior="europe").skipped
    with pytest.raises(OutputError, match="other options"):
        classify(scene, out, light_predictor, prior="eurosat")


def test_a_prior_weighs_the_probabilities_of_each_tile(l1c, tmp_path, light, light_predictor):
    scene = l1c()
    without, europe = (
        read_bands(classify(scene, tmp_path / prior, light_predictor, prior=prior, probabilities=True))
        for prior in ("eurosat", "europe")
    )
    expected = load_prior("europe", light.card).apply(without.reshape(10, -1).T)
    np.testing.assert_allclose(europe.reshape(10, -1).T, expected, rtol=1e-5)


def read_bands(result):
    with rasterio.open(result.files["probabilities"]) as raster:
        return raster.read()


def test_a_changed_scene_is_not_taken_for_done(l1c, tmp_path, light_predictor):
    classify(l1c(), tmp_path / "out", light_predictor)
    with pytest.raises(OutputError, match="another input"):
        classify(l1c(height=128), tmp_path / "out", light_predictor)


def test_a_scene_that_was_moved_or_looked_at_is_still_done(l1c, tmp_path, light_predictor):
    scene = l1c()
    classify(scene, tmp_path / "out", light_predictor)
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset/>")  # what QGIS leaves beside a file
    moved = tmp_path / "elsewhere" / "scene.tif"
    moved.parent.mkdir()
    scene.rename(moved)
    assert classify(moved, tmp_path / "out", light_predictor).skipped


def test_a_run_that_fails_changes_nothing(l1c, tmp_path, light_predictor, monkeypatch):
    scene, output = l1c(), tmp_path / "out"
    classify(scene, output, light_predictor)
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def fail(*args, **kwargs):
        raise OutputError("the disk is full")

    failing = tuple(replace(row, write=fail) if row.kind == "areas" else row for row in outputs.TABLE)
    monkeypatch.setattr(outputs, "TABLE", failing)
    with pytest.raises(OutputError, match="disk is full"):
        classify(scene, output, light_predictor, stride=32, overwrite=True)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_overwriting_leaves_nothing_of_the_earlier_run(l1c, tmp_path, light_predictor):
    scene, output = l1c(), tmp_path / "out"
    first = classify(scene, output, light_predictor, probabilities=True, preview=True)
    # What other programs leave: SQLite would play the journal of an old database back into the new one.
    for ending in ("_landcover.gpkg-wal", "_confidence.tif.aux.xml", "_probabilities.tif.aux.xml"):
        (output / f"scene{ending}").write_text("old")
    second = classify(scene, output, light_predictor, polygons="gpkg", overwrite=True)
    gone = {"polygons", "probabilities", "preview"}
    assert not any(first.files[kind].exists() for kind in gone)
    assert {path.name for path in output.iterdir()} == {path.name for path in second.files.values()}


def test_refresh_classifies_again_only_what_differs(l1c, tmp_path, light_predictor):
    scene, output = l1c(), tmp_path / "out"
    classify(scene, output, light_predictor)
    assert classify(scene, output, light_predictor, refresh=True).skipped
    assert not classify(scene, output, light_predictor, refresh=True, stride=32).skipped


class Stop(BaseException):
    """What a keyboard's interrupt is, under a name of its own."""


def interrupt_after(calls):
    """Return a progress function that stops the run when it is called for the last time."""
    left = iter(range(calls - 1, -1, -1))

    def progress(tiles, total):
        if next(left) == 0:
            raise Stop

    return progress


def contents(folder):
    """Return what lies in a folder, apart from how long it took to make."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in [name for name in files if name.endswith("_run.json")]:
        files[name] = json.loads(files[name]) | {"seconds": None}
    return files


@pytest.mark.parametrize("stride", [64, 16])
def test_an_interrupted_run_resumes_inside_the_scene(l1c, tmp_path, light_predictor, stride):
    scene = l1c(height=600, width=200, blockysize=64)
    options = ClassifyOptions(journal_after=0, stride=stride, probabilities=True)
    classify_scene(str(scene), tmp_path / "unbroken", light_predictor, options)
    done = []
    for _ in range(2):
        with pytest.raises(Stop):
            classify_scene(str(scene), tmp_path / "out", light_predictor, options, interrupt_after(5))
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".scene.journal"]
    classify_scene(
        str(scene),
        tmp_path / "out",
        light_predictor,
        options,
        lambda tiles, total: done.append((tiles, total)),
    )
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")
    assert sum(tiles for tiles, _ in done) == done[0][1]


def test_a_resumed_run_does_not_read_again_what_it_classified(l1c, tmp_path, light_predictor, monkeypatch):
    scene = str(l1c(height=600, width=200, blockysize=64))
    options = ClassifyOptions(journal_after=0)
    with pytest.raises(Stop):
        classify_scene(scene, tmp_path / "out", light_predictor, options, interrupt_after(7))
    read = []

    def watched(*args, first_row, **kwargs):
        read.append(first_row)
        return read_blocks(*args, first_row=first_row, **kwargs)

    monkeypatch.setattr("pipeline.classify.read_blocks", watched)
    classify_scene(scene, tmp_path / "out", light_predictor, options)
    classify_scene(scene, tmp_path / "out", light_predictor, replace(options, overwrite=True))
    assert read == [6, 0]


def test_a_journal_left_by_a_run_killed_after_publishing_is_removed(l1c, tmp_path, light_predictor):
    scene = str(l1c(height=600, width=200, blockysize=64))
    options = ClassifyOptions(journal_after=0)
    with pytest.raises(Stop):
        classify_scene(scene, tmp_path / "out", light_predictor, options, interrupt_after(5))
    journal = (tmp_path / "out" / ".scene.journal").read_bytes()
    classify_scene(scene, tmp_path / "out", light_predictor, options)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / ".scene.journal").write_bytes(journal)
    assert classify_scene(scene, tmp_path / "out", light_predictor, options).skipped
    assert contents(tmp_path / "out") == before


def test_a_journal_of_other_options_is_not_used(l1c, tmp_path, light_predictor):
    scene = str(l1c(height=600, width=200, blockysize=64))
    options = ClassifyOptions(journal_after=0)
    with pytest.raises(Stop):
        classify_scene(scene, tmp_path / "out", light_predictor, options, interrupt_after(5))
    other = replace(options, stride=32)
    classify_scene(scene, tmp_path / "out", light_predictor, other)
    classify_scene(scene, tmp_path / "unbroken", light_predictor, other)
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")


def test_a_scene_that_changes_while_it_is_read_gives_no_map(l1c, tmp_path, light_predictor):
    scene = l1c()

    def change(tiles, total):
        with scene.open("ab") as file:
            file.write(b"more")

    with pytest.raises(SceneError, match="changed or removed while it was read"):
        classify_scene(str(scene), tmp_path / "out", light_predictor, progress=change)
    assert not list((tmp_path / "out").iterdir())


def test_why_a_scene_would_be_classified(l1c, tmp_path, light, light_predictor):
    scene, output = l1c(), tmp_path / "out"

    def reason(**options):
        return scene_is_done(str(scene), output, light.card, ClassifyOptions(**options))

    assert reason() == "new"
    classify(scene, output, light_predictor)
    assert reason() is None
    assert reason(overwrite=True) == "asked for"
    assert reason(stride=32) == "other options"
    l1c(height=128)
    assert reason() == "another input"


def test_closing_a_prepared_scene_ends_its_threads(l1c, tmp_path, light_predictor):
    before = threading.active_count()
    prepared = prepare_scene(
        str(l1c(height=600, blockysize=64)), tmp_path / "out", light_predictor, ClassifyOptions()
    )
    assert threading.active_count() > before
    prepared.close()
    assert threading.active_count() == before


def test_test_time_augmentation_changes_the_map_and_its_identity(l1c, tmp_path, light_predictor):
    scene = l1c()
    plain = classify(scene, tmp_path / "plain", light_predictor, probabilities=True)
    augmented = classify(scene, tmp_path / "tta", light_predictor, probabilities=True, tta=True)
    assert not np.array_equal(read(plain.files["probabilities"]), read(augmented.files["probabilities"]))
    with pytest.raises(OutputError, match="other options"):
        classify(scene, tmp_path / "plain", light_predictor, probabilities=True, tta=True)


def test_two_scenes_of_one_name_do_not_replace_each_other(l1c, tmp_path, light_predictor):
    scene, options = str(l1c()), ClassifyOptions(overwrite=True)
    with pytest.raises(OutputError, match="another scene named scene"):
        classify_scene(scene, tmp_path / "out", light_predictor, options, taken={"scene"})


def test_a_name_too_long_for_its_files_is_told_before_the_work(l1c, tmp_path, light_predictor):
    path = l1c().rename(tmp_path / f"{'n' * 243}.tif")
    with pytest.raises(SceneError, match=r"has 243 bytes.*rename it, or give a link") as error:
        classify(path, tmp_path / "maps", light_predictor)
    assert "`output`" not in str(error.value)
    (tmp_path / "short.tif").symlink_to(path)
    assert classify(tmp_path / "short.tif", tmp_path / "maps", light_predictor).files["landcover"].is_file()
    longest = int(str(error.value).partition("room for ")[2].partition(":")[0])
    path = path.rename(tmp_path / f"{'n' * longest}.tif")
    assert classify(path, tmp_path / "maps", light_predictor).files["landcover"].is_file()


def test_a_folder_that_is_not_writable_is_reported_before_the_work(
    l1c, tmp_path, light_predictor, monkeypatch
):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pipeline.files.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("pipeline.classify.read_blocks", None)
    with pytest.raises(OutputError, match="cannot be written"):
        classify(l1c(), tmp_path / "out", light_predictor)


@pytest.mark.parametrize("driver", ["VRT", "COG", "JP2OpenJPEG"])
def test_formats_give_the_map_of_the_geotiff(l1c, tmp_path, light_predictor, driver):
    scene = l1c(height=200, width=300)
    other = tmp_path / {"VRT": "other.vrt", "COG": "other.tif", "JP2OpenJPEG": "other.jp2"}[driver]
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    rasterio.shutil.copy(scene, other, driver=driver, **options)
    stated = SceneOptions(bands=(("red", 1), ("green", 2), ("blue", 3)), level="l1c", offset=0)
    maps = [
        read(classify(path, tmp_path / f"{path.name}-maps", light_predictor, scene=stated).files["landcover"])
        for path in (scene, other)
    ]
    assert np.array_equal(*maps)


def test_a_striped_bigtiff_gives_the_map_of_a_tiled_one(write_raster, tmp_path, light_predictor):
    pixels = noise(3, 300, 200)
    common = {"descriptions": ("B04", "B03", "B02"), "tags": {"PROCESSING_LEVEL": "Level-1C"}}
    striped = write_raster(pixels, "striped.tif", blockysize=1, BIGTIFF="YES", **common)
    tiled = write_raster(pixels, "tiled.tif", tiled=True, blockxsize=128, blockysize=128, **common)
    maps = [
        read(classify(path, tmp_path / f"{path.name}-maps", light_predictor, stride=24).files["landcover"])
        for path in (striped, tiled)
    ]
    assert np.array_equal(*maps)


def test_progress_reaches_the_number_of_tiles(l1c, tmp_path, light_predictor):
    calls = []
    classify_scene(
        str(l1c()),
        tmp_path / "out",
        light_predictor,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert {total for _, total in calls} == {12}
    assert sum(done for done, _ in calls) == 12


def test_a_model_with_other_tiles_and_classes_gives_its_own_map(l1c, tmp_path):
    import torch

    from pipeline.model.bundle import load_bundle
    from pipeline.model.card import LandCoverClass, ModelCard
    from pipeline.model.network import build_network
    from pipeline.model.predictor import Predictor
    from pipeline.model.weights import load_network, save_bundle
    from pipeline.options import PredictorOptions
    from pipeline.values import Scaling

    torch.manual_seed(0)
    card = ModelCard(
        name="mine",
        architecture="resnet18",
        head="mlp",
        bands=("B02", "B04"),
        level="l1c",
        scaling=Scaling((0.0, 0.4), (0.0, 255.0)),
        mean=(80.0, 90.0),
        std=(40.0, 40.0),
        tile_size=32,
        gsd=10.0,
        classes=(LandCoverClass(1, "dry", "#aa8844"), LandCoverClass(2, "wet", "#4488aa")),
    )
    network = build_network("resnet18", bands=2, classes=2, head="mlp").eval()
    bundle = load_bundle(save_bundle(network, card, tmp_path / "mine").path)
    predictor = Predictor(load_network(bundle), bundle.card, PredictorOptions(device="cpu"))
    result = classify(l1c(), tmp_path / "out", predictor)
    with rasterio.open(result.files["landcover"]) as raster:
        assert raster.res == (320, 320)
        assert set(np.unique(raster.read(1))) <= {1, 2}


def test_a_stride_beyond_the_tile_is_refused_before_anything_is_read(tmp_path, light_predictor):
    with pytest.raises(UsageError, match="`stride` 65"):
        classify("absent.tif", tmp_path / "out", light_predictor, stride=65)
    assert not (tmp_path / "out").exists()
