"""KV-008."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory

PAGES, BELOW = 5, 8  # room for so few that everything is crowded out within some calls
RUNS, STEPS = 25, 30


@check(
    "KV-008",
    feature="prefix-cache",
    bound="exact: every call's result and every page's bytes are those of a dictionary",
    sources=(
        "https://github.com/vllm-project/vllm/issues/29870",
        "https://github.com/sgl-project/sglang/issues/27108",
        "https://github.com/LMCache/LMCache/issues/3130",
    ),
    timeout=120.0,
)
def test_kv_008(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """Whatever is called in whatever order, the manager agrees with a dictionary

    Hypothesis draws stores, lookups, holds, releases, evictions and restarts; after each call everything is counted
    again. The message ends with the shortest way to the fault that was found: replay it call by call.
    """
    from gaugeblock.fixtures.targets.kv_machine import run_machine

    tally = run_machine(lambda: kv_target(PAGES, BELOW), runs=RUNS, steps=STEPS)
    tally.require()
    record_property("evidence", tally.summary())
