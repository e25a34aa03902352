"""`mxgw dashboard --serve`: shows the app in a browser of this machine, with one process of the app per open page.

The library textual-serve provides the page and the WebSocket; this module keeps other programs and users out. The
server listens on loopback only. The page itself is no secret. A program that opens the WebSocket acts as the operator,
so the WebSocket demands a key, which is a part of the printed address. The key is in the fragment of the address (after
#), which no browser sends to a server. The page stores the key for its own origin (`sessionStorage`), and sends it as
the name of a subprotocol when it opens the WebSocket. A cookie would be unsafe, because browsers send cookies to every
port of a machine. The WebSocket refuses every `Origin` except the page's. All requests with a foreign `Host` are
refused too, because a foreign host name could be made to resolve to this machine.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from typing import Any

import click
from aiohttp import web
from aiohttp.log import ws_logger
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

from mxgw_core.api import StopKind, on_stop

HOST = "127.0.0.1"
_HTTP_PORT = 80
_END_WITHIN_S = 5.0
_ELSEWHERE = re.compile(r"<link\s[^>]*https://[^>]*>")
_OUTSIDE = "open the address that `mxgw dashboard --serve` printed, as it is\n"
# The page offers two subprotocols: the first is `_PROTOCOL`, the second is `_KEY_WORD` followed by the key.
_PROTOCOL, _KEY_WORD = "mxgw.dashboard", "mxgw.key."
# This script runs in the page before the script of textual-serve opens the WebSocket.
_SCRIPT = f"""<script>
  (() => {{
    const given = new URLSearchParams(location.hash.slice(1)).get("key");
    if (given) {{
      sessionStorage.setItem("mxgw-key", given);
      history.replaceState(null, "", location.pathname + location.search);
    }}
    const key = sessionStorage.getItem("mxgw-key") || "none";
    const Plain = window.WebSocket;
    window.WebSocket = class extends Plain {{
      constructor(url) {{ super(url, ["{_PROTOCOL}", "{_KEY_WORD}" + key]); }}
    }};
  }})();
</script>
"""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _WithoutKeys(logging.Filter):
    """Drops the log lines in which aiohttp reports unknown subprotocols, because one of them contains the key."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _KEY_WORD not in record.getMessage()


class WebServer(Server):
    """Serves the app that `command` starts. With `port` 0 the system chooses a free port."""

    def __init__(self, command: str, port: int, title: str) -> None:
        super().__init__(command, host=HOST, port=port, title=title)
        self._key = secrets.token_urlsafe(24)
        # The tasks of aiohttp that serve open pages; `on_shutdown` cancels them.
        self._pages: set[asyncio.Task[Any]] = set()

    async def run(self, say: Callable[[str], None]) -> None:
        """Serve until somebody stops this process. First call `say` with a sentence that has the page's address.

        Raises:
            click.ClickException: the port cannot be used.
        """
        without_keys = _WithoutKeys()
        ws_logger.addFilter(without_keys)
        try:
            await self._serve(say)
        finally:
            ws_logger.removeFilter(without_keys)

    async def _serve(self, say: Callable[[str], None]) -> None:
        stopping = asyncio.Event()
        on_stop(lambda _: stopping.set(), *StopKind)
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=_END_WITHIN_S)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, HOST, self.port).start()
            except OSError as error:
                raise click.ClickException(f"port {self.port} cannot be used ({error.strerror}): give --port") from None
            self.port = runner.addresses[0][1]
            self.public_url = f"http://{HOST}:{self.port}"
            say(f"The dashboard is at {self.public_url}/#key={self._key}")
            await stopping.wait()
        finally:
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard())
        app.on_response_prepare.append(_complete)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Do nothing; textual-serve would print a banner here."""

    async def on_shutdown(self, app: web.Application) -> None:
        """End the app of every open page and wait for it, so that each app can log out."""
        del app
        for page in self._pages:
            page.cancel()
        if self._pages:
            await asyncio.wait(self._pages, timeout=_END_WITHIN_S)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run a process of the app for the page that opens this WebSocket.

        Raises:
            web.HTTPForbidden: the request does not have the right key, or comes from another page.
        """
        if request.headers.get("Origin") not in self._origins or not self._has_key(request):
            raise web.HTTPForbidden(text=_OUTSIDE)
        page = asyncio.current_task()
        assert page is not None
        self._pages.add(page)
        try:
            return await super().handle_websocket(request)
        finally:
            self._pages.discard(page)

    async def handle_index(self, request: web.Request) -> web.Response:
        """Return the page of textual-serve with `_SCRIPT` added, and without links to files in the internet.

        The network of a plant usually has no access to the internet.
        """
        page = await super().handle_index(request)
        assert isinstance(page, web.Response)
        page.text = _ELSEWHERE.sub("", page.text or "").replace("<head>", f"<head>\n{_SCRIPT}", 1)
        return page

    def _guard(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            origins = self._origins
            if f"http://{request.host}" not in origins or request.headers.get("Origin", origins[0]) not in origins:
                raise web.HTTPForbidden(text=_OUTSIDE)
            return await handler(request)

        return guard

    @property
    def _origins(self) -> tuple[str, ...]:
        """The ways in which browsers can write the origin of this page. Browsers leave out port 80 (RFC 6454, 6.2)."""
        with_port = f"http://{HOST}:{self.port}"
        return (with_port, f"http://{HOST}") if self.port == _HTTP_PORT else (with_port,)

    def _has_key(self, request: web.Request) -> bool:
        words = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        # aiohttp decodes bytes that are not UTF-8 to surrogates, which need this error handler to be encoded again.
        sent = [word.encode(errors="surrogateescape") for word in words]
        return any(secrets.compare_digest(word, f"{_KEY_WORD}{self._key}".encode()) for word in sent)


async def _complete(request: web.Request, response: web.StreamResponse) -> None:
    """Add `_HEADERS` to a response, and `_PROTOCOL` to the response that opens a WebSocket.

    A browser closes a WebSocket when the server chooses none of the offered subprotocols; textual-serve chooses none.
    """
    del request
    response.headers.update(_HEADERS)
    if isinstance(response, web.WebSocketResponse):
        response.headers["Sec-WebSocket-Protocol"] = _PROTOCOL
