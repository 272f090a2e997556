"""HYB-059."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

RUNS, STEPS, SECONDS = 80, 25, 6.0


@check(
    "HYB-059",
    feature="lanes",
    level="extended",
    bound=f"exact: up to {RUNS} runs of {STEPS} calls, the same every time; after each one everything is counted again",
    sources=(
        "https://github.com/Altinn/altinn-studio/pull/18507",
        "https://github.com/mnfst/llm-gateway/issues/1119",
    ),
)
def test_hyb_059(record_property: Callable[[str, object], None]) -> None:
    """Whatever clients, lanes and the clock do, each request has one place and one end

    Requests, tokens, faults, deaths, outages, aborts, late events and waits in any order. The message lists the calls.
    Look at what each way out of a lane gives back, and at requests that are between two lanes when something else
    happens.
    """
    from gaugeblock.fixtures.targets.lane_machine import check_front

    seen = check_front(RUNS, STEPS, SECONDS).seen
    few = {
        kind: seen[kind]
        for kind in ("requests", "steps", "faults", "deaths", "aborts", "late", "waits", "ends")
        if seen[kind] < 20
    }
    assert not few, f"hardly anything was tried: {few}"
    record_property("evidence", ", ".join(f"{count} {kind}" for kind, count in sorted(seen.items())))
