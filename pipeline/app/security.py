"""Which requests the app accepts, and the security headers of its answers.

A page of another site, open in the same browser, can send requests to 127.0.0.1, and can make its own name
resolve to that address (DNS rebinding). The `Origin` header reveals the first, the `Host` header the second.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For our own page: scripts, styles and pictures come from this server only, and none is inline."""

UNTRUSTED_POLICY = (
    "sandbox allow-downloads; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'self'"
)
"""For a file that somebody else wrote: it may have any style, but run nothing and contact no server."""

HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SAFE_METHODS = frozenset({"GET", "HEAD"})


class SecurityMiddleware:
    """Rejects requests to a foreign host name or from another site, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        rejection = None
        if not self._is_own_name(headers.get("host", "")):
            rejection = JSONResponse({"error": "The app has another name: use the address it printed."}, 421)
        elif scope["method"] not in SAFE_METHODS and not is_same_origin(headers):
            rejection = JSONResponse({"error": "Pages of other sites may not use the app."}, 403)
        await (rejection or self._app)(scope, receive, send_with_headers)

    def _is_own_name(self, host: str) -> bool:
        """Return whether `Host` is an IP address, which cannot be rebound, or a name of this machine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def is_same_origin(headers: Headers) -> bool:
    """Return whether a request comes from our own page, or from no page at all."""
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")
