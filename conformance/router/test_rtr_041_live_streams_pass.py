"""RTR-041."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import read_to_end
from gaugeblock.fixtures.targets.router import CHAT
from gaugeblock.fixtures.targets.router_live import LiveRouter

PROMPT = "Count from one to five."


@check(
    "RTR-041",
    feature="proxy",
    bound="exact: 200, one [DONE] at the end, the text of the plain answer",
    sources=("https://github.com/vllm-project/aibrix/issues/2653",),
    timeout=300.0,
)
def test_rtr_041(live_router: LiveRouter) -> None:
    """A stream through the router gives the same text as a plain answer and ends in order.

    Frames were lost, doubled or held back, or the end is missing. Compare with a stream straight from an engine.
    """
    plain = live_router.chat(PROMPT).json()["choices"][0]["message"]["content"]
    with live_router.wire.exchange("POST", CHAT, live_router.body(PROMPT, stream=True), {}) as exchange:
        assert exchange.status == 200, f"a streamed chat got status {exchange.status}"
        ending = read_to_end(exchange)
    assert ending.clean, f"the stream did not end in order: {ending.shown}"
    marks = [number for number, event in enumerate(ending.events) if event.done]
    assert marks == [len(ending.events) - 1], f"a stream ends with one [DONE], seen at {marks}: {ending.shown}"
    chunks = [event.json() for event in ending.events[:-1]]
    pieces = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices") or []]
    assert "".join(pieces) == plain, f"the stream says {''.join(pieces)!r}, the plain answer {plain!r}"
