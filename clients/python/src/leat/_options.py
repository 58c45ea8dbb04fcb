"""Options, errors and what both clients say to a channel."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import urlsplit

import grpc

PULL = "/leat.v1.SubscriberService/Pull"
FETCH = "/leat.v1.SubscriberService/Fetch"


class LeatError(Exception):
    """What the server said: trying again would not help."""

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.code = code


class TooOld(LeatError):
    """The place is older than the log keeps: begin anew with a snapshot."""


class ConfigurationError(ValueError):
    """The client was given something that cannot be."""


class Lost(Exception):
    """A batch was completed too late: its events come again, here or at another client."""


@dataclasses.dataclass(frozen=True)
class Options:
    token: str | None
    consumer: str
    window: int
    window_bytes: int
    hold: float
    on_resolved: Callable[[int, datetime], None] | None
    on_retry: Callable[[Exception, float], None] | None

    def metadata(self) -> Sequence[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")] if self.token else []


# Silence says nothing of whether the other end is there: it is asked. Messages may be as large as one row.
CHANNEL = [
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
]

# Statuses that another try does not mend.
PERMANENT = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
}


def final(subscription: str, e: grpc.RpcError) -> LeatError | None:
    """The error to raise, or None: try again."""
    code = e.code()
    if code not in PERMANENT:
        return None
    kind = TooOld if code is grpc.StatusCode.OUT_OF_RANGE else LeatError
    return kind(f"{subscription}: {e.details() or code.name}", code)


def backoff(tries: int) -> float:
    """Seconds before a try, from the 0th in a row; a hundred clients do not come back at once."""
    return min(0.1 * 2 ** min(tries, 10), 10.0) * random.uniform(0.5, 1.0)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, also one like 127.example


def target(url: str, token: str | None) -> tuple[str, bool]:
    """What grpc calls the server at url, and whether it is TLS."""
    u = urlsplit(url)
    if u.scheme not in ("http", "https") or not u.hostname or u.username or u.path not in ("", "/"):
        raise ConfigurationError("the server's URL is to be http://HOST:PORT or https://HOST:PORT; a token belongs into token=")
    secure = u.scheme == "https"
    if token and not secure and not _loopback(u.hostname):
        raise ConfigurationError(f"a token is not sent over http:// to {u.hostname}, where others can read it: use https://")
    host = f"[{u.hostname}]" if ":" in u.hostname else u.hostname
    return f"{host}:{u.port or (443 if secure else 80)}", secure
