"""HYB-070."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.targets.lane_bench import LaneBench

RESTARTS, PAUSE, COOLDOWN, CAPACITY = 2, 5.0, 1.0, 4


@check(
    "HYB-070",
    feature="lanes",
    bound=f"exact: no request to an engine that has died, a restart {PAUSE:g} s after each death, none before, "
    f"{RESTARTS} in a row; then 503 at once where no other lane will do",
    sources=(
        "https://github.com/opendatalab/MinerU/pull/5188",
        "https://github.com/kunchenguid/firstmate/pull/2942",
        "https://github.com/kharkevich-engineering-lab/spark-pulse/pull/140",
    ),
)
def test_hyb_070(record_property: Callable[[str, object], None]) -> None:
    """A lane whose engine has died gets no requests, is restarted so many times after a pause, and says how it is

    Breakers are for lanes that may work: a probe of a dead one costs a request. Look at what the choice knows of an
    engine's loop, and at what ends the restarts: answers to the end count them anew, deaths in a row do not.
    """
    bench = LaneBench(
        [
            {"name": "gpu", "tier": "gpu", "quality": "fp32", "capacity": CAPACITY},
            {"name": "cpu", "tier": "cpu", "quality": "int8", "capacity": CAPACITY},
        ],
        breaker_failures=2,
        breaker_cooldown=COOLDOWN,
        restarts=RESTARTS,
        restart_pause=PAUSE,
    )
    gpu = bench.lanes["gpu"]
    for death in range(RESTARTS + 1):
        _die(bench, f"first-{death}")
        _restarted(bench)
        bench.wait(COOLDOWN)  # the breaker's: three deaths with an answer after each
        client = bench.ask(f"again-{death}", priority="high")
        assert bench.where(client.rid) == "gpu", f"a restarted lane is not used: {client.rid} went elsewhere"
        bench.finish()
        assert client.whole, f"{client.rid}, in a restarted lane: {client.tokens}, {client.ends}"

    for death in range(RESTARTS):
        _die(bench, f"row-{death}")
        _restarted(bench)
    _die(bench, "last")
    waits = bench.ask("waits", priority="high", floor="fp32")
    before = gpu.restarts
    bench.wait(100 * PAUSE)
    assert gpu.restarts == before, f"{RESTARTS} restarts in a row did not help, and there was another one"
    assert bench.metric("condition", lane="gpu") == 2, "a lane that is down for good does not say so in its metrics"
    refused = bench.ask("refused", priority="high", floor="fp32")
    for client in (waits, refused):
        statuses = [end.status for end in client.ends]
        assert statuses == [503], f"no lane that is left reaches the floor of {client.rid}, which ended with {statuses}"
        said = client.end.message or ""
        assert "'gpu' is down" in said, f"{client.rid} is told {said!r}, not which lane is down"
    crashes = bench.metric("crashes_total", lane="gpu", error="RuntimeError")
    assert crashes == 2 * (RESTARTS + 1), f"the engine died {2 * (RESTARTS + 1)} times, and {crashes:g} were counted"
    record_property("evidence", f"{crashes:g} deaths, {gpu.restarts} restarts, {len(bench.clients)} requests")


def _die(bench: LaneBench, name: str) -> None:
    """Let the GPU lane die with requests in it; the other lane must answer them, and whoever comes meanwhile."""
    gpu = bench.lanes["gpu"]
    inside = [bench.ask(f"{name}-{n}", priority="high") for n in range(CAPACITY // 2)]
    gpu.step()
    gpu.die()
    bench.wait(0.0)  # it is noticed
    got, restarts = len(gpu.got), gpu.restarts
    for _ in range(3):
        bench.wait(COOLDOWN)  # breakers would let probes in
        inside.append(bench.ask(f"{name}-after-{len(inside)}", priority="high"))
        bench.finish()
    assert gpu.restarts == restarts, "an engine was restarted before the pause was over"
    assert len(gpu.got) == got, f"{len(gpu.got) - got} requests were given to an engine that had died"
    assert bench.metric("condition", lane="gpu") > 0, "metrics call a lane whose engine has died well"
    for client in inside:
        assert client.whole, f"{client.rid}, whose lane died: {client.tokens}, {client.ends}"
        assert client.served["degraded"] == "fault", f"{client.rid} was degraded by {client.served['degraded']}"


def _restarted(bench: LaneBench) -> None:
    gpu = bench.lanes["gpu"]
    before = gpu.restarts
    bench.wait(PAUSE - 3 * COOLDOWN - 0.5)
    assert gpu.restarts == before, "an engine was restarted before the pause was over"
    bench.wait(1.0)
    count = gpu.restarts - before
    assert count == 1, f"after the pause an engine that had died was restarted {count} times"
    bench.wait(0.0)
    assert bench.metric("condition", lane="gpu") == 0, "metrics call a lane that was restarted dead"
