"""Addresses of servers: what can be one, and what of one is shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def is_address(url: str) -> bool:
    """Whether a server can have this address."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", url)
        )
    except ValueError:
        return False


def without_credentials(url: str) -> str:
    """An address without what may be secret, for records and messages: user name, password, query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
