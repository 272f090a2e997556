"""JSON out."""

from __future__ import annotations

import json
from typing import Any


def to_json(data: Any) -> bytes:
    """Compact UTF-8 JSON. A NaN or infinity is an error of ours and raises ValueError.

    Text that UTF-8 cannot hold, which only comes from a client's own words repeated, is escaped.
    """
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
