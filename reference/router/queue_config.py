"""What an operator decides of limits and of the queue before the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gaugeblock.reference.router.adaptive import Aim
from gaugeblock.reference.router.checks import one_of, positive, whole
from gaugeblock.reference.router.rules import BANDS
from gaugeblock.reference.router.spec import check_tiers
from gaugeblock.reference.router.tables import check_name

COSTS = ("requests", "bytes")
SIGNALS = ("first_byte", "whole")


@dataclass(frozen=True, kw_only=True)
class QueueConfig:
    """Times in seconds. Without a limit nothing ever waits, and none of the headers is read.

    Limits: ``max_concurrent`` requests in all workers together, ``worker_max_in_flight`` in any one that declares no
    ``max_in_flight`` of its own. With ``adaptive_target`` each worker's limit follows its latency too, to the first
    byte of the answer or to the whole of it (``adaptive_signal``): see :mod:`gaugeblock.reference.router.adaptive`.

    Queue: what finds no room waits, at most ``queue_size`` requests with ``queue_bytes`` of body, each for
    ``queue_timeout``. ``bands`` are the priorities, the most urgent first; one that was passed over ``band_patience``
    times in a row goes first. Inside a band tenants share equally, or by ``tenant_weights``; ``fair_cost`` says whether
    requests or the bytes of their bodies are shared. Band, tenant and time-out (seconds from arrival, for queue and
    answer together) come from the rules, else from these headers; whoever lets clients in must set or strip them. An
    unknown band is ``default_band``.

    Service: ``band_tiers`` names the tiers that a band prefers, in order, or is limited to: ``{low = ["cpu", "gpu"]}``
    keeps GPU workers for others as long as CPU workers have room. Where a worker declares its quality,
    ``quality_header`` says the lowest that will do. Both are read without a limit too.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    max_concurrent: int | None = None
    worker_max_in_flight: int | None = None
    queue_size: int = 1024
    queue_bytes: int = 256 << 20
    queue_timeout: float | None = 60.0

    bands: tuple[str, ...] = BANDS
    default_band: str = "normal"
    band_patience: int = 16
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    fair_cost: str = "requests"
    priority_header: str = "x-priority"
    tenant_header: str = "x-tenant"
    timeout_header: str = "x-request-timeout"
    quality_header: str = "x-quality-floor"
    band_tiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # lists are taken too

    adaptive_target: float | None = None
    adaptive_signal: str = "first_byte"
    adaptive_window: float = 1.0
    adaptive_backoff: float = 0.7
    adaptive_floor: int = 1
    adaptive_ceiling: int = 1024
    adaptive_start: int = 16

    @property
    def aim(self) -> Aim | None:
        """What adaptive limits are steered by; None if they are off."""
        if self.adaptive_target is None:
            return None
        bounds = (self.adaptive_floor, self.adaptive_ceiling, self.adaptive_start)
        return Aim(self.adaptive_target, self.adaptive_window, self.adaptive_backoff, *bounds)

    @property
    def limited(self) -> bool:
        """Whether a request can find no room at a worker that declares no limit."""
        return (self.max_concurrent, self.worker_max_in_flight, self.adaptive_target) != (None, None, None)

    def check_queue(self) -> None:
        """Raise ``ValueError`` if a field is not legal."""
        for name in ("max_concurrent", "worker_max_in_flight"):
            whole(name, getattr(self, name), 1, optional=True)
        for name, low in (("queue_size", 0), ("queue_bytes", 0), ("band_patience", 1), ("adaptive_floor", 1)):
            whole(name, getattr(self, name), low)
        for name in ("adaptive_ceiling", "adaptive_start"):
            whole(name, getattr(self, name), self.adaptive_floor)
        for name in ("queue_timeout", "adaptive_target"):
            positive(name, getattr(self, name), optional=True)
        positive("adaptive_window", self.adaptive_window)
        positive("adaptive_backoff", self.adaptive_backoff)
        if self.adaptive_backoff >= 1:
            raise ValueError(f"adaptive_backoff must be a number > 0 and < 1; got {self.adaptive_backoff!r}")
        self._check_names()
        one_of("fair_cost", self.fair_cost, COSTS)
        one_of("adaptive_signal", self.adaptive_signal, SIGNALS)

    def _check_names(self) -> None:
        listed = type(self.bands) in (list, tuple)
        if not listed or not self.bands or len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands must be a list of different names, the most urgent first; got {self.bands!r}")
        object.__setattr__(self, "bands", tuple(self.bands))
        for name in self.bands:
            check_name("each of bands", name)
        one_of("default_band", self.default_band, self.bands)
        for name in ("priority_header", "tenant_header", "timeout_header", "quality_header"):
            check_name(name, getattr(self, name))
        if not isinstance(self.band_tiers, Mapping):
            raise ValueError(f"band_tiers must be a table of band = list of tiers; got {self.band_tiers!r}")
        for band in self.band_tiers:
            one_of("each band of band_tiers", band, self.bands)
        tiers = {band: check_tiers(f"band_tiers of {band!r}", order) for band, order in self.band_tiers.items()}
        object.__setattr__(self, "band_tiers", tiers)
        if not isinstance(self.tenant_weights, Mapping):
            raise ValueError(f"tenant_weights must be a table of tenant = weight; got {self.tenant_weights!r}")
        for tenant, weight in self.tenant_weights.items():
            positive(f"the weight of tenant {tenant!r}", weight)
