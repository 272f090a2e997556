"""Warming workers up: the hottest prefixes before a worker gets traffic, or any prompts ahead of a declared burst.

Warm-ups take room at a worker like other requests, but they are nobody's traffic: they count neither as requests in
flight nor as attempts, and they open no breaker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gaugeblock.reference.router.calls import try_call
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.hot import HotPrefixes
from gaugeblock.reference.router.policies.base import RequestView
from gaugeblock.reference.router.policy_set import PolicySet
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.view import json_object
from gaugeblock.reference.router.warm_prompts import WarmPrompt, load_prompts, rebuilt, warm_prompt
from gaugeblock.reference.router.worker import Worker

MOST_PROMPTS = 256
"""Prompts and sessions that one ``POST /prewarm`` may name."""


class Warmer:
    """Sends warm-ups and teaches the policies who has got them. ``clock`` is the policies' in seconds.

    Raises:
        ValueError: ``warm_file`` cannot be read.
    """

    def __init__(
        self, config: RouterConfig, registry: Registry, policies: PolicySet, clock: Callable[[], float]
    ) -> None:
        self._config, self._registry, self._policies, self._clock = config, registry, policies, clock
        self._file = load_prompts(config.warm_file, config.max_prefix_bytes) if config.warm_file else []
        hottest = config.warm_prefixes
        self.hot = HotPrefixes(max(4 * hottest, 16), config.warm_head_bytes) if hottest else None
        self.outcomes = {"success": 0, "failure": 0}
        if self._file or self.hot is not None:
            registry.on_join = self.join

    async def join(self, worker: Worker) -> None:
        """Warm a worker that is about to get traffic; returns after ``warm_timeout`` at the latest."""
        prompts = list(self._file)
        if self.hot is not None:
            found = (rebuilt(hot, self._config.max_prefix_bytes) for hot in self.hot.top(self._config.warm_prefixes))
            prompts += [prompt for prompt in found if prompt is not None]
        if worker.spec.role == "regular":  # the halves of a pair generate nothing alone
            await self._send(worker, [prompt for prompt in prompts if worker.serves(prompt.view.model)])

    async def prewarm(self, request: Request, reply: Reply) -> None:
        """``POST /prewarm {"prompts": […], "sessions": […], "workers": N}``, ahead of a burst.

        Each prompt (a string or a request body) goes to the N idlest workers that may take it, and the policy learns
        that they have it; the sessions are spread over them. ``model`` is for prompts that name none, and for sessions.
        503 if no worker has room, 502 if a warm-up failed.
        """
        try:
            prompts, sessions, model, count = self._order(request.body)
        except ValueError as error:
            reply.error(400, "Bad Request", "bad_prewarm", str(error))
            return
        workers = self._idlest(model, count)
        if not workers:
            wait = [(b"Retry-After", b"%d" % self._registry.retry_after(model))]
            reply.error(503, "Service Unavailable", "no_available_worker", "no worker has room for it", headers=wait)
            return
        done = await asyncio.gather(*(self._send(worker, prompts) for worker in workers))
        for number, session in enumerate(sessions):
            self._teach(workers[number % len(workers)], RequestView(model, session))
        told = [{"worker": w.id, "warmed": n, "failed": len(prompts) - n} for w, n in zip(workers, done, strict=True)]
        good = all(number == len(prompts) for number in done)
        body = {"success": good, "workers": told, "sessions": len(sessions)}
        reply.json(*((200, "OK") if good else (502, "Bad Gateway")), body)

    def _order(self, body: bytes) -> tuple[list[WarmPrompt], list[str], str | None, int]:
        """Take an order apart: prompts, sessions, the model that all of them name, workers."""
        data = _fields(body)
        prompts, sessions, count = data.get("prompts", []), data.get("sessions", []), data.get("workers", 1)
        if not isinstance(prompts, list) or not isinstance(sessions, list) or not (prompts or sessions):
            raise ValueError("prompts and sessions must be lists, one of them not empty")
        if not all(isinstance(session, str) and session for session in sessions):
            raise ValueError("each of sessions must be the key of a session")
        if len(prompts) + len(sessions) > MOST_PROMPTS:
            raise ValueError(f"at most {MOST_PROMPTS} prompts and sessions at a time")
        if not isinstance(data.get("model", ""), str):
            raise ValueError(f"model must be a name; got {data['model']!r}")
        if type(count) is not int or count < 1:
            raise ValueError(f"workers must be a whole number >= 1; got {count!r}")
        model = data.get("model")
        warm = [warm_prompt(_named(prompt, model), self._config.max_prefix_bytes) for prompt in prompts]
        models = {prompt.view.model for prompt in warm} or {model}
        if len(models) > 1:
            raise ValueError(f"all prompts must name the same model; got {', '.join(sorted(map(str, models)))}")
        return warm, sessions, models.pop(), count

    def _idlest(self, model: str | None, count: int) -> list[Worker]:
        workers = self._registry.candidates(model)
        return sorted(workers, key=lambda worker: worker.in_flight / worker.spec.weight)[:count]

    async def _send(self, worker: Worker, prompts: Sequence[WarmPrompt]) -> int:
        """Send prompts to a worker, several at a time as far as it has room; returns how many it answered in time."""
        left = iter(prompts)
        lanes = min(self._config.warm_concurrency, len(prompts), worker.vacant)
        done: list[WarmPrompt] = []
        worker.warming += lanes
        try:
            async with asyncio.timeout(self._config.warm_timeout):
                await asyncio.gather(*(self._run(worker, left, done) for _ in range(lanes)))
        except TimeoutError:
            pass  # what is missing is the worker's to compute when somebody asks for it
        finally:
            worker.warming -= lanes
            if worker.on_free is not None:
                worker.on_free()
        self.outcomes["success"] += len(done)
        self.outcomes["failure"] += len(prompts) - len(done)
        return len(done)

    async def _run(self, worker: Worker, left: Iterator[WarmPrompt], done: list[WarmPrompt]) -> None:
        timeout, key = self._config.warm_timeout, self._config.worker_api_key
        for prompt in left:
            call = try_call(worker.upstream, b"POST", prompt.path.encode(), timeout, body=prompt.body, api_key=key)
            answer = await call
            if answer is not None and answer.status == 200:
                done.append(prompt)
                self._teach(worker, prompt.view)

    def _teach(self, worker: Worker, view: RequestView) -> None:
        for name in worker.names:
            self._policies.teach(view, name, self._clock())


def _fields(body: bytes) -> dict[str, Any]:
    data = json_object(body)
    if data is None:
        raise ValueError('the body must be {"prompts": […], "sessions": […], "workers": N}')
    unknown = [name for name in data if name not in ("prompts", "sessions", "workers", "model")]
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r}; the fields are prompts, sessions, workers, model")
    return data


def _named(prompt: object, model: str | None) -> object:
    """Return a prompt that names the model, unless it names one itself."""
    body = {"text": prompt} if isinstance(prompt, str) else prompt
    return {"model": model, **body} if model is not None and isinstance(body, dict) else prompt
