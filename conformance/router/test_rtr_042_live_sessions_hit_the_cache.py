"""RTR-042."""

from __future__ import annotations

import random
import uuid

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import unsupported
from gaugeblock.conformance.router.texts import unrelated
from gaugeblock.fixtures.targets.router_live import LiveRouter
from gaugeblock.fixtures.targets.wire import Reply

SESSIONS, TURNS = 8, 3


@check(
    "RTR-042",
    feature="session-affinity",
    level="extended",
    bound="every later turn finds at least half of its prompt cached: a page or a template may be left out, not more",
    sources=("https://github.com/llm-d/llm-d-router/issues/1541",),
    timeout=300.0,
)
def test_rtr_042(live_router: LiveRouter) -> None:
    """Turns of a session find their history in the engine's cache.

    The engines' own count of cached tokens tells: a later turn that starts cold went to another engine. Look at which
    header names the session, and at the engines' cache size.
    """
    if len(live_router.engines) == 1:
        unsupported("with one engine affinity is trivially true: name at least two with --engine-url")
    prompts = {f"live-{uuid.uuid4().hex}": text for text in unrelated(SESSIONS, size=700, seed=uuid.uuid4().hex)}
    order = list(prompts) * TURNS
    random.Random(42).shuffle(order)
    turn: dict[str, int] = dict.fromkeys(prompts, 0)
    cold: list[str] = []
    for session in order:
        reply = live_router.chat(prompts[session], session=session, max_tokens=4)
        cached, total = _cached(reply)
        if turn[session] and cached < total / 2:
            cold.append(f"turn {turn[session] + 1} of one session: {cached} of {total} tokens cached")
        turn[session] += 1
    later = SESSIONS * (TURNS - 1)
    assert not cold, f"{len(cold)} of {later} later turns went to an engine without their history: {cold[0]}"


def _cached(reply: Reply) -> tuple[int, int]:
    usage = reply.json().get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached is None:
        unsupported(
            "the engines do not report usage.prompt_tokens_details.cached_tokens (SGLang: --enable-cache-report)"
        )
    return int(cached), int(usage["prompt_tokens"])
