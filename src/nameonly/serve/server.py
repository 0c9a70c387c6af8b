"""Listens, runs the application and ends in good order."""

import ipaddress
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nameonly.classifier import Classifier
from nameonly.extras import import_extra
from nameonly.serve.app import Service, create_app
from nameonly.serve.model import ServedClassifier
from nameonly.serve.settings import Options


def bind(host: str, port: int) -> socket.socket:
    """Take a port, without listening yet.

    Raises:
        OSError: If it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        # asyncio turns off Nagle's delay, 40 ms an answer, where a socket says that it is of TCP
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
        except BaseException:
            taken.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port"
        ) from error
    return taken


def is_local(host: str) -> bool:
    """Return whether only programs of this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_server(app: Any, options: Options) -> Any:
    """Return the uvicorn server of an application; its log goes to Python's."""
    uvicorn = import_extra("uvicorn", "uvicorn", "serve")
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        # what runs at a stop is over by then, one way or the other
        timeout_graceful_shutdown=math.ceil(options.timeout) + 1,
    )
    return uvicorn.Server(config)


def serve(
    classifier: Classifier,
    options: Options,
    host: str,
    port: int,
    say: Callable[[str], None],
) -> None:
    """Serve a classifier until a signal stops it.

    Args:
        classifier: What is served.
        options: The limits.
        host: To listen on.
        port: 0 for any that is free.
        say: Is told the address, and what the user must know.

    Raises:
        ValueError: If a package is missing, or the classifier cannot be served.
        OSError: If the port cannot be had.
    """
    for module, package in (
        ("fastapi", "fastapi"),
        ("uvicorn", "uvicorn"),
        ("python_multipart", "python-multipart"),
        ("prometheus_client", "prometheus-client"),
    ):
        import_extra(module, package, "serve")
    with bind(host, port) as taken:
        model = ServedClassifier(classifier, options.max_pixels)
        model.warm_up()
        server = make_server(create_app(Service(model, options)), options)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{taken.getsockname()[1]}"
        if not is_local(host):
            say("warning: other machines can reach this server, and it asks no one who they are")
        say(f"{len(model.class_names)} classes at {address}/predict, described at {address}/docs")
        with _signals_ended_here():
            server.run(sockets=[taken])


@contextmanager
def _signals_ended_here() -> Iterator[None]:
    """Let a stop in good order end with exit code 0.

    uvicorn answers what runs, and then raises the signal again for whoever handled it before; to
    these handlers nothing is left to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
