"""KV-045."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gaugeblock.conformance.check import check


@check(
    "KV-045",
    feature="eviction-policies",
    bound="exact: every evicted key, at its arrival, in order",
    sources=(
        "https://www.usenix.org/conference/fast-03/arc-self-tuning-low-overhead-replacement-cache",
        "https://dl.acm.org/doi/pdf/10.1145/3600006.3613147",
        "https://github.com/openzfs/zfs/issues/8104",
    ),
)
def test_kv_045(record_property: Callable[[str, object], None]) -> None:
    """Golden traces evict the keys that the papers say, in that order

    A policy that evicts others may still have a good hit rate, and is then not the one whose name it bears. The golden
    file derives each short trace; the message names arrival and keys. Look at what a use, a ghost or the clock changes.
    """
    from gaugeblock.conformance.golden import goldens
    from gaugeblock.reference.kv.policies import POLICIES

    seen: dict[str, int] = {}
    with goldens("eviction") as files:
        for case in (case for file in files.values() for case in file):
            policy = POLICIES[case["policy"]](case["capacity"])
            actual = _replay(policy, case)
            assert actual == case["evictions"], _first_difference(case, actual)
            seen[case["policy"]] = seen.get(case["policy"], 0) + len(actual)
    assert set(seen) == set(POLICIES), f"no golden trace for {', '.join(set(POLICIES) - set(seen))}"
    assert min(seen.values()) > 20, f"evictions by policy {seen}: nothing was checked"
    counts = ", ".join(f"{name} {count}" for name, count in seen.items())
    record_property("evidence", f"{sum(seen.values())} evictions in order: {counts}")


def _replay(policy: Any, case: dict[str, Any]) -> list[list[Any]]:
    """Run the arrivals as a tier would; a page number is used again as soon as its page has gone."""
    sizes = dict(case["arrivals"])
    page_of: dict[str, int] = {}
    key_of: dict[int, str] = {}
    unused, free = list(range(len(sizes), -1, -1)), case["capacity"]
    evictions: list[list[Any]] = []
    for number, (key, size) in enumerate(case["arrivals"]):
        if key in page_of:
            policy.touch(page_of[key])
            continue
        while free < size:
            victim = next(policy.victims(key.encode()), None)
            assert victim in key_of, f"{_label(case, number)}: the victim is page {victim}, held are {sorted(key_of)}"
            policy.remove(victim, evicted=True)
            gone = key_of.pop(victim)
            evictions.append([number, gone])
            del page_of[gone]
            free += sizes[gone]
            unused.append(victim)
        page_of[key] = unused.pop()
        key_of[page_of[key]] = key
        policy.add(page_of[key], key.encode(), size)
        free -= size
    return evictions


def _first_difference(case: dict[str, Any], actual: list[list[Any]]) -> str:
    wanted = case["evictions"]
    index = next((i for i, (a, b) in enumerate(zip(actual, wanted, strict=False)) if a != b), None)
    if index is None:
        return f"golden {case['id']}: {len(actual)} evictions, {len(wanted)} should be: {case['derivation']}"
    return (
        f"{_label(case, wanted[index][0])}: evicts {actual[index][1]!r} for arrival {actual[index][0]}, "
        f"the paper's {case['policy']} evicts {wanted[index][1]!r}: {case['derivation']}"
    )


def _label(case: dict[str, Any], number: int) -> str:
    return f"golden {case['id']}, arrival {number} ({case['arrivals'][number][0]!r})"
