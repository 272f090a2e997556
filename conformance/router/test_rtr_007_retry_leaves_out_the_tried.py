"""RTR-007."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import unrelated
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE


@check(
    "RTR-007",
    feature="retries",
    bound="exact: one arrival of a request at the worker that reset it, and a 200 from another",
    sources=("https://github.com/NVIDIA-NeMo/RL/issues/3613",),
)
@pytest.mark.parametrize("policy", ["round_robin", "cache_aware", "session"])
def test_rtr_007(router_lab: LabFactory, policy: str) -> None:
    """A retry goes to a worker that has not been tried.

    A policy that prefers one worker (by prefix or session) picked the failing one again until the attempts were used
    up. Look at whether the set of tried workers reaches the policy.
    """
    lab = router_lab(policy, needs=("retries",))
    prompt, session = unrelated(1, size=2000, seed=lab.mark())[0], f"session-{lab.mark()}"
    favourite = lab.send(prompt, session=session).worker
    lab.worker(favourite).always(RESET_AT_ONCE)
    for _ in range(3):
        sent = lab.send(prompt, session=session)
        route = [arrival.worker for arrival in sent.arrivals]
        assert route.count(favourite) <= 1, (
            f"{policy}: the retry went back to the worker that had reset the request: {route}, then {sent.reply.shown}"
        )
        assert sent.reply.status == 200, (
            f"{policy}: a request failed beside 2 healthy workers, having tried {route}: {sent.reply.shown}"
        )
