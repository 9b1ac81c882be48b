"""The server of the lab: pages on 127.0.0.1, for a browser that knows the token."""

import hmac
import os
import re
import secrets
import socket
import sys
import webbrowser
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from dlworkshop.errors import UserError
from dlworkshop.report import elements, terminal

HOST = "127.0.0.1"
PAGES = {
    "playground": ("Playground", "Watch a population train."),
    "digit": ("Draw a digit", "See what the members of a run predict, and why."),
    "explore": ("Explore a run", "Members, curves, mistakes and filters."),
    "gradients": ("Gradient check", "Break a derivative, and see the check find it."),
}
# Besides itself a page needs three calls and the code of its widgets. All other
# requests are rejected; marimo too rejects most of them for pages without an editor.
CALLS = re.compile(
    r"/api/(?!kernel/(set_ui_element_value|set_model_value|function_call)\Z)"
)
FILES = re.compile(r"/@file/(?!\d+-[\w-]+\.(js|css)\Z)")
OTHERS = re.compile(r"/(terminal|lsp|public)/")
LOCAL = {HOST, "localhost"}
DENIED = "Open the address that `dlworkshop lab` printed."


class Guard:
    """ASGI application that forwards requests only from a browser with the token.

    Pages of other sites can send requests to the ports of this machine too. They do not
    know the token, and they have another origin, or another host if their name was
    made to resolve to this machine.
    """

    def __init__(self, app: Any, token: str, meta: dict[str, str | None]):
        self._app, self._token, self._meta = app, token, meta

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request or a websocket."""
        from starlette.requests import HTTPConnection  # noqa: PLC0415 (an extra)
        from starlette.responses import (  # noqa: PLC0415
            PlainTextResponse,
            RedirectResponse,
        )

        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        cookie = f"dlworkshop-lab-{scope['server'][1]}"
        given = asked.query_params.get("token")
        if not self._is_ours(asked):
            answer = PlainTextResponse(DENIED, 403)
        elif given is not None and self._knows(given) and scope["type"] == "http":
            answer = RedirectResponse(asked.url.remove_query_params("token"), 303)
            answer.set_cookie(cookie, given, httponly=True, samesite="strict")
        elif not self._knows(asked.cookies.get(cookie, "")):
            answer = PlainTextResponse(DENIED, 403)
        elif not is_served(scope["path"]):
            answer = PlainTextResponse("There is no such page.", 404)
        else:
            await self._app({**scope, "meta": self._meta}, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())

    def _is_ours(self, asked: Any) -> bool:
        host, origin = asked.headers.get("host", ""), asked.headers.get("origin")
        return host.rpartition(":")[0] in LOCAL and origin in (None, f"http://{host}")


def is_served(path: str) -> bool:
    """Whether a path is one that the pages request.

    >>> is_served("/a/api/kernel/set_model_value"), is_served("/a/api/kernel/run")
    (True, False)
    >>> is_served("/digit/@file/9-a1.js"), is_served("/digit/@file/9-/etc/passwd")
    (True, False)
    """
    return not any(other.search(path) for other in (CALLS, FILES, OTHERS))


def application(token: str, run: Path | None) -> Any:
    """The pages as an ASGI application.

    Args:
        token: secret that a browser must know.
        run: folder of the run for the pages that show one.
    """
    import marimo  # noqa: PLC0415 (an extra)
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.responses import HTMLResponse  # noqa: PLC0415
    from starlette.routing import Mount, Route  # noqa: PLC0415

    # pages without an editor: they neither receive code nor send any
    builder = marimo.create_asgi_app(quiet=True, include_code=False)
    apps = resources.files("dlworkshop.lab.apps")
    for page in PAGES:
        builder = builder.with_app(path=f"/{page}", root=str(apps / f"{page}.py"))
    pages = Mount("/", builder.build())
    first = Route("/", lambda _: HTMLResponse(index(run)))
    meta = {"run": None if run is None else str(run.resolve())}
    return Guard(Starlette(routes=[first, pages]), token, meta)


def index(run: Path | None) -> str:
    """The first page: links to the others."""
    tag = elements.tag
    items = [
        tag("li", tag("a", title, href=f"{page}/"), tag("p", words, class_="note"))
        for page, (title, words) in PAGES.items()
    ]
    about = f"The run is {run}." if run else "Two pages need a run: dlworkshop lab RUN"
    parts = [
        tag("header", tag("h1", "dlworkshop lab")),
        tag("main", tag("ul", *items), tag("p", about, class_="note")),
    ]
    return elements.document("dlworkshop lab", elements.join(parts))


def serve(run: Path | None, port: int, browser: bool) -> NoReturn:
    """Serve the pages until a signal stops the server; then end the process.

    Args:
        run: folder of the run for the pages that show one.
        port: of this machine; 0 chooses a free one.
        browser: whether to open a browser.

    Raises:
        UserError: if marimo is not installed, the port is in use, or the folder is not
            the folder of a finished run.
    """
    try:
        import anywidget  # noqa: F401, PLC0415 (extras)
        import marimo  # noqa: F401, PLC0415
        import uvicorn  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            f"dlworkshop lab needs {error.name}, which is not installed: "
            "pip install 'dlworkshop[lab]'"
        ) from error
    if run is not None:
        from dlworkshop.serve.load import load  # noqa: PLC0415 (JAX)

        load(run)  # raises if the pages could not show it
    token = secrets.token_urlsafe(16)
    with listening(port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/?token={token}"
        terminal.print_line(f"lab: {address}")
        sys.stdout.flush()
        config = uvicorn.Config(
            application(token, run),
            log_config=None,
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        if browser:  # its request waits in the queue until the server starts
            webbrowser.open(address)
        try:
            uvicorn.Server(config).run(sockets=[listener])
            code = 0
        except SystemExit as left:  # raised by a signal
            code = left.code if isinstance(left.code, int) else 1
    # the threads of open pages wait for messages and would keep the process alive
    sys.stdout.flush()
    os._exit(code)


def listening(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1.

    >>> with listening(0) as listener:
    ...     listener.getsockname()[0]
    '127.0.0.1'
    """
    if not 0 <= port < 1 << 16:
        raise UserError(f"port is {port}: give a number from 0 to 65535")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"port {port} of {HOST} cannot be used ({error.strerror}): give another "
            "port with --port, or 0 for a free one"
        ) from None
    listener.listen()
    return listener
