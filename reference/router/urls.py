"""Worker URLs: one spelling for each worker, which is its id."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def worker_id(url: str) -> str:
    """Return the stable id of a worker: ``scheme://host:port`` in lower case, the port always given.

    Raises:
        ValueError: not a plain http(s) origin.
    """
    wrong = f"a worker URL must look like http://HOST:PORT, got {url!r}"
    if not isinstance(url, str) or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError(wrong)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{wrong}: {error}") from None
    if parts.scheme not in _PORTS or not host or port == 0:
        raise ValueError(wrong)
    if parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError(f"{wrong}: no user, path, query or fragment")
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}:{port or _PORTS[parts.scheme]}"


def address(identity: str) -> tuple[str, int, bool]:
    """Return host, port and whether TLS is used, of a worker id."""
    parts = urlsplit(identity)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port, parts.scheme == "https"
