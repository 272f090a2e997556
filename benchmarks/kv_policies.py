"""Replay a Mooncake trace through every eviction policy at four capacities, beside libcachesim and Belady.

    python benchmarks/kv_policies.py mooncake_conversation.jsonl                 # gate 40 s, goal 15 s on one core
    python benchmarks/kv_policies.py mooncake_conversation.jsonl --markdown docs/policies.md

Traces: https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release/traces (Apache-2.0). Blocks have one size, so
the size-based policy breaks nothing but ties: here by age, as LRU; libcachesim's depends on its heap and is left out.
Exit code 1 when a hit rate differs from libcachesim's in the third decimal, or the replays exceed the gate.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import libcachesim

from gaugeblock.fixtures.policy_hits import peer_hits
from gaugeblock.fixtures.traces import accesses, load_trace
from gaugeblock.reference.kv.policies import POLICIES
from gaugeblock.reference.kv.replay import Accesses, belady, bound, replay

SHARES = (0.01, 0.05, 0.10, 0.25)
GATE, GOAL = 40.0, 15.0  # seconds of one core for all policies at all capacities
MARKS = ("<!-- table: python benchmarks/kv_policies.py TRACE --markdown docs/policies.md -->", "<!-- end of table -->")


def measure(trace: Accesses) -> tuple[list[list[str]], float, list[str]]:
    """Return the table's rows, the seconds of the replays, and what differs from libcachesim."""
    capacities = [max(1, int(share * trace.unique_bytes)) for share in SHARES]
    rows, total, different = [], 0.0, []
    for name, make in POLICIES.items():
        cells, seconds = [], 0.0
        for capacity in capacities:
            begin = time.process_time()
            rate = replay(trace, make(capacity), capacity).hit_rate
            seconds += time.process_time() - begin
            compared = name != "size"  # all ties
            peer = peer_hits(libcachesim, trace, name, capacity) / len(trace.order) if compared else None
            if peer is not None and f"{rate:.3f}" != f"{peer:.3f}":
                different.append(f"{name} at {capacity}: {rate:.5f}, libcachesim {peer:.5f}")
            cells.append(f"{rate:.3f} ({'ties' if peer is None else f'{peer:.3f}'})")
        rows.append([name, *cells, f"{seconds:.2f}"])
        total += seconds
    best = [f"{belady(trace, capacity).hit_rate:.3f}" for capacity in capacities]
    rows.append(["Belady", *best, ""])
    rows.append(["bound by bytes x time", *(f"{bound(trace, capacity):.3f}" for capacity in capacities), ""])
    return rows, total, different


def markdown(trace: Accesses, path: Path, rows: list[list[str]], total: float) -> str:
    """Return the table with a line that says what it was measured on."""
    heads = ["policy", *(f"{share:.0%}" for share in SHARES), "seconds"]
    lines = [
        f"`{path.name}`: {len(trace.order)} uses of {len(trace.keys)} blocks, ceiling {trace.ceiling:.3f}. Hit "
        f"rates by blocks at a share of all different blocks, in brackets libcachesim's; {total:.1f} s of one core.",
        "",
        *("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)),
    ]
    return "\n".join(lines)


def main() -> int:
    """Parse, replay, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--markdown", type=Path, help="a file whose table, between two marks, is replaced")
    given = parser.parse_args()
    trace = accesses(load_trace(given.trace))
    rows, total, different = measure(trace)
    table = markdown(trace, given.trace, rows, total)
    print(table)
    if given.markdown:
        text = given.markdown.read_text(encoding="utf-8")
        pattern = f"({re.escape(MARKS[0])}\n).*?({re.escape(MARKS[1])})"
        text, count = re.subn(pattern, lambda found: f"{found[1]}{table}\n{found[2]}", text, flags=re.DOTALL)
        if not count:
            raise SystemExit(f"{given.markdown} has no place for the table: put {MARKS[0]} and {MARKS[1]} there")
        given.markdown.write_text(text, encoding="utf-8")
    verdict = "within the goal" if total <= GOAL else "within the gate" if total <= GATE else "ABOVE THE GATE"
    print(f"\n{total:.1f} s: {verdict} ({GATE:.0f} s, goal {GOAL:.0f} s)")
    for line in different:
        print(f"DIFFERENT: {line}")
    return bool(different) or total > GATE


if __name__ == "__main__":
    raise SystemExit(main())
