"""What the checks on prefill/decode disaggregation share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import CONVERGENCE, RouterLab, Sent
from gaugeblock.fixtures.targets.wire import Limits, Reply
from gaugeblock.fixtures.workers.loop import Gate
from gaugeblock.fixtures.workers.script import Answer, Arrival
from gaugeblock.fixtures.workers.worker import ScriptedWorker

PATIENCE = 3.0
"""Seconds from a failure to the other half's being called off; it takes milliseconds."""
GIVEN_UP = ("client left", "aborted")
"""Ends of a generation that its router has called off."""


def pair_lab(
    router_lab: LabFactory, policy: str = "round_robin", *, needs: tuple[str, ...] = (), **settings: Any
) -> RouterLab:
    """Return a lab with prefill and decode workers, two of each unless ``settings`` say otherwise."""
    return router_lab(policy, needs=("pd", *needs), **{"prefill": 2, "decode": 2, **settings})


def halves(lab: RouterLab, arrivals: tuple[Arrival, ...]) -> tuple[list[Arrival], list[Arrival]]:
    """Return the arrivals at prefill and at decode workers."""
    prefill = {worker.name for worker in lab.prefills}
    return [a for a in arrivals if a.worker in prefill], [a for a in arrivals if a.worker not in prefill]


def one_pair(lab: RouterLab, sent: Sent) -> tuple[Arrival, Arrival]:
    """Return the two halves of a request that needed one attempt.

    Raises:
        TargetFault: another number of arrivals.
    """
    prefill, decode = halves(lab, sent.arrivals)
    if len(prefill) != 1 or len(decode) != 1:
        seen = [f"{arrival.worker} {arrival.ended}" for arrival in sent.arrivals]
        raise TargetFault(f"one prefill and one decode worker should get the request, it reached {seen}")
    return prefill[0], decode[0]


def await_called_off(lab: RouterLab, workers: list[ScriptedWorker], mark: str, why: str) -> None:
    """Wait until every generation of ``workers`` with this mark has been called off.

    Raises:
        TargetFault: one goes on, has ended otherwise, or there is none.
    """

    def arrivals() -> list[Arrival]:
        return [arrival for worker in workers for arrival in worker.matching(mark)]

    if not arrivals():
        raise TargetFault(f"{why}, but the request has reached none of {[worker.name for worker in workers]}")
    lab.loop.wait_for(
        lambda: all(arrival.ended for arrival in arrivals()),
        PATIENCE,
        lambda: f"{why}, so the other half was to be called off; it still runs: {_shown(arrivals())}",
    )
    left = [arrival for arrival in arrivals() if arrival.ended not in GIVEN_UP]
    if left:
        raise TargetFault(f"{why}, yet the other half was not called off: {_shown(left)}")


def opening(gate: Gate, answer: Answer) -> Callable[[Arrival], Answer]:
    """Return a script that answers so, and opens ``gate`` as soon as the request is there."""

    def script(arrival: Arrival) -> Answer:
        gate.open()
        return answer

    return script


def await_healthy(lab: RouterLab, count: int) -> None:
    """Wait until the router counts ``count`` healthy workers, whether it is ready or not.

    Raises:
        TargetFault: it does not.
    """
    deadline = time.monotonic() + CONVERGENCE
    while (reply := lab.readiness()).json().get("healthy_workers") != count:
        if time.monotonic() > deadline:
            raise TargetFault(f"/readiness did not count {count} healthy workers in {CONVERGENCE:g} s: {reply.shown}")
        time.sleep(0.03)  # readiness can only be asked again


def failing_reply(lab: RouterLab, bound: float, prompt: str, why: str, *, stream: bool) -> Reply:
    """Send a request that cannot be served and return its answer, an error within ``bound`` seconds.

    Raises:
        TargetFault: the client waits for longer, or gets another answer.
    """
    try:
        reply = lab.send(prompt, stream=stream, limits=Limits(connect=2.0, idle=bound, total=bound)).reply
    except TargetFault as fault:
        raise TargetFault(f"{why}, and the client waited for over {bound:g} s to hear of it: {fault}") from None
    if reply.status < 400:
        raise TargetFault(f"{why}, yet the client got {reply.shown}")
    return reply


def give_up(lab: RouterLab, until: Callable[[], object], prompt: str, **options: Any) -> str:
    """Send a request that nobody will answer and leave once ``until()``; return its mark."""
    limits = Limits(connect=2.0, idle=0.5, total=0.5)
    mark = lab.mark()
    body = lab.body(f"{prompt} {mark}", **options)
    try:
        reply = lab.wire.call("POST", "/v1/chat/completions", body, {}, limits)
    except TargetFault as fault:
        if "limit of the call" not in str(fault):
            raise
    else:
        raise TargetFault(f"no worker had answered, yet the client got {reply.shown}")
    if not until():
        raise TargetFault("the request did not reach both workers before the client left")
    return mark


def _shown(arrivals: list[Arrival]) -> list[str]:
    return [f"{arrival.worker}: {arrival.ended or 'running'}" for arrival in arrivals]
