"""NATS addresses: what is one, and how to show it without its secret."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["check_nats_url", "mask_nats_url"]

_SCHEMES = ("nats", "tls")
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f]")
_SECRET = re.compile(r"(?P<before>(?:^|,)[^/,]*//)(?P<secret>[^/,]*)@")


def check_nats_url(url: str) -> str:
    """Return `url` if it is one server or a comma-separated list of the servers of one cluster.

    Raises ValueError; its message never repeats the address, which may hold a password.
    """
    if _UNPRINTABLE.search(url):
        raise ValueError("a NATS address holds no spaces; write nats://host:4222")
    for server in url.split(","):
        _check_server(server)
    return url


def _check_server(server: str) -> None:
    try:
        parts = urlsplit(server)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in _SCHEMES or not host or parts.path not in {"", "/"}:
        raise ValueError(
            "not a NATS address; write nats://host:4222 or tls://host:4222, several servers of "
            "one cluster separated by commas, and percent-encode , / ? # @ in a password"
        )
    if parts.query or parts.fragment:
        raise ValueError("a NATS address has no ? or # part; percent-encode them in a password")


def mask_nats_url(url: str) -> str:
    """Return `url` with every password, or token that stands alone before the @, as `***`."""
    return _SECRET.sub(_masked, url)


def _masked(found: re.Match[str]) -> str:
    user, colon, _ = found["secret"].partition(":")
    return f"{found['before']}{user}:***@" if colon else f"{found['before']}***@"
