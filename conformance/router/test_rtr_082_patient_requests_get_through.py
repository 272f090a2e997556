"""RTR-082."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.queues import Crowd, Turnstile

BOUND, TURNS = 8, 20


@check(
    "RTR-082",
    feature="starvation-bound",
    bound="a patient request is passed over at most twice as often as the 8 that the router was told, of 20 turns",
    sources=(
        "https://github.com/kubernetes-sigs/gateway-api-inference-extension/issues/1861",
        "https://github.com/llm-d/llm-d-router/issues/1995",
    ),
)
def test_rtr_082(router_lab: LabFactory, note: Note) -> None:
    """A patient request gets through although urgent ones never stop.

    Strict priorities starve whatever is not urgent under constant load. Look at what bounds how often a band is passed
    over.
    """
    lab = router_lab(
        needs=("queue", "priority", "starvation-bound"),
        workers=1,
        max_concurrent=1,
        priorities=True,
        band_patience=BOUND,
    )
    gates = Turnstile(lab, TURNS + 4)
    with Crowd(lab) as crowd:
        crowd.send("first", band="high")
        gates.await_arrivals(1)
        crowd.enqueue("patient", band="low")
        crowd.enqueue("urgent 0", band="high")
        for turn in range(TURNS):
            crowd.enqueue(f"urgent {turn + 1}", band="high")  # so that there is always another one
            gates.let(turn)
            gates.await_arrivals(turn + 2)
        order = crowd.order(gates)
        assert "patient" in order, f"a patient request was passed over {TURNS} times by urgent ones that came after it"
        passed = order.index("patient") - 1
        note(f"passed over {passed} times")
        assert passed <= 2 * BOUND, f"a patient request was passed over {passed} times; the bound is {BOUND}"
        assert passed >= BOUND // 2, f"patient requests are served as soon as urgent ones, after {passed}"
