"""The served folder: what is listed and given away, and that nothing outside of it is."""

import pytest


def test_a_folder_lists_scenes_maps_and_the_report_but_nothing_hidden_or_outside(browser):
    top = browser.request("GET", "/api/folder")
    assert top["folders"] == ["maps"]
    assert [scene["name"] for scene in top["scenes"]] == ["made.tif", "points-out.vrt"]
    assert browser.request("GET", "/api/folder?path=maps") == {
        "path": "maps",
        "folders": [],
        "scenes": [],
        "maps": [{"name": "made", "path": "maps/made_run.json"}],
        "report": "maps/batch_report.html",
        "is_scene": False,
        "left_out": 0,
    }


OUTSIDE = [
    "..",
    "../outside",
    "/etc",
    "linked",
    "linked/secret.csv",
    "link.csv",
    ".hidden.csv",
    "a\0b",
    "maps/../..",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_the_folder(browser, path):
    for method, address, arguments in (
        ("GET", "/api/folder", {"params": {"path": path}}),
        ("POST", "/api/scenes", {"json": {"path": path}}),
        ("GET", "/api/map", {"params": {"path": path}}),
        ("GET", "/api/outputs.zip", {"params": {"path": f"{path}/made_run.json"}}),
    ):
        assert "There is no file or folder" in browser.request(method, address, 422, **arguments)["error"]


@pytest.mark.parametrize(
    "path",
    ["link.csv", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", ".hidden.csv", "linked/secret.csv"],
)
def test_no_file_outside_of_the_folder_is_sent(browser, path):
    assert browser.http.get(f"/files/{path}").status_code in (404, 422)


def test_only_files_of_maps_are_sent(browser):
    assert browser.http.get("/files/notes.txt").status_code == 404
    assert browser.http.get("/files/maps").status_code == 404
    answer = browser.http.get("/files/maps/made_areas.csv")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_a_report_is_sandboxed(browser):
    answer = browser.http.get("/files/maps/batch_report.html")
    assert answer.text.endswith("<h1>Report</h1>")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-downloads;")
    assert "script" not in policy
