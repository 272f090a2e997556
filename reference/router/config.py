"""Everything an operator of the router decides, every time-out among it, validated in one place."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields

from gaugeblock.reference.router.experiments import Experiment
from gaugeblock.reference.router.policies import policy_names
from gaugeblock.reference.router.queue_config import QueueConfig
from gaugeblock.reference.router.ruleset import Rule, check_names
from gaugeblock.reference.router.spec import WorkerSpec, check_pools
from gaugeblock.reference.router.tables import records
from gaugeblock.reference.router.warm_config import WarmConfig


@dataclass(frozen=True)
class RouterConfig(QueueConfig, WarmConfig):
    """Times in seconds, sizes in bytes. ``None`` for a time-out means no limit; an explicit 0 is kept as 0.

    Routing: ``policy`` is one of :func:`policy_names`; with ``session_affinity`` a request that carries a session key
    (one of ``session_headers``, body ``session_id``, OpenAI ``user``) stays with its worker for ``session_ttl``.
    ``seed`` fixes the random ties. Cache-aware scores are ``matched bytes - load_cost * (in flight above the idlest)``;
    a match counts from ``min_match_bytes`` on, or from half of the prompt. Consistent hashing takes the session, or the
    first ``hash_head_bytes`` of the prompt, and passes on what is more than ``hash_load_factor`` times the worker's
    share of the load (0: nothing) and than ``hash_load_floor`` requests.

    When most of the last ``cache_loss_window`` predictions for a worker are denied by its own ``cached_tokens``, its
    prefixes are forgotten; 0 never does.

    Failure: a request is sent to at most ``1 + retries`` workers that can be reached, and retries spend a shared budget
    that each request refills by ``retry_ratio`` up to ``retry_burst``. ``idle_timeout`` is the longest silence of a
    worker within a response, and before it when the request is streamed; ``total_timeout`` covers the whole request
    with its retries.
    ``head_hold`` is how long the head of a streamed response waits for its first body byte, so that a worker that dies
    in between can still be replaced. A response of known length up to ``hold_bytes`` is sent once it is whole.

    Limits and the queue: see :class:`QueueConfig`. Warming workers up: see :class:`WarmConfig`.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    worker_urls: tuple[str, ...] = ()  # regular GPU workers of the default pool that tell their models themselves
    workers: tuple[WorkerSpec, ...] = ()  # all others; a table of the fields of WorkerSpec is taken too
    rules: tuple[Rule, ...] = ()  # tables are taken too, here and below
    experiments: tuple[Experiment, ...] = ()
    shadow_max_in_flight: int = 64  # copies beyond that are not sent
    config_file: str | None = None  # where a reload of the rules reads them
    policy: str = "cache_aware"
    decode_policy: str = "least_load"  # of decode workers; prefill workers have ``policy``
    seed: int | None = None

    session_affinity: bool = True
    session_headers: tuple[str, ...] = ("x-smg-routing-key", "x-session-id")
    session_ttl: float = 3600.0
    max_sessions: int = 100_000

    cache_bytes: int = 32 << 20
    max_prefix_bytes: int = 64 << 10
    min_match_bytes: int = 256
    load_cost: float = 1024.0
    cache_loss_window: int = 8

    hash_head_bytes: int = 1024
    hash_load_factor: float = 1.5
    hash_load_floor: int = 4

    health_interval: float = 5.0
    health_timeout: float = 5.0
    health_failures: int = 2
    health_successes: int = 1
    health_join_interval: float = 0.5  # between checks of a worker that is not healthy

    breaker_failures: int = 5
    breaker_cooldown: float = 10.0
    breaker_probes: int = 1
    breaker_successes: int = 1

    retries: int = 2
    retry_ratio: float = 0.2
    retry_burst: int = 32

    connect_timeout: float | None = 2.0
    idle_timeout: float | None = 120.0
    total_timeout: float | None = 1800.0
    admin_timeout: float = 10.0  # one call of the router's own: abort, flush, server info
    head_hold: float = 0.25
    drain_timeout: float = 30.0
    pool_idle: float = 2.0  # age at which an unused connection is dropped; below uvicorn's 5 s keep-alive
    keepalive_timeout: float = 75.0
    request_read_timeout: float = 60.0

    hold_bytes: int = 256 << 10
    max_head_bytes: int = 64 << 10
    max_body_bytes: int = 64 << 20
    worker_api_key: str | None = None  # sent with the router's own calls, and in place of a client's key to the router

    api_keys_env: str | None = None  # the environment variable or the file with the clients' keys, see ``auth``
    api_keys_file: str | None = None
    admin_key_env: str | None = None  # the variable with the key that orders to the router need
    worker_key_env: str | None = None  # the variable with ``worker_api_key``

    def __post_init__(self) -> None:
        for name in ("worker_urls", "session_headers"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"{name} must be a list of strings, got the string {value!r}")
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "workers", records("worker", WorkerSpec.of, self.workers))
        object.__setattr__(self, "rules", records("rule", Rule.of, self.rules))
        object.__setattr__(self, "experiments", records("experiment", Experiment.of, self.experiments))
        twice = [url for url, count in Counter(spec.url for spec in self.specs).items() if count > 1]
        if twice:
            raise ValueError(f"the worker {twice[0]} is declared twice")
        check_pools(self.specs)
        for name in ("policy", "decode_policy"):
            if getattr(self, name) not in policy_names():
                raise ValueError(f"{name} must be one of {', '.join(policy_names())}; got {getattr(self, name)!r}")
        if type(self.session_affinity) is not bool:
            raise ValueError(f"session_affinity must be true or false; got {self.session_affinity!r}")
        self.check_queue()
        self.check_warm()
        check_names(self.rules, self.experiments, {spec.pool for spec in self.specs}, self.bands)
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(f"{name} must be a name, got {value!r}")
        for field in fields(self):
            _check_number(field.name, getattr(self, field.name))
        if 0 < self.hash_load_factor < 1:
            raise ValueError(f"hash_load_factor must be 0 for no bound, or >= 1; got {self.hash_load_factor!r}")

    @property
    def specs(self) -> tuple[WorkerSpec, ...]:
        """All declared workers."""
        return (*(WorkerSpec(url) for url in self.worker_urls), *self.workers)


_AT_LEAST_ONE = {"health_failures", "health_successes", "breaker_failures", "breaker_probes", "breaker_successes"}
_POSITIVE = {
    *("session_ttl", "health_interval", "health_timeout", "health_join_interval", "connect_timeout", "idle_timeout"),
    *("total_timeout", "admin_timeout", "keepalive_timeout", "request_read_timeout", "max_head_bytes"),
}
_OPTIONAL = {"connect_timeout", "idle_timeout", "total_timeout", "seed"}
_WHOLE = {"max_sessions", "cache_bytes", "max_prefix_bytes", "min_match_bytes", "retries", "retry_burst", "hold_bytes"}
_WHOLE |= {"max_head_bytes", "max_body_bytes", "hash_head_bytes", "hash_load_floor", "shadow_max_in_flight"}
_WHOLE |= _AT_LEAST_ONE
_TEXTS = {"config_file", "api_keys_env", "api_keys_file", "admin_key_env", "worker_key_env"}
_NOT_NUMBERS = {"worker_urls", "workers", "rules", "experiments", "session_headers", "policy", "decode_policy"}
_NOT_NUMBERS |= {"session_affinity", "worker_api_key", "seed"} | _TEXTS
_NOT_NUMBERS |= {f.name for f in (*fields(QueueConfig), *fields(WarmConfig))}  # checked there


def _check_number(name: str, value: object) -> None:
    """Raise ``ValueError`` if a field that holds a number holds none that is legal."""
    if name in _NOT_NUMBERS or (value is None and name in _OPTIONAL):
        return
    low = 1 if name in _AT_LEAST_ONE else 0
    legal = f"> {low}" if name in _POSITIVE else f">= {low}"
    if name in _OPTIONAL:
        legal += " or null for no limit"
    allowed: tuple[type, ...] = (int,) if name in _WHOLE else (int, float)
    fits = isinstance(value, int | float) and type(value) in allowed and math.isfinite(value) and value >= low
    if not fits or (name in _POSITIVE and value == low):
        raise ValueError(f"{name} must be {'a whole number' if name in _WHOLE else 'a number'} {legal}; got {value!r}")
