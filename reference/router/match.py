"""Which requests a rule or an experiment is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.tables import check_whole, names_of, record_fields
from gaugeblock.reference.router.view import Reading


@dataclass(frozen=True)
class Match:
    """Conditions that must all hold; without any it is about every request. See :mod:`rules` for their meaning.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    model: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    tenant: tuple[str, ...] = ()
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    min_bytes: int | None = None
    max_bytes: int | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("model", "path", "tenant"):
            object.__setattr__(self, name, names_of(name, getattr(self, name)))
        if not isinstance(self.headers, Mapping):
            raise ValueError(f'headers must be a table such as {{"x-sla" = "gold"}}; got {self.headers!r}')
        headers = {name.lower(): names_of(f"the header {name}", value) for name, value in self.headers.items()}
        object.__setattr__(self, "headers", headers)
        for name in ("min_bytes", "max_bytes", "min_tokens", "max_tokens"):
            check_whole(name, getattr(self, name), 0)

    @classmethod
    def of(cls, data: object) -> Match:
        """Return the match of a table.

        Raises:
            ValueError: an unknown field, or a value that is not legal.
        """
        return data if isinstance(data, Match) else cls(**record_fields(cls, "match", data))  # type: ignore[arg-type] # checked on the way in

    @property
    def measures(self) -> bool:
        """Whether it asks for the size of the prompt."""
        return self._bounds(ids=False) is not None or self._bounds(ids=True) is not None

    def _bounds(self, *, ids: bool) -> tuple[int, int | None] | None:
        low, high = (self.min_tokens, self.max_tokens) if ids else (self.min_bytes, self.max_bytes)
        return None if low is None and high is None else (low or 0, high)

    def holds(self, request: Request, reading: Reading, tenant: str | None) -> bool:
        """Whether all conditions hold for a request."""
        return (
            (not self.model or _fits(reading.view.model, self.model))
            and (not self.path or _fits(request.path, self.path))
            and (not self.tenant or _fits(tenant, self.tenant))
            and (not self.headers or self._has_headers(request))
            and (not self.measures or self._has_size(reading))
        )

    def _has_headers(self, request: Request) -> bool:
        sent = request.head.fields
        return all(
            sent.get(name.encode("latin-1"), b"").decode("latin-1") in values for name, values in self.headers.items()
        )

    def _has_size(self, reading: Reading) -> bool:
        bounds = self._bounds(ids=reading.ids)
        if bounds is None:
            return False
        low, high = bounds
        return low <= reading.size and (high is None or reading.size <= high)


def _fits(value: str | None, patterns: tuple[str, ...]) -> bool:
    """Whether one of the names is ``value``; a name that ends in ``*`` stands for all that begin so."""
    return value is not None and any(
        value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern for pattern in patterns
    )
