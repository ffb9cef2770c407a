"""Who may speak to the app: pages of the app itself, under the app's own address.

A page from elsewhere, open in the same browser, can send requests to 127.0.0.1, and can make its own name
point there (DNS rebinding). The `Host` header tells the second kind, `Origin` the first.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Everything comes from here: no script, style, font or picture of anybody else's, nor any inside the page.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A file that somebody else wrote: it may look as it likes, but do nothing and reach nobody.
FOREIGN_POLICY = (
    "sandbox allow-downloads; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
READING = frozenset({"GET", "HEAD"})


class Guard:
    """Refuses requests that come under another name or from another site; adds the headers above."""

    def __init__(self, app: ASGIApp, host: str):
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
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
        refusal = None
        if not self._is_our_name(headers.get("host", "")):
            refusal = JSONResponse({"error": "The app is not known under this name: use its address."}, 421)
        elif scope["method"] not in READING and not is_own_page(headers):
            refusal = JSONResponse({"error": "Another site's page may not use the app."}, 403)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _is_our_name(self, host: str) -> bool:
        """Tell whether `Host` is a number, which no other site's name can be, or a name of this machine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def is_own_page(headers: Headers) -> bool:
    """Tell whether a request that changes something comes from our page, or from no page at all."""
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")
