"""
How requests leave: the official SDK's client, made safe. It opens a connection for each request.

What the SDK (6.12, python_http_client 3.3) does not do by itself is done here: every wait ends, no answer is followed
elsewhere, no address and no key is logged, and an answer that is lost is told from a request that never left.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from python_http_client import Client  # type: ignore[import-untyped]
from python_http_client.client import Response  # type: ignore[import-untyped]
from python_http_client.exceptions import HTTPError  # type: ignore[import-untyped]
from sendgrid import SendGridAPIClient

from outreach.channels.sendgrid.answers import Answer

# The SDK logs whole requests, addresses and the key included, when debugging is on.
logging.getLogger("python_http_client").setLevel(logging.INFO)


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Straight(Client):  # type: ignore[misc]
    """
    The SDK's client, but that no answer is followed elsewhere.

    urllib would repeat the key at whatever host a redirect names, and what failed there would look as if the
    first host had not been reached.

    Any thread may use it: each path's client has headers of its own, which the SDK's share and change.
    """

    opener: OpenerDirector

    def post(self, request_body: Any) -> Response:
        """
        What the SDK's own `post` does, faster.

        That one reads the system's proxy settings for every request, and writes every request out for its log,
        whether or not it is logged. JSON is UTF-8 (RFC 8259 section 8.1): nothing needs to be written in ASCII.
        """
        headers = {**self.request_headers, "Content-Type": "application/json"}
        data = _JSON.encode(request_body).encode("utf-8", "replace")
        request = Request(self._build_url(None), data, headers, method="POST")  # noqa: S310  the settings' own host
        return Response(self._make_request(self.opener, request))

    def _build_client(self, name: str | None = None) -> Straight:
        path = [*self._url_path, name] if name else self._url_path
        made = Straight(self.host, dict(self.request_headers), self._version, path, timeout=self.timeout)
        made.opener = self.opener
        return made

    def _make_request(self, opener: OpenerDirector, request: Request, timeout: float | None = None) -> Any:  # noqa: ARG002
        return super()._make_request(self.opener, request, timeout)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect is an answer like any other."""


def client(key: str, host: str, timeout: float) -> Any:
    """The client of an account; `timeout` in seconds, of each wait."""
    api = SendGridAPIClient(key, host=host)
    made = Straight(host, api.client.request_headers, version=3, timeout=timeout)  # the SDK's own waits for ever
    where = urlsplit(host)
    handlers: list[Any] = [_NoRedirects()]
    if where.scheme == "https":  # one context for all: reading the authorities takes 40 ms
        handlers.append(HTTPSHandler(context=ssl.create_default_context()))
    if where.hostname in ("127.0.0.1", "localhost", "::1"):  # where no proxy leads
        handlers.append(ProxyHandler({}))
    made.opener = build_opener(*handlers)
    return made


def post(resource: Any, body: Mapping[str, Any]) -> Answer:
    """
    The answer, or what is known without one; never an exception.

    urllib makes a URLError of what fails before the request is written whole, and of nothing that fails later
    (`urllib.request.AbstractHTTPHandler.do_open`).
    """
    try:
        return _answer(resource.post(request_body=body))
    except HTTPError as error:
        return _answer(error)
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return Answer(not_taken=True, wrong=True, why="the certificate of SendGrid's host is not valid")
        return Answer(not_taken=True, why=f"SendGrid cannot be reached: {_why(error.reason)}")
    except (OSError, HTTPException) as error:
        return Answer(why=f"SendGrid's answer did not come: {_why(error)}")
    except Exception as error:  # an answer that nobody foresaw must not take the other requests along
        return Answer(why=f"SendGrid's answer cannot be read: {type(error).__name__}")


def get(resource: Any, query: Mapping[str, str] | None = None) -> Answer:
    """The answer, or why there is none."""
    try:
        return _answer(resource.get(query_params=query))
    except HTTPError as error:
        return _answer(error)
    except (OSError, HTTPException) as error:
        return Answer(why=_why(error.reason if isinstance(error, URLError) else error))


def _answer(response: Any) -> Answer:
    return Answer(response.status_code, response.body or b"", response.headers or {})


def _why(error: object) -> str:
    """Never more than the system's own words: an exception's text may hold anything."""
    return getattr(error, "strerror", None) or type(error).__name__
