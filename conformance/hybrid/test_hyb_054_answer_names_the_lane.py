"""HYB-054."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.targets.lane_bench import Client, LaneBench


@check(
    "HYB-054",
    feature="lanes",
    bound="exact: each event of 10 requests names the lane that said it, its quality, and why it is not the one that "
    "was meant",
    sources=(
        "https://github.com/BerriAI/litellm/issues/31722",
        "https://github.com/BerriAI/litellm/pull/25712",
        "https://github.com/agentgateway/agentgateway/issues/1361",
    ),
)
def test_hyb_054(record_property: Callable[[str, object], None]) -> None:
    """An answer names the lane that served it, and whether and why it was degraded

    Requests in both lanes at once, overload, a fault before the first token and one after it. Look at names that are
    taken from what was chosen first, and at state that two requests share.
    """
    bench = LaneBench()
    plain = [bench.ask(f"{priority}-{n}", priority=priority) for n in range(2) for priority in ("high", "low")]
    for _ in range(3):  # token by token, in turns
        for lane in bench.lanes.values():
            lane.step()
    _named(plain[0::2], "gpu", "fp32", None)
    _named(plain[1::2], "cpu", "int8", None)

    full = [bench.ask(f"full-{n}", priority="high") for n in range(4)]
    bench.finish()
    _named(full[:2], "gpu", "fp32", None)
    _named(full[2:], "cpu", "int8", "overload")

    early, midway = bench.ask("early", priority="high"), bench.ask("midway", priority="high")
    bench.lanes["gpu"].step("midway")
    bench.lanes["gpu"].fail()
    bench.finish()
    _named([early], "cpu", "int8", "fault")
    first, *rest = midway.events
    assert (first.served_by or {}).get("lane") == "gpu", (
        f"the first token is the GPU lane's, and says {first.served_by}"
    )
    names = [(event.served_by or {}).get("lane") for event in rest]
    assert names == ["cpu", "cpu"], f"the tokens after the fault are the CPU lane's, and say {names}"
    assert midway.served.get("lanes") == ["gpu", "cpu"], f"two lanes made the answer, and it says {midway.served}"

    needs = [bench.ask("floor", priority="low", floor="bf16")]
    bench.finish()
    _named(needs, "gpu", "fp32", None)
    record_property("evidence", f"{len(bench.clients)} requests, each named as it was served")


def _named(clients: list[Client], lane: str, quality: str, degraded: str | None) -> None:
    for client in clients:
        assert client.whole, f"{client.rid}: {client.tokens}, {client.ends}"
        for event in client.events:
            said = dict(event.served_by or {})
            right = {"lane": lane, "lane_quality": quality, "degraded": degraded}
            assert said == right, f"{client.rid} was served by {right}, and says {said or 'nothing'}"
