"""`mxgw dashboard --serve`: the same app in a browser of this machine, one process of the app per open page.

textual-serve brings the page and the socket. What is here keeps others out: it listens on loopback only, answers to no
other host name, and shows itself only to a browser that was given the address with its key. A page of somebody else
cannot open the socket either, because the cookie does not go with its requests.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
from collections.abc import Callable
from typing import Any

import click
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

HOST = "127.0.0.1"
_END_WITHIN_S = 5.0
_ELSEWHERE = re.compile(r"<link\s[^>]*https://[^>]*>")
_OUTSIDE = "open the address that `mxgw dashboard --serve` printed: it has a key that this request did not bring\n"


class WebServer(Server):
    """Serves `command`, which shows the app. `port` 0: any that is free."""

    def __init__(self, command: str, port: int, title: str) -> None:
        super().__init__(command, host=HOST, port=port, title=title)
        self._key = secrets.token_urlsafe(24)
        # The calls that serve open pages; aiohttp's own, cancelled at the end.
        self._pages: set[asyncio.Task[Any]] = set()

    async def run(self, say: Callable[[str], None]) -> None:
        """Serve until a signal asks to stop; `say` is told the address.

        Raises:
            click.ClickException: the port cannot be used.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, stopping.set)
            except NotImplementedError:  # Windows: Ctrl-C cancels, see asyncio.Runner
                break
        # No access log: the first request has the key in it.
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=_END_WITHIN_S)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, HOST, self.port).start()
            except OSError as error:
                raise click.ClickException(f"port {self.port} cannot be used ({error.strerror}): give --port") from None
            self.port = runner.addresses[0][1]
            self.public_url = f"http://{HOST}:{self.port}"
            say(f"The dashboard is at {self.public_url}/?key={self._key}")
            await stopping.wait()
        finally:
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard())
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing of one's own."""

    async def on_shutdown(self, app: web.Application) -> None:
        """End the app of every open page in order, so that it gives its login back."""
        del app
        for page in self._pages:
            page.cancel()
        if self._pages:
            await asyncio.wait(self._pages, timeout=_END_WITHIN_S)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run an app for this page."""
        page = asyncio.current_task()
        assert page is not None
        self._pages.add(page)
        try:
            return await super().handle_websocket(request)
        finally:
            self._pages.discard(page)

    async def handle_index(self, request: web.Request) -> web.Response:
        """Return the page, without what it would load from elsewhere: a plant has no internet."""
        page = await super().handle_index(request)
        assert isinstance(page, web.Response)
        page.text = _ELSEWHERE.sub("", page.text or "")
        return page

    def _guard(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            cookie = f"mxgw_dashboard_{self.port}"  # cookies do not tell ports apart
            # Another name that leads here is how a page from elsewhere gets to talk to this machine.
            if request.host not in (f"{HOST}:{self.port}", f"localhost:{self.port}"):
                raise web.HTTPForbidden(text=_OUTSIDE)
            if self._is_key(request.cookies.get(cookie)):
                return await handler(request)
            if request.path == "/" and self._is_key(request.query.get("key")):
                # The key leaves the address line, and so the history.
                answer = web.Response(status=303, headers={"Location": "/"})
                answer.set_cookie(cookie, self._key, httponly=True, samesite="Strict")
                return answer
            raise web.HTTPForbidden(text=_OUTSIDE)

        return guard

    def _is_key(self, word: str | None) -> bool:
        return secrets.compare_digest((word or "").encode(), self._key.encode())
