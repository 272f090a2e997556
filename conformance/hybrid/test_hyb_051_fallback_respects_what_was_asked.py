"""HYB-051."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.targets.lane_bench import LaneBench

GPU_TOKEN, CPU_TOKEN = 0.1, 1.0  # seconds


@check(
    "HYB-051",
    feature="lanes",
    bound="exact: the clock is set by hand. A lane that makes a token a second is not given 20 tokens with 5 s left",
    sources=(
        "https://github.com/tashfeenahmed/freellmapi/pull/694",
        "https://github.com/BerriAI/litellm/issues/19077",
    ),
)
def test_hyb_051() -> None:
    """A fallback respects the request's deadline and its quality floor

    Under overload, after a fault before the first token, and in the middle of an answer. Look at what is asked again
    when the lane is chosen anew, and at who ends what runs when its time is over.
    """
    _deadlines()
    for tokens in (0, 1):
        _floor_after_a_fault(tokens)
    _floor_under_overload()


def _deadlines() -> None:
    bench = LaneBench()
    for priority, lane, seconds in (("high", "gpu", GPU_TOKEN), ("low", "cpu", CPU_TOKEN)):
        bench.ask(f"measures {lane}", priority=priority, new=5)
        for _ in range(5):
            bench.now += seconds
            bench.lanes[lane].step()
    gpu, cpu = (state.view for state in bench.front.states)
    assert None not in (gpu.decode, cpu.decode), "no lane's speed has been measured"

    late = bench.ask("late", priority="high", new=1000, timeout=5.0)
    assert bench.where("late") is None, f"1000 tokens with 5 s left were begun in the lane {bench.where('late')!r}"
    assert late.ends, "a request whose deadline no lane can meet waits"
    assert late.end.status == 429, f"a deadline that no lane can meet is answered {late.end}"

    for name in ("one", "two"):
        bench.ask(name, priority="high", new=30)
    queued = bench.ask("queued", priority="high", new=20, timeout=5.0)
    assert bench.where("queued") is None, (
        f"20 tokens with 5 s left went to the lane {bench.where('queued')!r}, which makes one a second"
    )
    bench.lanes["gpu"].fail("one")  # which takes it to the other lane, and makes room
    assert bench.where("queued") == "gpu", f"with room in the fast lane it is in {bench.where('queued')!r}"
    bench.lanes["gpu"].step("queued")
    bench.lanes["gpu"].fail("queued")
    assert bench.where("queued") is None, "after a fault it was begun in a lane that cannot meet its deadline"
    assert [end.status for end in queued.ends] == [503], f"it must end with an error: {queued.ends}"
    assert "'gpu'" in str(queued.end.message), f"its end does not name the lane: {queued.end}"

    runs = bench.ask("runs", priority="low", new=4, timeout=5.0)
    bench.lanes["cpu"].step("runs")
    bench.wait(5.0)
    assert runs.ends, "a request whose time is over runs on"
    assert (runs.end.status, "'cpu'" in str(runs.end.message)) == (504, True), f"its end does not say so: {runs.end}"
    assert bench.where("runs") is None, "its lane was not told to stop"
    bench.lanes["cpu"].late("runs")
    assert len(runs.ends) == 1, f"it ended {len(runs.ends)} times"


def _floor_after_a_fault(tokens: int) -> None:
    bench = LaneBench()
    client = bench.ask("exact", priority="high", floor="bf16")
    for _ in range(tokens):
        bench.lanes["gpu"].step()
    bench.lanes["gpu"].fail()
    got = len(bench.lanes["cpu"].got)
    assert not got, f"a request for bf16 or better was given to the INT8 lane after a fault, {tokens} tokens on"
    assert [end.status for end in client.ends] == [503], f"it must end with an error, and ended with {client.ends}"
    message = client.end.message or ""
    assert all(name in message for name in ("'gpu'", "bf16")), f"the error names no lane, or no floor: {message}"


def _floor_under_overload() -> None:
    bench = LaneBench()
    clients = [bench.ask(f"{n}", priority="high", floor="bf16", new=1) for n in range(4)]
    low = bench.ask("low", priority="low", floor="fp32", new=1)
    assert not bench.lanes["cpu"].got, "a request for bf16 or better went to the INT8 lane while the other was full"
    assert not any(client.ends for client in clients), "a request that can be served later was ended"
    bench.finish()
    lanes = [client.served.get("lane") for client in (*clients, low)]
    assert lanes == ["gpu"] * 5, f"requests for bf16 or better were served by {lanes}"
    alone = LaneBench([{"name": "cpu", "tier": "cpu", "quality": "int8"}])
    refused = alone.ask("exact", floor="fp32")
    assert refused.ends, "a request whose floor no lane reaches waits for ever"
    assert (refused.end.status, "cpu (int8)" in str(refused.end.message)) == (400, True), f"it says: {refused.end}"
