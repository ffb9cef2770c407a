"""The app in a real browser: Debian's Chromium, driven by Playwright."""

import csv
import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from pipeline.app.examples import example_files
from pipeline.classify import classify_scene
from pipeline.options import ClassifyOptions
from pipeline.scenes.synthetic import write_scene
from tests.support.app_server import TIMEOUT, running_app

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: make app-test")
expect = playwright.expect

BROWSERS = "chromium", "chromium-browser", "google-chrome"
DESKTOP = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 740}
ODD_NAME = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("needs a browser: apt-get install chromium, or make app-test")
    with playwright.sync_playwright() as driver:
        # Chromium has no sandbox when it runs as root in a container.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("made") / "made.tif", size=448)


@pytest.fixture(scope="module")
def other_scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("made") / "other.tif", size=320, seed=3)


@pytest.fixture(scope="module")
def long_scene(tmp_path_factory) -> Path:
    """Return a scene that takes seconds at stride 8, so that a browser can act meanwhile."""
    return write_scene(tmp_path_factory.mktemp("made") / "long.tif", size=960)


@pytest.fixture(scope="module")
def root(tmp_path_factory, scene, light_predictor) -> Path:
    folder = tmp_path_factory.mktemp("root")
    shutil.copy(scene, folder)
    (folder / ODD_NAME).mkdir()
    classify_scene(str(folder / "made.tif"), folder / "maps", light_predictor, ClassifyOptions(stride=32))
    (folder / "maps" / "batch_report.html").write_text(
        "<h1>Report</h1><script>document.write('<b>script</b>')</script>"
    )
    return folder


@pytest.fixture(scope="module")
def address(root):
    with running_app(root, max_upload=50 * 2**20) as address:
        yield address


@pytest.fixture
def visit(chromium, address):
    """Return a function that opens a page in a new session; no page may use other servers or log errors."""
    contexts, problems = [], []

    def note_request(request) -> None:
        if not request.url.startswith((address + "/", "data:", f"blob:{address}/")):
            problems.append(f"requested {request.url}")

    def note_console(message) -> None:
        # The tests upload unsuitable files and a report with a script.
        expected = re.match(
            "Failed to load resource|Blocked script execution in '.*batch_report", message.text
        )
        if message.type == "error" and not expected:
            problems.append(message.text)

    def visit(view: str = "", **options):
        contexts.append(chromium.new_context(**{"viewport": DESKTOP, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        page.on("request", note_request)
        page.on("console", note_console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}/{view}")
        expect(page.locator("#loading")).to_be_hidden()
        return page

    expect.set_options(timeout=1000 * TIMEOUT)
    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def classify(page, file: Path, stride: int) -> None:
    """Load a scene and start classifying it."""
    page.set_input_files("#scene-file", file)
    expect(page.locator("#scene-name")).to_have_text(file.name)
    page.select_option("#scene-stride", str(stride))
    page.click("#scene-start")


def shown_map(page):
    """Wait for the map and for its picture."""
    panel = page.locator(".map[data-ready]")
    expect(panel).to_be_visible()
    expect(panel).not_to_have_class(re.compile("drawing"))
    return panel


def color_at(page, x: float, y: float) -> list[int]:
    """Return the color of the canvas at a fraction of its width and height."""
    script = """([x, y]) => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => {
      const canvas = document.querySelector('.map:not([hidden]) canvas');
      const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
      resolve([...canvas.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3));
    })))"""
    return page.evaluate(script, [x, y])


def downloaded(page) -> zipfile.ZipFile:
    with page.expect_download() as download:
        page.locator(".map:not([hidden]) .download").click()
    return zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))


def drop(page, zone: str, name: str, content: bytes) -> None:
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name));
          return transfer;
        }""",
        [name, list(content)],
    )
    page.dispatch_event(zone, "drop", {"dataTransfer": transfer})


def test_an_image_is_chosen_dropped_or_taken_from_the_examples_and_classified(visit):
    page = visit()
    river, forest = (next(f for f in example_files() if f.stem == name) for name in ("River", "Forest"))
    page.set_input_files("#image-file", river)
    expect(page.locator("#image-class")).to_have_text("River")
    expect(page.locator("#image-sentence")).to_contain_text("The model is")
    expect(page.locator("#image-bars li")).to_have_count(10)
    expect(page.locator("#image-bars li").first).to_contain_text(re.compile(r"River.*\d %"))
    assert page.locator("#image-seen").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
        64,
        64,
    ]

    drop(page, "#image-drop", "wood.jpg", forest.read_bytes())
    expect(page.locator("#image-class")).to_have_text("Forest")
    expect(page.locator("#image-name")).to_have_text("wood.jpg")

    page.get_by_role("button", name="SeaLake").click()
    expect(page.locator("#image-class")).to_have_text("SeaLake")


def test_the_part_of_a_larger_image_is_chosen(visit, tmp_path):
    tiles = {file.stem: np.asarray(Image.open(file)) for file in example_files()}
    both = np.concatenate([tiles["SeaLake"], tiles["AnnualCrop"]], axis=1)
    Image.fromarray(both).save(tmp_path / "both.png")
    page = visit()
    page.set_input_files("#image-file", tmp_path / "both.png")
    expect(page.locator("#image-notes")).to_contain_text("128 x 64 pixels")
    box = page.locator("#image-picture").bounding_box()
    page.locator("#image-picture").click(position={"x": 5, "y": box["height"] / 2})
    expect(page.locator("#image-class")).to_have_text("SeaLake")
    page.locator("#image-picture").click(position={"x": box["width"] - 5, "y": box["height"] / 2})
    expect(page.locator("#image-class")).to_have_text("AnnualCrop")
    page.locator("#image-frame").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#image-class")).to_have_text("SeaLake")
    page.get_by_label("all of it, resized").check()
    expect(page.locator("#image-notes")).to_contain_text("resized")


def test_an_unfamiliar_image_gets_a_warning(visit, tmp_path):
    Image.new("RGBA", (64, 64), (250, 40, 40, 255)).save(tmp_path / "red.png")
    page = visit()
    page.set_input_files("#image-file", tmp_path / "red.png")
    expect(page.locator("#image-sentence")).to_contain_text("does not look like the satellite images")
    expect(page.locator("#image-notes")).to_contain_text("fourth band")


def test_unsuitable_files_are_refused_in_a_sentence(visit, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear all")
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    (tmp_path / "broken.tif").write_bytes(b"II*\0broken")
    page = visit()
    page.set_input_files("#image-file", tmp_path / "letter.txt")
    expect(page.locator("#image-message")).to_have_text(re.compile("^letter.txt is not a PNG"))
    expect(page.locator("#image-result")).to_be_hidden()
    page.get_by_role("link", name="Scene").click()
    for name, sentence in (("picture.png", "belong under Image"), ("broken.tif", "cannot be opened")):
        page.set_input_files("#scene-file", tmp_path / name)
        expect(page.locator("#scene-message")).to_contain_text(sentence)
        expect(page.locator("#scene-work")).to_be_hidden()


def test_a_scene_is_classified_and_its_map_shown(visit, scene):
    page = visit("#scene")
    classify(page, scene, stride=32)
    panel = shown_map(page)
    archive = downloaded(page)
    with rasterio.MemoryFile(archive.read("made_landcover.tif")) as file, file.open() as dataset:
        classes = dataset.read(1)
    with rasterio.MemoryFile(archive.read("made_confidence.tif")) as file, file.open() as dataset:
        confidence = dataset.read(1)
    areas = list(csv.DictReader(io.StringIO(archive.read("made_areas.csv").decode())))

    # The legend: names, colors and hectares.
    rows = panel.locator("tbody tr")
    largest = max(areas, key=lambda area: float(area["hectares"]))
    expect(rows.first).to_contain_text(largest["class_name"])
    expect(rows.first).to_contain_text(f"{float(largest['hectares']):,.0f}")
    expect(rows).to_have_count(10)

    # The class and confidence of a cell: by a click, then by the keyboard.
    canvas, readout = panel.locator("canvas"), panel.locator(".readout")
    box = canvas.bounding_box()
    names = {int(area["class_id"]): area["class_name"] for area in areas}

    def check(row: int, column: int) -> None:
        expect(readout).to_have_attribute("data-row", str(row))
        expect(readout).to_have_attribute("data-column", str(column))
        expect(readout).to_contain_text(names[int(classes[row, column])])
        expect(readout).to_contain_text(f"{confidence[row, column]} % sure")

    for row, column in ((0, 0), (13, 13), (5, 9)):
        scale = min(box["width"], box["height"]) / 14
        left, top = (box["width"] - 14 * scale) / 2, (box["height"] - 14 * scale) / 2
        canvas.click(position={"x": left + (column + 0.5) * scale, "y": top + (row + 0.5) * scale})
        check(row, column)
    canvas.press("ArrowDown")
    check(6, 9)

    # The opacity, from the picture alone to the map alone.
    slider = panel.locator("input[type=range]")
    seen = []
    for opacity in ("0", "50", "100"):
        slider.fill(opacity)
        seen.append(color_at(page, 0.5, 0.5))
    entry = classes[7, 7]
    color = (
        panel.locator("tbody tr", has_text=names[int(entry)])
        .locator(".swatch")
        .evaluate("swatch => getComputedStyle(swatch).backgroundColor")
    )
    assert seen[2] == [int(number) for number in re.findall(r"\d+", color)[:3]]
    np.testing.assert_allclose(seen[1], (np.array(seen[0]) + seen[2]) / 2, atol=2)
    assert seen[0] != seen[2]

    # Zoom: by the wheel around the pointer, and by buttons.
    before = color_at(page, 0.98, 0.98)
    panel.get_by_role("button", name="Zoom in").click()
    panel.get_by_role("button", name="Show all").click()
    assert color_at(page, 0.98, 0.98) == before
    canvas.hover(position={"x": 5, "y": 5})
    page.mouse.wheel(0, -1000)
    canvas.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(readout).not_to_have_attribute("data-row", "6")  # another cell is in the middle now


def test_a_run_is_cancelled(visit, long_scene):
    page = visit("#scene")
    classify(page, long_scene, stride=8)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#scene-message")).to_have_text("Cancelled: nothing was written.")
    expect(page.locator("#scene-work")).to_be_hidden()
    expect(page.locator(".map[data-ready]")).to_have_count(0)
    page.select_option("#scene-stride", "64")
    page.click("#scene-start")  # and can be started again
    shown_map(page)


def test_two_sessions_wait_for_each_other_and_see_their_own_maps(visit, long_scene, other_scene):
    one, other = visit("#scene"), visit("#scene")
    classify(one, long_scene, stride=8)
    classify(other, other_scene, stride=64)
    expect(other.locator("#scene-step")).to_contain_text("one scene is ahead of yours")
    other.reload()  # keeps its place in the queue
    expect(other.locator("#scene-step")).to_contain_text(
        re.compile("ahead of yours|Reading|Classifying|Writing")
    )
    expect(shown_map(one).locator(".summary")).to_contain_text(re.compile("120 . 120 cells"))
    expect(shown_map(other).locator(".summary")).to_contain_text(re.compile("5 . 5 cells"))
    assert "long_landcover.tif" in downloaded(one).namelist()
    assert "other_landcover.tif" in downloaded(other).namelist()


def test_the_folder_of_a_batch_is_browsed(visit):
    page = visit("#folder")
    expect(page.get_by_role("link", name=ODD_NAME)).to_be_visible()  # as text, not as HTML
    page.get_by_role("link", name="maps").click()
    page.get_by_role("button", name="made", exact=True).click()
    panel = shown_map(page)
    expect(panel.locator(".summary")).to_contain_text(re.compile("14 . 14 cells of 320 m"))
    page.get_by_role("button", name=re.compile("report")).click()
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="Report")).to_be_visible()
    expect(report.locator("b")).to_have_count(0)  # its script did not run
    page.get_by_role("link", name="all").click()
    page.get_by_role("button", name="made.tif").click()
    expect(page.locator("#scene-name")).to_have_text("made.tif")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_fits_on_the_screen_of_a_phone(visit, other_scene, scheme):
    page = visit("#image", viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.get_by_role("button", name="Highway").tap()
    expect(page.locator("#image-class")).to_have_text("Highway")
    for view in ("image", "scene", "folder"):
        page.get_by_role("link", name=view.capitalize(), exact=True).tap()
        if view == "scene":
            classify(page, other_scene, stride=64)
            shown_map(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view
