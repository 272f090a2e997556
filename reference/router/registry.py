"""The workers by id: joining, leaving with a drain, and who may take a request now."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from gaugeblock.reference.router.admission import Room
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.health import Join, watch
from gaugeblock.reference.router.quality import QUALITIES, reaches
from gaugeblock.reference.router.spec import TIERS, WorkerSpec, check_pools
from gaugeblock.reference.router.urls import worker_id
from gaugeblock.reference.router.worker import Health, Worker


class Registry:
    """All workers, each with a task that checks its health. ``on_leave`` is told the id of a worker that is gone.

    ``on_change`` is called when a worker may take traffic that could not before, or no longer may; ``on_join`` is
    awaited before a worker that joins or comes back gets traffic. ``limited``: some worker or the router as a whole has
    a limit, so requests may have to wait.
    """

    def __init__(self, config: RouterConfig, clock: Callable[[], float], on_leave: Callable[[str], None]) -> None:
        self._config = config
        self._clock = clock
        self._on_leave = on_leave
        self.on_change: Callable[[], None] = lambda: None
        self.on_join: Join | None = None
        self.limited = config.limited
        self.workers: dict[str, Worker] = {}
        self.paired = False  # there are prefill or decode workers
        self.tiered = False  # there are workers of several tiers
        self.graded = False  # there are workers that declare their quality
        self._watchers: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Add the configured workers and begin to check them."""
        for spec in self._config.specs:
            self.add(spec)

    async def stop(self) -> None:
        """End the health checks and close the connections to workers."""
        watchers = list(self._watchers.values())
        self._watchers.clear()
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for worker in self.workers.values():
            worker.upstream.close()

    def add(self, spec: WorkerSpec) -> tuple[Worker, bool]:
        """Add a worker, or stop its draining; returns it and whether it is new. It gets traffic once it is healthy.

        Raises:
            ValueError: the worker is known and was declared otherwise, or its pool has workers of the other kind.
        """
        known = self.workers.get(spec.url)
        if known is not None:
            if spec not in (known.spec, WorkerSpec(spec.url)):
                raise ValueError(f"the worker {spec.url} is known with other fields; remove it first")
            known.draining, known.on_idle = False, None
            self.on_change()
            return known, False
        check_pools([*(worker.spec for worker in self.workers.values()), spec])
        worker = Worker(spec, self._config, self._clock)
        self.workers[worker.id] = worker
        self._note_kinds()
        self._note_limits(worker)
        self._watchers[worker.id] = asyncio.create_task(
            watch(worker, self._config, lambda: self.on_change(), self.on_join)
        )
        return worker, True

    def _note_kinds(self) -> None:
        specs = [worker.spec for worker in self.workers.values()]
        self.paired = any(spec.role != "regular" for spec in specs)
        self.tiered = len({spec.tier for spec in specs}) > 1
        self.graded = any(spec.quality is not None for spec in specs)

    def _note_limits(self, new: Worker) -> None:
        self.limited = self.limited or new.most is not None
        if self.limited:  # the end of a request anywhere can make room
            for worker in self.workers.values():
                worker.on_free = lambda: self.on_change()

    def find(self, url: str) -> Worker | None:
        """Return a worker by its id or any other spelling of its URL; None if it is not known."""
        try:
            return self.workers.get(worker_id(url))
        except ValueError:
            return None

    def drain(self, url: str) -> Worker | None:
        """Give a worker no new requests and remove it when its last one has ended; None if it is not known."""
        worker = self.find(url)
        if worker is None:
            return None
        worker.draining = True
        if worker.in_flight:
            worker.on_idle = lambda: self._remove(worker)
        else:
            self._remove(worker)
        self.on_change()
        return worker

    def _remove(self, worker: Worker) -> None:
        if self.workers.pop(worker.id, None) is None:
            return
        self._watchers.pop(worker.id).cancel()
        worker.on_idle = None
        worker.upstream.close()
        self._note_kinds()
        for name in worker.names:
            self._on_leave(name)

    def candidates(
        self,
        model: str | None,
        tried: Collection[str] = (),
        *,
        role: str = "regular",
        pool: str | None = None,
        tiers: Sequence[str] = TIERS,
        floor: str | None = None,
    ) -> list[Worker]:
        """Return the workers that may take a request for ``model`` now, less those already tried.

        Of ``tiers`` the first that has such a worker counts; ``pool`` None means any. ``floor`` is the lowest quality.
        """
        found = [
            w
            for w in self.workers.values()
            if w.available() and w.id not in tried and w.spec.role == role and w.serves(model) and not w.full
        ]
        if pool is not None:
            found = [worker for worker in found if worker.spec.pool == pool]
        if floor is not None:
            found = [worker for worker in found if reaches(worker.spec.quality, floor)]
        for tier in tiers:
            if chosen := [worker for worker in found if worker.spec.tier == tier]:
                return chosen
        return []

    def room(
        self,
        model: str | None,
        tried: Collection[str] = (),
        *,
        role: str = "regular",
        pool: str | None = None,
        tiers: Sequence[str] = TIERS,
        floor: str | None = None,
    ) -> Room:
        """Return whether :meth:`candidates` finds a worker now, may find one once another request has ended, or not."""
        room = Room.NONE
        for w in self.workers.values():
            meant = w.spec.role == role and w.spec.tier in tiers and pool in (None, w.spec.pool)
            if (
                meant
                and (floor is None or reaches(w.spec.quality, floor))
                and w.available()
                and w.id not in tried
                and w.serves(model)
            ):
                if not w.full:
                    return Room.FREE
                room = Room.FULL
        return room

    def room_for_pairs(
        self,
        model: str | None,
        tried: Collection[str],
        pool: str | None,
        tiers: Sequence[str],
        floor: str | None = None,
    ) -> Room:
        """As :meth:`room`, for a prefill and a decode worker of one pool."""
        best = Room.NONE
        for name in {w.spec.pool for w in self.workers.values() if pool in (None, w.spec.pool)}:
            both = {
                self.room(model, tried, role=role, pool=name, tiers=tiers, floor=floor)
                for role in ("prefill", "decode")
            }
            if both == {Room.FREE}:
                return Room.FREE
            if Room.NONE not in both:
                best = Room.FULL
        return best

    def kin(self, model: str | None) -> str | None:
        """Return a name that the same workers serve, from a set that clients cannot grow (adapters, made-up names)."""
        if model is None:
            return None
        named = {name for worker in self.workers.values() for name in worker.models}
        base = model.partition(":")[0]
        return model if model in named else base if base in named else ""  # workers that named no models serve it too

    def pool(self, name: str | None) -> list[Worker]:
        """Return the workers of a pool, all if ``name`` is None."""
        workers = self.workers.values()
        return list(workers) if name is None else [worker for worker in workers if worker.spec.pool == name]

    def listed(self, pool: str | None = None) -> list[str]:
        """Return the names of the models that clients are shown."""
        return sorted({name for worker in self.pool(pool) for name in worker.listed()})

    def knows(self, model: str | None, pool: str | None = None) -> bool:
        """Whether a worker serves the model, has not told what it serves, or there is none to ask."""
        if model is None:
            return True
        workers = self.pool(pool)
        return not workers or any(worker.serves(model) for worker in workers)

    def qualities(self, model: str | None, pool: str | None = None) -> list[str]:
        """Return the qualities of the workers that serve the model, whether they can take a request now or not."""
        declared = {worker.spec.quality for worker in self.pool(pool) if worker.serves(model)}
        return [quality for quality in QUALITIES if quality in declared]

    def pairs_serve(self, model: str | None, pool: str | None = None) -> bool:
        """Whether a prefill or decode worker would know the model."""
        return any(worker.spec.role != "regular" and worker.serves(model) for worker in self.pool(pool))

    def retry_after(self, model: str | None, pool: str | None = None) -> int:
        """Seconds, at least 1, after which a request that nobody can take now is worth another try."""
        serving = [w for w in self.pool(pool) if w.health is Health.HEALTHY and w.serves(model)]
        waits: dict[str, float] = {}
        for worker in serving:
            wait = worker.breaker.retry_after()
            waits[worker.spec.role] = min(wait, waits.get(worker.spec.role, wait))
        alone = waits.pop("regular", None)
        shortest = [*([alone] if alone is not None else []), *([max(waits.values())] if len(waits) == 2 else [])]
        return max(1, math.ceil(min(shortest or [self._config.health_join_interval])))

    def serving(self, workers: Iterable[Worker]) -> bool:
        """Whether one of these workers serves now, or a pair of them: prefill and decode of one pool."""
        roles = {(w.spec.pool, w.spec.role) for w in workers if w.available()}
        return any(role == "regular" or (role == "prefill" and (pool, "decode") in roles) for pool, role in roles)

    def readiness(self, model: str | None = None, pool: str | None = None) -> dict[str, Any]:
        """Return what ``/readiness`` says: whether a request would be served now, counts by model and pool, reasons."""
        workers = [worker for worker in self.pool(pool) if worker.serves(model)]
        counts: dict[str, dict[str, int]] = {}
        pools: dict[str, dict[str, int]] = {}
        reasons: dict[str, int] = {}
        for worker in workers:
            reason = worker.reason()
            reasons[reason] = reasons.get(reason, 0) + 1
            entries = [counts.setdefault(name, {"available": 0, "total": 0}) for name in worker.listed() or ["*"]]
            for entry in (*entries, pools.setdefault(worker.spec.pool, {"available": 0, "total": 0})):
                entry["total"] += 1
                entry["available"] += reason == "available"
        ready = self.serving(workers)
        return {
            "ready": ready,
            "status": "ready" if ready else "not ready",
            "available_workers": reasons.pop("available", 0),
            "healthy_workers": sum(worker.health is Health.HEALTHY for worker in workers),
            "total_workers": len(workers),
            "models": dict(sorted(counts.items())),
            "pools": dict(sorted(pools.items())),
            "unavailable": reasons,
        }
