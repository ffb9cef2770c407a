"""Takes the screenshot `app.png`: the app with the map of a scene.

Needs Chromium, and Playwright (`pip install playwright`):

    landcover app --no-browser --port 8000 &
    python docs/draw_app.py http://127.0.0.1:8000 demo/demo.tif docs/app.png
"""

import shutil
import sys

from playwright.sync_api import sync_playwright

BROWSERS = "chromium", "chromium-browser", "google-chrome"
WINDOW = {"width": 1160, "height": 1000}
STRIDE = "16"
POINTER = 0.44, 0.375  # fractions of the map's width and height: the river
TIMEOUT = 5 * 60_000  # milliseconds


def take_screenshot(address: str, scene: str, picture: str) -> None:
    """Classify a scene in the app at `address`, point at a cell, and save the map's panel as a PNG."""
    with sync_playwright() as driver:
        browser = next(filter(None, map(shutil.which, BROWSERS)))
        page = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
            viewport=WINDOW
        )
        page.set_default_timeout(TIMEOUT)
        page.goto(f"{address}/#scene")
        page.set_input_files("#scene-file", scene)
        page.select_option("#scene-stride", STRIDE)
        page.click("#scene-start")
        panel = page.locator(".map[data-ready]:not(.drawing)")
        panel.wait_for()
        canvas = panel.locator("canvas")
        box = canvas.bounding_box()
        canvas.hover(position={"x": POINTER[0] * box["width"], "y": POINTER[1] * box["height"]})
        panel.screenshot(path=picture)


if __name__ == "__main__":
    take_screenshot(*sys.argv[1:])
