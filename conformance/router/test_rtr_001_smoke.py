"""RTR-001."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of
from gaugeblock.conformance.router.labs import LabFactory


@check(
    "RTR-001",
    feature="proxy",
    bound="exact: status 200 and one generation a request",
    sources=("https://github.com/openai/openai-openapi",),
    gate=True,
)
def test_rtr_001(router_lab: LabFactory) -> None:
    """A request and a stream pass through to a worker and back.

    The router does not forward at all: nothing that the other checks say would mean anything. Look at its log and at
    whether it accepts the workers' health and model answers.
    """
    lab = router_lab()
    sent = lab.send("is anybody there")
    assert sent.reply.status == 200, f"the router answered a plain chat with {sent.reply.shown}"
    assert len(sent.arrivals) == 1, f"one request reached workers {len(sent.arrivals)} times"
    content = sent.reply.json()["choices"][0]["message"]["content"]
    assert content, f"the answer has no content: {sent.reply.shown}"
    ending, mark = ending_of(lab, "is anybody there")
    assert ending.clean, f"a healthy stream did not end in order: {ending.shown}"
    assert any(event.done for event in ending.events), f"a healthy stream lost its [DONE]: {ending.shown}"
    assert len(lab.arrivals(mark)) == 1, f"one streamed request reached workers {len(lab.arrivals(mark))} times"
