"""HYB-053."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.targets.lane_bench import LaneBench

FAILURES, COOLDOWN, PROBES, REQUESTS = 3, 10.0, 2, 12


@check(
    "HYB-053",
    feature="lanes",
    bound=f"exact: {FAILURES} of {REQUESTS} requests reach a lane that fails each, {PROBES} probe it at a time, and it "
    "serves again after one success",
    sources=(
        "https://github.com/future-agi/future-agi/issues/2693",
        "https://github.com/defilantech/LLMKube/issues/453",
        "https://github.com/zentinelproxy/zentinel/issues/261",
    ),
)
def test_hyb_053(record_property: Callable[[str, object], None]) -> None:
    """A lane that keeps failing is left alone, tried by a bounded number of requests, and used again once it works

    Every request is answered all the while. Look at how many are let in once the cooldown is over, and at whether
    anything still asks the breaker of a lane that nobody is sent to.
    """
    bench = LaneBench(
        [
            {"name": "gpu", "tier": "gpu", "quality": "fp32", "capacity": REQUESTS},
            {"name": "cpu", "tier": "cpu", "quality": "int8", "capacity": REQUESTS},
        ],
        breaker_failures=FAILURES,
        breaker_cooldown=COOLDOWN,
        breaker_probes=PROBES,
    )
    gpu = bench.lanes["gpu"]
    gpu.down = True
    clients = [bench.ask(f"down-{n}", priority="high") for n in range(REQUESTS)]
    bench.finish()
    assert len(gpu.got) == FAILURES, f"{len(gpu.got)} of {REQUESTS} requests reached a lane that had failed {FAILURES}"

    bench.wait(COOLDOWN / 2)
    clients.append(bench.ask("early", priority="high"))
    bench.finish()
    assert len(gpu.got) == FAILURES, "a request reached the lane before the cooldown was over"

    bench.wait(COOLDOWN / 2)
    clients.append(bench.ask("probe", priority="high"))
    bench.finish()
    assert len(gpu.got) == FAILURES + 1, f"after the cooldown the lane got {len(gpu.got) - FAILURES} requests, not one"
    bench.wait(COOLDOWN / 2)
    clients.append(bench.ask("too early", priority="high"))
    bench.finish()
    assert len(gpu.got) == FAILURES + 1, "a failed probe did not close the lane again"

    gpu.down = False
    bench.wait(COOLDOWN)
    before = len(gpu.got)
    clients += [bench.ask(f"half-{n}", priority="high") for n in range(REQUESTS)]
    probes = len(gpu.got) - before
    assert probes == PROBES, f"{probes} of {REQUESTS} requests probe a lane at once; {PROBES} are allowed"
    bench.finish()
    before = len(gpu.got)
    clients += [bench.ask(f"up-{n}", priority="high") for n in range(REQUESTS)]
    assert len(gpu.got) == before + REQUESTS, (
        f"{len(gpu.got) - before} of {REQUESTS} requests went to a lane that works"
    )
    bench.finish()
    failed = [client.rid for client in clients if not client.whole]
    assert not failed, f"{len(failed)} of {len(clients)} requests have no whole answer: {failed[:3]}"
    record_property(
        "evidence", f"{len(clients)} requests answered; {FAILURES} faults, 1 failed and {PROBES} good probes"
    )
