"""Serving: uvicorn in a thread of its own, so that it runs beside the stages or alone, and ends when told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from outreach.errors import ListenError

LAST_SECONDS = 10  # that requests under way have left when the server ends


def listen(host: str, port: int) -> socket.socket:
    """
    A socket that listens at this address; port 0 takes any that is free.

    Raises:
        ListenError: somebody else listens there already, or it is no address of this machine.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ListenError(
            f"{host}:{port} cannot be listened on ({why}): choose another with --host and --port"
        ) from error


@contextmanager
def serving(app: FastAPI, listening: socket.socket) -> Iterator[str]:
    """
    Serve the app at the socket while this lasts; gives the address.

    On leaving nothing new is taken, and requests under way are answered first. What was answered with
    success is on disk, so nothing depends on this.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # addresses of pages are secrets of their recipients
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="web", daemon=True)
    host, port, *_ = listening.getsockname()
    thread.start()
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(LAST_SECONDS + 5)
        listening.close()
