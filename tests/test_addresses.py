"""Addresses: shown, named and placed without the secrets in them, and told apart by host and port."""

from pathlib import PurePath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.addresses import (
    file_name_of,
    folder_of,
    is_address,
    is_remote,
    name_of,
    scrub,
    shown,
    with_lost_slash,
)


@pytest.mark.parametrize(
    ("address", "plain", "place"),
    [
        ("https://host.org/a/b.tif", "https://host.org/a/b.tif", "host.org/a/b"),
        ("http://host:8765/a/b.tif", "http://host:8765/a/b.tif", "host_8765/a/b"),
        ("https://al:pw@host:1/b.tif?sig=S#t", "https://host:1/b.tif", "host_1/b"),
        ("https://al:p/w@host:1/b.tif", "https://host:1/b.tif", "host_1/b"),
        ("https://al:pw@host", "https://host", "/host"),
        ("http:/al:pw@host/b.tif", "http:/host/b.tif", "host/b"),
        ("https://host/a;jsessionid=12/b.tif", "https://host/a/b.tif", "host/a/b"),
        ("/vsicurl/https://al:pw@host/b.tif?s=S", "/vsicurl/https://host/b.tif", "host/b"),
        (
            "/vsicurl?pc_url_signing=yes&url=https%3A%2F%2Fhost%2Fb.tif%3Fs%3DS",
            "/vsicurl/https://host/b.tif",
            "host/b",
        ),
        ("/vsicurl?header.Authorization=Bearer%20S&url=http://h/b.tif", "/vsicurl/http://h/b.tif", "h/b"),
        ("s3://bucket/x/b.tif", "s3://bucket/x/b.tif", "bucket/x/b"),
        ("/vsis3/bucket/x/b.tif", "/vsis3/bucket/x/b.tif", "bucket/x/b"),
        ("zip+https://al:pw@host/x.zip!in/b.tif", "zip+https://host/x.zip!in/b.tif", "host/x.zip/in/b"),
        (
            "/vsizip/{/vsicurl/https://host/x.zip?s=S}/in/b.tif",
            "/vsizip/{/vsicurl/https://host/x.zip}/in/b.tif",
            "host/x.zip/in/b",
        ),
        ('NETCDF:"https://al:pw@host/x.nc?s=S":B04', 'NETCDF:"https://host/x.nc":B04', "host/x_B04"),
        ("netcdf:/vsicurl/http://al:pw@h/x.nc?s=S", "netcdf:/vsicurl/http://h/x.nc", "h/x"),
        ("netcdf:/data/x.nc:B04", "netcdf:/data/x.nc:B04", "data/x_B04"),
        ('HDF5:"/data/x.h5"://a/B04', 'HDF5:"/data/x.h5"://a/B04', "data/x_a_B04"),
        ("vrt://https://al:pw@host/b.tif?bands=1", "vrt://https://host/b.tif", "host/b"),
        ("/vsicrypt/key=S/==,file=/data/b.tif", "/vsicrypt/key=,file=/data/b.tif", "key=_file=/data/b"),
        ("PG:host=h password='a b' table=t", "PG:host=h password= table=t", "/host=h password= table=t"),
        ("al:pw@host/b.tif", "host/b.tif", "host/b"),
        ("al:p/w@host/b.tif", "host/b.tif", "host/b"),
        ("https://[::1]:80/b.tif?s=a@S", "https://[::1]:80/b.tif", "___1__80/b"),
        ("https://al:p/w@host/b.tif?s=a@S", "https://", "/scene"),
    ],
)
def test_an_address_is_shown_and_placed_without_secrets(address, plain, place):
    folder, _, name = place.rpartition("/")
    assert is_address(address)
    assert shown(address) == plain
    assert file_name_of(address) == file_name_of(plain)
    if '5:"' not in address:  # which has folders inside
        assert folder_of(address) == PurePath(folder)
    if "PG:" not in address:
        assert name_of(address) == name


SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=4, max_size=20).map(
    lambda text: f"Zq{text}qZ"
)
SHAPES = st.sampled_from(
    [
        "{scheme}://{user}:{password}@{host}/a/b.tif?sig={query}",
        "{scheme}://{user}:{password}@{host}/a/b.tif#{query}",
        "/vsicurl/{scheme}://{password}@{host}/a/b.tif?{query}",
        "/vsicurl?max_retry=3&header.X={password}&url={scheme}://{host}/b.tif%3F{password}",
        "vrt://{scheme}://{user}:{password}@{host}/b.tif?bands=1&x={query}",
        "zip+{scheme}://{user}:{password}@{host}/x.zip?sig={query}!in/b.tif",
        "/vsizip//vsicurl/{scheme}://{user}:{password}@{host}/x.zip?sig={query}/in/b.tif",
        "{scheme}:/{user}:{password}@{host}/a/b.tif?sig={query}",
        "/vsizip/{{/vsicurl/{scheme}://{host}/x.zip?sig={password}}}/in/b.tif",
        'NETCDF:"{scheme}://{user}:{password}@{host}/x.nc?sig={password}":B04',
        "netcdf:/vsicurl/{scheme}://{user}:{password}@{host}/x.nc?sig={query}",
        "/vsicrypt/key={password},file=/vsicurl/{scheme}://{host}/b.tif?{query}",
    ]
)


@given(
    SHAPES,
    st.sampled_from(["http", "https", "ftp"]),
    st.sampled_from(["host.org", "127.0.0.1:8765", "[::1]:80"]),
    SECRETS,
    SECRETS,
    SECRETS,
)
def test_a_secret_is_shown_nowhere(shape, scheme, host, user, password, query):
    user, password = quote(user, safe=""), quote(password, safe="")
    address = shape.format(scheme=scheme, host=host, user=user, password=password, query=query)
    message = f"'{address}' not recognized (HTTP 404: {address}): see {address}."
    told = [shown(address), name_of(address), str(folder_of(address)), file_name_of(address)]
    told += [scrub(message, address), with_lost_slash(address) or ""]
    for secret in (user, password, query):
        assert not any(secret in text for text in told), told
    assert "host" in shown(address) or host in shown(address)


def test_addresses_in_other_programs_texts_are_scrubbed():
    text = "CURL error: /vsicurl/https://al:pw@h:80/a.tif?sig=S: 404 (see http://x.org/y), s3://k:v@b/c."
    assert scrub(text) == "CURL error: /vsicurl/https://h:80/a.tif: 404 (see http://x.org/y), s3://b/c."
    assert scrub("a.tif?sig=S&t=1, band 1: failed (radar?)") == "a.tif, band 1: failed (radar?)"
    assert scrub("user al, password hunter2", "https://al:hunter2@h/a.tif") == "user al, password ..."
    assert scrub("C:/a?b and level: /a@b.tif") == "C:/a?b and level: /a@b.tif"


def test_a_local_file_is_shown_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "al:pw@x?y.tif").touch()
    assert shown("al:pw@x?y.tif") == "al:pw@x?y.tif"
    assert shown("2023-01-01T10:00?.tif") == "2023-01-01T10:00?.tif"


def test_long_parts_are_cut_and_told_apart():
    one, other = (f"https://host/{'ä' * 270}{i}/{'b' * 270}{i}.tif" for i in (1, 2))
    assert name_of(one) != name_of(other)
    assert folder_of(one) != folder_of(other)
    assert max(len(part.encode()) for part in (*folder_of(one).parts, name_of(one))) <= 120


def test_a_lost_slash_is_found():
    assert with_lost_slash("http:/al:pw@host:80/a.tif?s=S") == "http://host:80/a.tif"
    assert with_lost_slash("https:host/a.tif") == "https://host/a.tif"
    assert with_lost_slash("http://host/a.tif") is None
    assert with_lost_slash("zip://a.zip!b.tif") is None


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("https://host/a.tif", True),
        ("/vsizip/{/vsicurl/https://host/a.zip}/b.tif", True),
        ("/vsicurl?url=https://host/a.tif", True),
        ("/vsizip/a.zip/b.tif", False),
        ("zip://a.zip!b.tif", False),
        ("file:///a.tif", False),
        ("/data/a.tif", False),
    ],
)
def test_remote_addresses_are_told_from_local_ones(path, remote):
    assert is_remote(path) is remote
