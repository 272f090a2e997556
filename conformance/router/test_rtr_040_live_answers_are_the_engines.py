"""RTR-040."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import unsupported
from gaugeblock.fixtures.targets.router_live import LiveRouter

PROMPTS = ("Count from one to five.", "What is the capital of France?", "Name three colours.")


@check(
    "RTR-040",
    feature="proxy",
    bound="exact: a greedy answer through the router is one that an engine gives directly",
    sources=("https://github.com/sgl-project/sglang/issues/30233",),
    timeout=300.0,
)
def test_rtr_040(live_router: LiveRouter) -> None:
    """Answers through the router are the engines' own.

    Something between client and engine changes requests or answers. Compare the bodies at the engine with those sent;
    the prompts are greedy, so the same request gives the same text. Engines that differ among themselves all count.
    """
    if not live_router.engines:
        unsupported("comparing with the engines' own answers needs --engine-url for each engine behind the router")
    for prompt in PROMPTS:
        direct = [_content(live_router, prompt, number) for number in range(len(live_router.engines))]
        routed = _content(live_router, prompt, None)
        assert routed in direct, f"{prompt!r}: through the router {routed!r}, from the engines {sorted(set(direct))}"


def _content(live: LiveRouter, prompt: str, engine: int | None) -> str:
    reply = live.chat(prompt, wire=None if engine is None else live.engines[engine])
    return str(reply.json()["choices"][0]["message"]["content"])
