"""RTR-094."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import await_called_off, failing_reply, opening, pair_lab
from gaugeblock.fixtures.workers.script import HANG_AT_ONCE, HEALTHY, RESET_AT_ONCE, Answer

FAILURES = {"500": Answer(status=500), "400": Answer(status=400), "reset": RESET_AT_ONCE, "hang": HANG_AT_ONCE}
BOUND = 3.0  # seconds until the client must know


@check(
    "RTR-094",
    feature="pd",
    bound="an error status within 3 s, where decode alone would wait for its KV for 5 s; decode called off 3 s later",
    sources=(
        "https://github.com/sgl-project/sglang/issues/9726",
        "https://github.com/sgl-project/sglang/pull/29017",
        "https://github.com/vllm-project/aibrix/issues/2289",
        "https://github.com/llm-d/llm-d/issues/2433",
    ),
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("failure", list(FAILURES))
def test_rtr_094(router_lab: LabFactory, failure: str, stream: bool) -> None:
    """When prefill fails, the client hears of it at once and decode is called off.

    Decode waits for a KV that will never come, until its own time-out of minutes, in a slot that others need. Look at
    whether prefill's result is awaited beside decode's answer, or after it.
    """
    hung = failure == "hang"
    lab = pair_lab(router_lab, needs=("timeouts",) if hung else (), idle_timeout=1.0 if hung else None)
    both = lab.gate()  # prefill fails once decode has the request too: else there may be nothing to call off
    for worker in lab.decodes:
        worker.always(opening(both, HEALTHY))
    for worker in lab.prefills:
        worker.always(replace(FAILURES[failure], hold=both))
    failing_reply(lab, BOUND, "fail in prefill", f"prefill failed ({failure})", stream=stream)
    await_called_off(lab, lab.decodes, "fail in prefill", f"prefill failed ({failure})")
