"""
How requests leave: the official SDK's synchronous client, which repeats nothing by itself.

The SDK (9.13) waits for ever unless told otherwise, has no base URL, keeps Retry-After from us and
would write the people's numbers into the log; its asynchronous client posts again after a 5xx and so
sends twice, which is why it is not used.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ConnectTimeout, InvalidProxyURL, InvalidURL, MissingSchema
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProxyError

LONGEST_RETRY_AFTER = timedelta(days=1)
IDLE = 20.0  # seconds; load balancers close after 60, and a request on a connection just closed is in doubt


class Http(TwilioHttpClient):  # type: ignore[misc]  # the SDK has no types
    """
    One kept connection.

    Every wait has an end, nothing is posted twice, nothing is logged, and `base_url` stands in for all of
    Twilio's hosts.
    """

    def __init__(self, timeout: float, base_url: str = "") -> None:
        super().__init__(timeout=timeout, max_retries=0)
        self.retry_after: timedelta | None = None  # of the last answer
        self._base_url = base_url.rstrip("/")
        if self.session is not None and base_url and not is_public(base_url):
            self.session.trust_env = False  # a proxy cannot reach what is on this machine

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Response:
        """One request, sent once."""
        self.retry_after = None
        answer = super().request(method, self._meant(url), *args, **options)
        self.retry_after = parse_retry_after(answer.headers.get("Retry-After", ""))
        return answer

    def log_request(self, kwargs: dict[str, Any]) -> None:
        """Not a word: it would name people."""

    def log_response(self, status_code: int, response: Any) -> None:
        """Not a word."""

    def close(self) -> None:
        if self.session is not None:
            self.session.close()

    def _meant(self, url: str) -> str:
        if not self._base_url:
            return url
        parts = urlsplit(url)
        return self._base_url + parts.path + (f"?{parts.query}" if parts.query else "")


class Clients:
    """Clients that nobody is using, with their connections; any thread may borrow one."""

    def __init__(self, account_sid: str, token: str, timeout: float, base_url: str) -> None:
        self._login = (account_sid, token)
        self._timeout = timeout
        self._base_url = base_url
        self._idle: deque[tuple[float, Client, Http]] = deque()

    @contextmanager
    def borrow(self) -> Iterator[tuple[Client, Http]]:
        client, http = self._fresh() or self._made()
        try:
            yield client, http
        finally:
            self._idle.append((monotonic(), client, http))

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[2].close()

    def _fresh(self) -> tuple[Client, Http] | None:
        try:
            since, client, http = self._idle.pop()
        except IndexError:
            return None
        if monotonic() - since > IDLE:
            http.close()  # it opens a new connection by itself
        return client, http

    def _made(self) -> tuple[Client, Http]:
        http = Http(self._timeout, self._base_url)
        return Client(*self._login, http_client=http), http


def never_left(error: BaseException) -> bool:
    """Whether a request that failed in this way certainly did not reach Twilio: there was no connection to send it on."""
    if isinstance(error, (ConnectTimeout, InvalidURL, InvalidProxyURL, MissingSchema)):
        return True
    cause = error.args[0] if isinstance(error, RequestsConnectionError) and error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else None
    if isinstance(reason, ProxyError):
        return _was_no_way_through(reason)
    if isinstance(reason, (NewConnectionError, ConnectTimeoutError)):
        return True
    return reason is not None and any(isinstance(one, ssl.SSLCertVerificationError) for one in _chain(reason))


def _was_no_way_through(error: ProxyError) -> bool:
    """
    Whether the proxy was not reached, or refused the tunnel.

    A ProxyError alone says nothing: urllib3 (2.8) gives one, too, when a connection through a proxy is
    cut after the whole request went out on it, since closing it makes it forget that it had reached the
    proxy. A tunnel that was refused is known by the words of http.client.
    """
    one: object = error
    for _ in range(10):
        if isinstance(one, (NewConnectionError, ConnectTimeoutError)):
            return True
        if isinstance(one, OSError) and str(one).startswith("Tunnel connection failed"):
            return True
        if not isinstance(one, BaseException):
            return False
        one = getattr(one, "original_error", None) or getattr(one, "reason", None) or one.__cause__
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, its arguments that are errors, and its causes."""
    seen = [error]
    for one in seen:
        yield one
        more = [*one.args, one.__cause__, one.__context__]
        seen += [other for other in more if isinstance(other, BaseException) and other not in seen]


def parse_retry_after(value: str) -> timedelta | None:
    """Retry-After as RFC 9110 writes it, in seconds or as a date, a day at most; None when it cannot be read."""
    value = value.strip()
    if value.isdecimal():
        digits = value.lstrip("0")  # counted first: int() refuses thousands of them
        return (
            min(timedelta(seconds=int(digits or "0")), LONGEST_RETRY_AFTER) if len(digits) < 9 else LONGEST_RETRY_AFTER
        )
    try:
        at = parsedate_to_datetime(value)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return min(max(at - datetime.now(UTC), timedelta(0)), LONGEST_RETRY_AFTER)
    except (ValueError, OverflowError):
        return None


def is_public(url: str) -> bool:
    """Whether the address's host could be reached from the internet, as far as its name tells."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))
