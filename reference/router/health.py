"""Health checks: one task a worker, so that a hung worker delays nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gaugeblock.reference.router.calls import try_call
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.worker import Health, Worker

Join = Callable[[Worker], Awaitable[None]]


async def watch(worker: Worker, config: RouterConfig, changed: Callable[[], None], join: Join | None) -> None:
    """Check a worker until cancelled: every ``health_interval`` when healthy, more often while it is not.

    ``changed`` is called when a check changes what is thought of it, ``join`` awaited before it gets traffic.
    """
    while True:
        if await check(worker, config):
            if join is not None and worker.health is Health.HEALTHY:
                await _join(worker, join)
            changed()
        healthy = worker.health is Health.HEALTHY
        await asyncio.sleep(
            config.health_interval if healthy else min(config.health_interval, config.health_join_interval)
        )


async def _join(worker: Worker, join: Join) -> None:
    worker.health = Health.WARMING
    try:
        await join(worker)
    finally:
        worker.health = Health.HEALTHY


async def check(worker: Worker, config: RouterConfig) -> bool:
    """Ask once; returns whether that changed its health.

    Before a worker gets its first traffic after each return, the names of its models are learnt.
    """
    answer = await try_call(worker.upstream, b"GET", b"/health", config.health_timeout, api_key=config.worker_api_key)
    good = answer is not None and answer.status == 200
    if good and (worker.health is not Health.HEALTHY or not worker.models):
        await learn_models(worker, config)
        if worker.spec.role == "prefill":
            await learn_ranks(worker, config)
    return worker.note_health(good)


async def learn_models(worker: Worker, config: RouterConfig) -> None:
    """Note every name under which a worker knows its model, and what it lists; nothing if it does not tell.

    Names that the operator declared count instead of the worker's own.
    """
    timeout, key = config.health_timeout, config.worker_api_key
    info = await try_call(worker.upstream, b"GET", b"/get_model_info", timeout, api_key=key)
    listed = await try_call(worker.upstream, b"GET", b"/v1/models", timeout, api_key=key)
    names = _info_names(info.json()) if info is not None and info.status == 200 else []
    entries = _entries(listed.json()) if listed is not None and listed.status == 200 else []
    declared = worker.spec.models
    if declared:
        told = {entry["id"]: entry for entry in entries}
        worker.model_entries = [told.get(name, {"id": name, "object": "model"}) for name in declared]
    else:
        worker.models = frozenset([*names, *(entry["id"] for entry in entries)])
        worker.model_entries = entries or [{"id": name, "object": "model"} for name in names[:1]]


async def learn_ranks(worker: Worker, config: RouterConfig) -> None:
    """Note how a prefill worker picks one of its data-parallel ranks, and where its decode workers find it."""
    for target in (b"/get_server_info", b"/server_info"):
        answer = await try_call(worker.upstream, b"GET", target, config.health_timeout, api_key=config.worker_api_key)
        info = answer.json() if answer is not None and answer.status == 200 else None
        if isinstance(info, dict):
            size, port = info.get("dp_size"), info.get("disaggregation_bootstrap_port")
            worker.dp_size = size if type(size) is int and 1 <= size <= 1024 else 1
            worker.follows_room = info.get("load_balance_method") in (None, "auto", "follow_bootstrap_room")
            if worker.spec.bootstrap_port is None and type(port) is int:
                worker.bootstrap_port = port
            return


def _entries(data: Any) -> list[dict[str, Any]]:
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _info_names(data: Any) -> list[str]:
    if not isinstance(data, dict):
        return []
    return [data[key] for key in ("served_model_name", "model_path") if isinstance(data.get(key), str) and data[key]]
