"""Aborts: telling an abandoned worker to stop what nobody will read, and remembering what a client has called off."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Collection, Iterable

from gaugeblock.reference.router.calls import try_call
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.worker import Worker

_MOST = 32  # aborts for one request
_REMEMBERED, _MEMORY = 1024, 60.0  # ids that clients have aborted, and seconds for which they are remembered


class Orphans:
    """Sends aborts in the background and holds on to them until they are over."""

    def __init__(self, config: RouterConfig) -> None:
        self._timeout, self._key = config.admin_timeout, config.worker_api_key
        self._running: dict[asyncio.Task[object], str] = {}
        self._unwanted: OrderedDict[str, float] = OrderedDict()  # id, and until when (loop time)

    def abort(self, worker: Worker, rids: Iterable[str]) -> None:
        """Tell a worker to stop the requests of these ids, without waiting for it."""
        for rid, _ in zip(rids, range(_MOST), strict=False):
            body = json.dumps({"rid": rid}).encode()
            call = try_call(worker.upstream, b"POST", b"/abort_request", self._timeout, body=body, api_key=self._key)
            task: asyncio.Task[object] = asyncio.create_task(call)
            self._running[task] = worker.id
            task.add_done_callback(self._running.pop)

    async def settle(self, workers: Collection[str], timeout: float) -> None:
        """Wait for the aborts at these workers, which could hit the same request sent there again."""
        tasks = [task for task, worker in self._running.items() if worker in workers] if workers else []
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def remember(self, rid: str) -> None:
        """Note that a client has aborted a request: a worker that drops it has not failed."""
        self._unwanted[rid] = asyncio.get_running_loop().time() + _MEMORY
        self._unwanted.move_to_end(rid)
        if len(self._unwanted) > _REMEMBERED:
            self._unwanted.popitem(last=False)

    def unwanted(self, rids: Iterable[str]) -> bool:
        """Whether a client has lately aborted one of these requests, so that none of them is worth another try."""
        if not self._unwanted:
            return False
        now = asyncio.get_running_loop().time()
        return any(self._unwanted.get(rid, 0.0) > now for rid in rids)
