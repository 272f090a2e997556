"""What a request asks of the queue: band, tenant and deadline, from the rules or else from its headers."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

from gaugeblock.reference.router.queue_config import QueueConfig
from gaugeblock.reference.router.rules import Route

_LONG_TENANT = 128  # bytes


class Demand(NamedTuple):
    """``band`` by its number, 0 the most urgent; ``tenant`` empty for those that name none; ``timeout`` in seconds.

    ``unknown_band``: the header named a band that does not exist.
    """

    band: int
    tenant: str = ""
    timeout: float | None = None
    unknown_band: bool = False


class Demands:
    """Reads demands as the configuration says."""

    def __init__(self, config: QueueConfig) -> None:
        self._bands = {name.lower(): number for number, name in enumerate(config.bands)}
        self._default = self._bands[config.default_band.lower()]
        self._priority = config.priority_header.lower().encode()
        self._tenant = config.tenant_header.lower().encode()
        self.timeout_header = config.timeout_header
        self._timeout = config.timeout_header.lower().encode()

    def read(self, route: Route, fields: dict[bytes, bytes]) -> Demand:
        """Read the demand of one request.

        Raises:
            ValueError: its time-out is not a number of seconds.
        """
        band = self._named(route, fields)
        tenant = route.tenant if route.tenant is not None else tenant_name(fields.get(self._tenant, b""))
        timeout = route.deadline if route.deadline is not None else self._seconds(fields.get(self._timeout))
        return Demand(self._default if band < 0 else band, tenant, timeout, band < 0)

    def band(self, route: Route, fields: dict[bytes, bytes]) -> int:
        """Return the band of a request by its number."""
        band = self._named(route, fields)
        return self._default if band < 0 else band

    def _named(self, route: Route, fields: dict[bytes, bytes]) -> int:
        named = route.band
        if named is None and self._priority in fields:
            named = fields[self._priority].decode("latin-1").strip()
        # As smg has it: a typo in a hint must not cost the answer (docs/reference/priority-scheduler.md there).
        return self._default if named is None else self._bands.get(named.lower(), -1)

    def _seconds(self, value: bytes | None) -> float | None:
        if value is None:
            return None
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if math.isfinite(seconds):
            return seconds
        said = value[:32].decode("latin-1")
        raise ValueError(f"{self.timeout_header} must be a number of seconds, such as 2.5; got {said!r}")


def tenant_name(value: bytes) -> str:
    """A name from outside that goes into tables: a long one is kept as its digest."""
    value = value.strip()
    if len(value) > _LONG_TENANT:
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    return value.decode("latin-1")
