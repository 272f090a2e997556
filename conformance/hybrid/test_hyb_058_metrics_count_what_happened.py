"""HYB-058."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.targets.lane_bench import LaneBench


@check(
    "HYB-058",
    feature="lanes",
    bound="exact: 20 samples after 8 requests whose ends are known, by a clock that is set by hand",
    sources=(
        "https://github.com/BerriAI/litellm/pull/40348",
        "https://github.com/api7/aisix/pull/972",
        "https://github.com/maximhq/bifrost/issues/5926",
    ),
)
def test_hyb_058(record_property: Callable[[str, object], None]) -> None:
    """Metrics count what happened: by lane, by reason, each once

    Faults belong to the lane that failed, latencies to the lane that served, from the request's arrival on. Look at
    labels that are read after the request has moved on.
    """
    bench = LaneBench(breaker_failures=2)
    gpu, cpu = bench.lanes["gpu"], bench.lanes["cpu"]
    bench.ask("one", priority="high", new=2)
    bench.ask("two", priority="high", new=2)
    bench.ask("over", priority="high", new=2)  # degraded by overload
    bench.now += 0.2
    gpu.step()
    bench.now += 0.2
    gpu.step()  # both end, 0.4 s after their arrival
    cpu.step()
    bench.now += 0.6
    cpu.step()  # 1.0 s

    bench.ask("early", priority="high", new=2)
    gpu.fail()  # degraded by a fault, begun anew
    bench.ask("midway", priority="high", new=2)
    bench.now += 0.1
    gpu.step()
    gpu.fail()  # the second in a row: the breaker opens
    bench.now += 0.1
    cpu.step()
    cpu.step()
    bench.ask("late", priority="low", new=2, timeout=1.0)
    bench.wait(1.0)
    bench.ask("none", priority="low", new=2, floor="fp32", timeout=0.5)
    bench.wait(0.5)  # waits for the GPU lane behind its breaker
    bench.ask("left", priority="low")
    bench.front.abort("left")

    right: dict[tuple[Any, ...], float] = {  # a name, then pairs of label and value
        ("requests_total", ("lane", "gpu"), ("end", "length")): 2,
        ("requests_total", ("lane", "gpu"), ("end", "fault")): 2,
        ("requests_total", ("lane", "cpu"), ("end", "fault")): 0,
        ("requests_total", ("lane", "cpu"), ("end", "length")): 3,
        ("requests_total", ("lane", "cpu"), ("end", "deadline")): 1,
        ("requests_total", ("lane", "cpu"), ("end", "abort")): 1,
        ("degraded_total", ("lane", "cpu"), ("reason", "overload")): 1,
        ("degraded_total", ("lane", "cpu"), ("reason", "fault")): 2,
        ("continued_total", ("lane", "cpu")): 1,
        ("continued_total", ("lane", "gpu")): 0,
        ("refused_total", ("reason", "deadline_passed")): 1,
        ("time_to_first_token_seconds_count", ("lane", "gpu")): 3,
        ("time_to_first_token_seconds_sum", ("lane", "gpu")): 0.2 + 0.2 + 0.1,
        ("time_to_first_token_seconds_count", ("lane", "cpu")): 2,
        ("time_to_first_token_seconds_sum", ("lane", "cpu")): 0.4 + 0.2,
        ("request_seconds_count", ("lane", "gpu")): 2,
        ("request_seconds_sum", ("lane", "gpu")): 0.4 + 0.4,
        ("request_seconds_count", ("lane", "cpu")): 3,
        ("request_seconds_sum", ("lane", "cpu")): 1.0 + 0.2 + 0.2,
        ("breaker_state", ("lane", "gpu")): 2,
    }
    for (name, *labels), value in right.items():
        shown = ", ".join(f"{label}={of}" for label, of in labels)
        found = bench.metric(name, **dict(labels))
        assert abs(found - value) < 1e-6, f"gaugeblock_lane_{name}{{{shown}}} is {found:g}, and {value:g} is right"
    record_property("evidence", f"{len(right)} samples right")
