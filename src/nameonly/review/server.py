"""The review's web server: the page, the images by number, the decisions.

FastAPI and uvicorn are imported when a server is made: the core works without them.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import FrameType
from typing import TYPE_CHECKING, Any

from nameonly.extras import import_extra
from nameonly.images import BadImageError
from nameonly.review import answers
from nameonly.review.answers import Review
from nameonly.review.guard import LOOPBACK, Guard
from nameonly.review.pictures import LARGE_SIDE, SMALL_SIDE, Pictures

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

DECODING_AT_ONCE = 4
ASSETS = {
    "review.css": "text/css",
    "icon.svg": "image/svg+xml",
    "review.js": "text/javascript",
    "grid.js": "text/javascript",
    "panel.js": "text/javascript",
    "picker.js": "text/javascript",
    "store.js": "text/javascript",
}
ANY_HOST = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Site:
    """What is served.

    Attributes:
        review: Labels, queues and decisions.
        pictures: The images.
        on_decided: Called after every decision.
        token: The secret in every address.
    """

    review: Review
    pictures: Pictures
    on_decided: Callable[[], None] = lambda: None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))


def build_app(site: Site) -> "FastAPI":
    """Return the application, without its guard.

    Raises:
        ValueError: If FastAPI is not installed.
    """
    fastapi = import_extra("fastapi", "fastapi", "review")
    app: FastAPI = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_page(app, site)
    _add_images(app, site)
    _add_decisions(app, site)
    return app


def _add_page(app: "FastAPI", site: Site) -> None:
    from fastapi import Response

    columns = json.dumps(answers.image_columns(site.review.labels), ensure_ascii=False).encode()
    rows = tuple(site.review.queues.values())

    def page() -> Response:
        return Response(_page(site), media_type="text/html")

    def images() -> Response:
        return Response(columns, media_type="application/json")

    def queues() -> Any:
        return answers.queue_list(site.review)

    def queue(number: int) -> Response:
        if not 0 <= number < len(rows):
            return Response("there is no such queue", 404, media_type="text/plain")
        return Response(json.dumps(list(rows[number])), media_type="application/json")

    def asset(name: str) -> Response:
        if name not in ASSETS:
            return Response("there is no such page", 404, media_type="text/plain")
        return Response(_text(name), media_type=ASSETS[name])

    routes: dict[str, Callable[..., Any]] = {
        "/": page,
        "/images": images,
        "/queues": queues,
        "/queues/{number}": queue,
        "/page/{name}": asset,
    }
    for path, answer in routes.items():
        app.add_api_route(path, answer, methods=["GET"], response_model=None)


def _add_images(app: "FastAPI", site: Site) -> None:
    from fastapi import Request, Response
    from fastapi.concurrency import run_in_threadpool

    gate = asyncio.Semaphore(DECODING_AT_ONCE)

    async def picture(image: int, side: int, request: Request) -> Response:
        if not 0 <= image < len(site.pictures):
            return Response("there is no such image", 404, media_type="text/plain")
        data = site.pictures.kept(image, side)
        if data is None:
            async with gate:
                if await request.is_disconnected():  # scrolled away while it waited
                    return Response(status_code=499)
                try:
                    data = await run_in_threadpool(site.pictures.make, image, side)
                except BadImageError as error:
                    return Response(str(error), 404, media_type="text/plain")
        headers = {"cache-control": "private, max-age=3600"}
        return Response(data, media_type="image/webp", headers=headers)

    async def small(image: int, request: Request) -> Response:
        return await picture(image, SMALL_SIDE, request)

    async def large(image: int, request: Request) -> Response:
        return await picture(image, LARGE_SIDE, request)

    app.add_api_route("/small/{image}", small, methods=["GET"], response_model=None)
    app.add_api_route("/large/{image}", large, methods=["GET"], response_model=None)


def _add_decisions(app: "FastAPI", site: Site) -> None:
    from fastapi.responses import JSONResponse

    def changes(since: int = 0) -> Any:
        return answers.changes(site.review, since)

    def decide(body: dict[str, Any]) -> JSONResponse:
        try:
            status, answer = answers.decide(site.review, body)
        except ValueError as error:
            return JSONResponse({"problem": str(error)}, 422)
        except OSError as error:
            return JSONResponse({"problem": f"nothing was saved: {error}"}, 507)
        site.on_decided()
        return JSONResponse(answer, status)

    app.add_api_route("/changes", changes, methods=["GET"], response_model=None)
    app.add_api_route("/decisions", decide, methods=["POST"], response_model=None)


@cache
def _text(name: str) -> str:
    return files("nameonly.review").joinpath(name).read_text(encoding="utf-8")


def _page(site: Site) -> str:
    from jinja2 import Environment, StrictUndefined

    labels = site.review.labels
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return template.from_string(_text("page.html.jinja")).render(
        source=labels.source, folder=str(labels.folder), n_images=len(labels)
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections; port 0 is a free one.

    Raises:
        OSError: If the address is taken or is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off the 40 ms that an answer in two parts would wait only where TCP is named
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name != "nt":  # where it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
        return listening
    except (OSError, OverflowError) as error:
        listening.close()
        raise OSError(
            f"cannot listen on {host} port {port} ({error}); leave --port out for a free one"
        ) from error


def address(listening: socket.socket, site: Site) -> str:
    """Return the link that opens the page."""
    host, port = listening.getsockname()[:2]
    if host in ANY_HOST:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{site.token}/"


def make_server(site: Site, host: str) -> "Server":
    """Return a server that answers on ``host``; ``run(sockets=[listen(...)])`` starts it.

    Raises:
        ValueError: If uvicorn or FastAPI is not installed.
    """
    uvicorn = import_extra("uvicorn", "uvicorn", "review")
    any_address = host in ANY_HOST
    names = (*LOOPBACK, socket.gethostname().casefold() if any_address else host.casefold())
    guarded = Guard(build_app(site), site.token, names, any_address)
    # no log of requests: their addresses hold the token
    config = uvicorn.Config(
        guarded,
        access_log=False,
        log_level="error",
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server: Server = uvicorn.Server(config)
    return server


def serve(site: Site, listening: socket.socket, host: str, show: bool) -> None:
    """Answer until Ctrl-C or a polite kill.

    Args:
        site: What is served.
        listening: A socket, see ``listen``.
        host: That it listens on.
        show: Open the page in the browser.

    Raises:
        ValueError: If uvicorn or FastAPI is not installed.
    """
    server = make_server(site, host)
    if show:  # in a thread: a browser of the terminal would hold this one
        threading.Thread(
            target=webbrowser.open, args=(address(listening, site),), daemon=True
        ).start()
    # uvicorn stops on both signals and then raises them again, for whoever was there before it
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
