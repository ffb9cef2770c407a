"""Scenes' addresses: how they are shown, named and placed, so that no secret in one is seen. Strings only.

GDAL is handed an address as the user gave it: https://user:password@host:8080/a.tif?signature=...,
/vsis3/bucket/a.tif, zip+https://host/a.zip!b.tif, /vsizip/{/vsicurl/https://host/a.zip}/b.tif,
NETCDF:"a.nc":B04. Everything else gets it from here, without user information, query, fragment and keys.
"""

import hashlib
import os
import re
from pathlib import Path, PurePath
from urllib.parse import parse_qs, unquote

_ADDRESS = re.compile(r"/vsi\w+[/?]|[A-Za-z][\w+.-]+:")

# Services and schemes that are read over the network.
_REMOTE = re.compile(
    r"(?:/vsi\w+[/{]*?)*?/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(?:_streaming)?[/?]"
    r"|(?!(?:file|zip|tar|gzip|vrt):)[A-Za-z][\w+.-]+://",
    re.IGNORECASE,
)

_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:/+|(?<![\w+.-])(?:https?|ftp|s3|gs|az):", re.IGNORECASE)
_OPTIONS = re.compile(r"(/vsi\w+)\?")
_KEY = re.compile(
    r"([\w.-]*(?:key|passw|pwd|token|secret|sig|credential|auth)[\w.-]*)=(?:'[^']*'|[^,&;\s]*)", re.IGNORECASE
)
_IN_TEXT = re.compile(r"(?:/vsi\w+\?|[A-Za-z][\w+.-]+:/)[^\s'\"<>`]*[^\s'\"<>`).,:;]")
_QUERY_IN_TEXT = re.compile(r"(?<=\w)\?[\w.~%+-]+=[^\s'\"<>,)]*|(?<=\.tif)\?[^\s'\"<>,)]+")
_LOCAL_ARCHIVE = re.compile(r"/vsizip/\{?(.*\.zip)\b.*", re.IGNORECASE)
_SUBDATASET = re.compile(r'[A-Za-z]\w+:(?!//)"?(.+?\.\w+)"?:([\w/ .-]+)')
_LOST_SLASH = re.compile(r"(https?|ftp|s3|gs|az):/?(?!/)", re.IGNORECASE)

LONGEST_PART = 120
"""Bytes that a folder or a name made from an address may have; disks allow 255, endings included."""

_SHORTEST_SECRET = 4
"""Letters; hiding shorter ones wherever they occur would garble the text."""


def is_address(path: str) -> bool:
    """Return whether only GDAL can open a path: a remote one, one inside an archive, or a subdataset."""
    return _ADDRESS.match(path) is not None and not is_there(path)


def is_there(path: str) -> bool:
    """Return whether there is a file or folder; False too where a path is too long or cannot be looked up."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_remote(path: str) -> bool:
    """Return whether an address is read over the network."""
    return _REMOTE.match(path) is not None


def shown(path: str) -> str:
    """Return a path or address for people to read, without secrets; bytes that are not text are escaped."""
    plain = without_secrets(path) if is_address(path) else path
    return plain.encode("utf-8", "backslashreplace").decode("utf-8")


def without_secrets(address: str) -> str:
    """Return an address without user information, query, fragment and keys, wherever these are in it."""
    return _KEY.sub(r"\1=", _without_secrets(address))


def scrub(text: str, *addresses: str) -> str:
    """Return a text, such as GDAL's reason for an error, without the secrets of the addresses that it quotes.

    Of the `addresses` that are given, the secrets are found in any form; of others, in whole addresses.
    """
    for address in addresses:
        if is_address(address):
            text = text.replace(address, shown(address))
            for secret in sorted(_secrets(address), key=len, reverse=True):
                text = text.replace(secret, "...")
    text = _IN_TEXT.sub(lambda found: without_secrets(found[0]), text)
    return _QUERY_IN_TEXT.sub("", text)  # GDAL also quotes the last part of an address alone


def name_of(address: str) -> str:
    """Return what to name files after: the file's stem, and the subdataset's name if it is one."""
    plain = without_secrets(address).rstrip("/")
    subdataset = _SUBDATASET.fullmatch(plain)
    file, inner = subdataset.groups() if subdataset else (plain, "")
    stem = PurePath(_parts(file)[-1:][0] if _parts(file) else "scene").stem
    return _short(re.sub(r"[^\w.-]+", "_", f"{stem}_{inner.strip('/')}" if inner else stem))


def file_name_of(path: str) -> str:
    """Return the last part of a path or address, as a folder may be called."""
    return (_parts(shown(path)) or ["scene"])[-1]


def folder_of(address: str) -> PurePath:
    """Return where in an output folder the map of an address goes: host and port, then the folders.

    https://host:8080/a/b.tif and /vsicurl/https://host:8080/a/b.tif both go to host_8080/a.
    """
    return PurePath(*_parts(without_secrets(address))[:-1])


def local_archive(path: str) -> str | None:
    """Return the archive that a /vsizip/ path leads into; None for any other path."""
    match = _LOCAL_ARCHIVE.fullmatch(path)
    return match[1] if match else None


def inside_archive(address: str) -> str | None:
    """Return a.zip/b.tif for /vsizip/a.zip/b.tif, /vsizip/{a.zip}/b.tif and zip://a.zip!b.tif; else None."""
    match = re.fullmatch(r"(?:/vsizip/|zip://)(.+)", without_secrets(address))
    return match[1].translate({ord("{"): None, ord("}"): None, ord("!"): "/"}) if match else None


def with_lost_slash(address: str) -> str | None:
    """Return the address that is meant by one such as http:/host/a.tif, for people; None if it is whole."""
    match = _LOST_SLASH.match(address)
    return f"{match[1]}://{without_secrets(address)[match.end() :]}" if match else None


def _without_secrets(text: str) -> str:
    if options := _OPTIONS.search(text):
        content, tail = _split_tail(text[: options.start()], text[options.end() :])
        url = parse_qs(content).get("url", [""])[0]
        return f"{text[: options.start()]}{options[1]}/{_without_secrets(url)}{tail}"
    scheme = _SCHEME.search(text)
    if scheme is None:
        return re.sub(r"^(?![A-Z\d_]+:)[^/@\s]*:.*@", "", text)
    before, body = text[: scheme.end()], text[scheme.end() :]
    url, tail = _split_tail(before, body)
    url = url[_user_info(url) :]
    plain = re.split(r"[?#]", url)[0]
    if inner := _SCHEME.search(plain):  # one in another: vrt://https://host/a.tif?bands=1
        return f"{before}{url[: inner.start()]}{_without_secrets(url[inner.start() :])}{tail}"
    if len(plain) < len(url) and "!" in tail:
        tail = ""  # it cannot be told from a query that has an exclamation mark in it
    return f"{before}{re.sub(r';[^/]*', '', plain)}{tail}"


def _split_tail(before: str, body: str) -> tuple[str, str]:
    """Return the address in `body` and what follows it: a file in an archive, or a subdataset."""
    for opening, closing in (("{", "}"), ('"', '"')):
        if opening in before and body.count(closing) == 1:
            url, _, tail = body.partition(closing)
            return url, closing + tail
    if re.match(r"(?:zip|tar|gzip)\b", before) and "!" in body:
        url, _, tail = body.partition("!")
        return url, "!" + tail
    return body, ""


def _user_info(url: str) -> int:
    """Return how many letters at the start of host/path?query are user information.

    Of alice:se/cret@host, which should have %2F in it, that is all before the @ too. If there are several,
    where the host begins cannot be told, and all letters count.
    """
    authority = re.split(r"[/?#]", url)[0]
    if "@" in authority:
        return authority.rindex("@") + 1
    port = re.sub(r"^\[[^\]]*\]", "", authority).partition(":")[2]
    if not port or port.isdigit() or "@" not in url:
        return 0
    return url.index("@") + 1 if url.count("@") == 1 else len(url)


def _secrets(address: str) -> set[str]:
    """Return what an address has that its shown form has not: user information, query and their parts."""
    kept = without_secrets(address)
    pieces = {piece for piece in re.split(r"[/?&#=:@!{}\";,]+", address) if piece not in kept}
    if match := re.search(r"//([^/?#]*)@", address):
        pieces |= {match[1], match[1].partition(":")[2]}
    pieces |= {unquote(piece) for piece in pieces}
    return {piece for piece in pieces if len(piece) >= _SHORTEST_SECRET and piece not in kept}


def _parts(plain: str) -> list[str]:
    """Return host, folders and file of an address without secrets, as folders may be called."""
    plain = re.sub(r"^[A-Za-z]\w+:(?=/vsi)", "", plain)
    bare = re.sub(r"/vsi\w+/|[A-Za-z][\w+.-]+:/+|^[A-Za-z]\w+:", "/", plain).replace("!", "/")
    parts = [re.sub(r"[^\w.=@+ -]", "_", part.strip('{}"')) for part in bare.split("/")]
    return [_short(part) for part in parts if part.strip("_. ")]


def _short(part: str) -> str:
    """Return a name that is not too long, told apart from others by a digest."""
    data = os.fsencode(part)
    if len(data) <= LONGEST_PART:
        return part
    digest = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[: LONGEST_PART - 9].decode('utf-8', 'ignore')}-{digest}"
