"""The server of the lab: its pages on 127.0.0.1, for the browser that was shown in."""

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
    "playground": ("Playground", "A population trains while you look."),
    "digit": ("Draw a digit", "The members of a run answer, and show why."),
    "explore": ("Explore a run", "Members, curves, mistakes and filters."),
    "gradients": ("Gradient check", "Break a derivative, and see it found."),
}
# What a page needs beside itself: three calls, and the code of its widgets. marimo has
# more to offer, and refuses most of it itself where a page is not to be edited; nothing
# else is passed on here.
CALLS = re.compile(
    r"/api/(?!kernel/(set_ui_element_value|set_model_value|function_call)\Z)"
)
FILES = re.compile(r"/@file/(?!\d+-[\w-]+\.(js|css)\Z)")
OTHERS = re.compile(r"/(terminal|lsp|public)/")
LOCAL = {HOST, "localhost"}
DENIED = "Open the address that `dlworkshop lab` printed."


class Guard:
    """Passes on what comes from the browser that knows the token, and its pages.

    A page of another site reaches this machine's ports as well: it cannot know the
    token, and names another origin; or, where its name was made to lead here, another
    host.
    """

    def __init__(self, app: Any, token: str, meta: dict[str, str | None]):
        self._app, self._token, self._meta = app, token, meta

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request or socket."""
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
    """Whether a path is one that the pages ask for.

    >>> is_served("/a/api/kernel/set_model_value"), is_served("/a/api/kernel/run")
    (True, False)
    >>> is_served("/digit/@file/9-a1.js"), is_served("/digit/@file/9-/etc/passwd")
    (True, False)
    """
    return not any(other.search(path) for other in (CALLS, FILES, OTHERS))


def application(token: str, run: Path | None) -> Any:
    """The pages as an ASGI application.

    Args:
        token: which a browser has to know.
        run: the folder that the pages on a run are about.
    """
    import marimo  # noqa: PLC0415 (an extra)
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.responses import HTMLResponse  # noqa: PLC0415
    from starlette.routing import Mount, Route  # noqa: PLC0415

    # pages that cannot be edited: their code stays here, and none comes from them
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
    about = (
        f"The run is {run}." if run else "Two of them want a run: dlworkshop lab RUN"
    )
    parts = [
        tag("header", tag("h1", "dlworkshop lab")),
        tag("main", tag("ul", *items), tag("p", about, class_="note")),
    ]
    return elements.document("dlworkshop lab", elements.join(parts))


def serve(run: Path | None, port: int, browser: bool) -> NoReturn:
    """Serve the pages until the program is stopped, which ends the process.

    Args:
        run: the folder of a run, for the pages that are about one.
        port: of this machine; 0 takes a free one.
        browser: whether to open one.

    Raises:
        UserError: if marimo is missing, the port is taken, or the folder is not that
            of a finished run.
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

        load(run)  # what it cannot show is said here
    token = secrets.token_urlsafe(16)
    with listening(port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/?token={token}"
        terminal.say(f"lab: {address}")
        sys.stdout.flush()
        config = uvicorn.Config(
            application(token, run),
            log_config=None,
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        if browser:  # it waits in the queue until the server answers
            webbrowser.open(address)
        try:
            uvicorn.Server(config).run(sockets=[listener])
            code = 0
        except SystemExit as left:  # of a signal
            code = left.code if isinstance(left.code, int) else 1
    # threads of pages that are open wait for messages, and would keep the process
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
            "with --port, or 0 for a free one"
        ) from None
    listener.listen()
    return listener
