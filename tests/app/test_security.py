"""Which requests are accepted, and the headers of every answer."""

import pytest

from tests.support.app_server import httpx


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "localhost.evil.example"])
def test_a_foreign_host_name_is_rejected(address, host):
    """DNS rebinding: the name of another site that resolves to 127.0.0.1."""
    assert httpx.get(address, headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "192.168.1.7", "[::1]"])
def test_ip_addresses_and_the_names_of_this_machine_are_accepted(address, name):
    port = address.rpartition(":")[2]
    assert httpx.get(address, headers={"Host": f"{name}:{port}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_the_page_of_another_site_cannot_change_anything(browser, headers):
    browser.request("POST", "/api/scenes", 403, json={}, headers=headers)


def test_our_own_page_can(browser, address):
    headers = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    browser.request("POST", "/api/scenes", json={}, headers=headers)


def test_every_answer_forbids_content_from_elsewhere(address):
    for path in ("/", "/static/main.js", "/api/state", "/nothing"):
        headers = httpx.get(address + path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
