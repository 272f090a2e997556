"""How a refusal must tell its client what is wrong."""

from __future__ import annotations

from typing import Any

from gaugeblock.fixtures.targets.wire import parse_json


def must_be_json_error(url: str, status: int, body: bytes, what: str) -> None:
    """Fail unless a body is JSON with an error in it, in the shape of any API family.

    Raises:
        AssertionError: it is not, with ``what`` was asked and the body.
    """
    told: Any = parse_json(body, url, status) if body else None
    said = told.get("error") if isinstance(told, dict) else None
    assert said, f"{what}: {status} without an error in JSON, but {body[:120]!r}"
