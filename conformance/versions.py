"""Versions of installed packages."""

from __future__ import annotations

from importlib import metadata


def version_of(package: str) -> str | None:
    """Return a package's version; None where it is not installed (the kit itself may run from a checkout)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
