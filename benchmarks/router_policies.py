"""Cost of one routing decision by policy: 64 workers, for cache-aware a tree of 100 000 prompts.

    python benchmarks/router_policies.py
    python benchmarks/router_policies.py --trace mooncake_conversation.jsonl --markdown docs/router.md

Traces: https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release/traces (Apache-2.0). Times are CPU times of this
process: best, median and worst of the rounds. Exit code 1: a cache-aware decision takes more than 50 us (the goal is
15). Memory of a whole router is measured by benchmarks/router_speed.py.
"""

from __future__ import annotations

import argparse
import gc
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from gaugeblock.conformance.bench.routing.fleet import Engine
from gaugeblock.conformance.bench.routing.paper import on_paper
from gaugeblock.conformance.bench.routing.report import Report, Row, markdown, render
from gaugeblock.conformance.bench.routing.simulate import Setup, simulate
from gaugeblock.fixtures.targets.router_policies import OwnPolicies
from gaugeblock.fixtures.traces import load_trace
from gaugeblock.reference.router.policies import make_policy, policy_names
from gaugeblock.reference.router.policies.base import Decision, Policy, PolicySettings, RequestView, WorkerView

WORKERS, PREFIXES, HEADS, PROMPT = 64, 100_000, 1000, 4096  # bytes of a prompt, half of it a head that others share
BATCH, ROUNDS = 1000, 15
GATE, GOAL = 50.0, 15.0  # us
FLEETS = ((16, 2.0), (64, 8.0))  # workers, speed: about the same load for each worker
PAPER = (1000, 10e6)  # workers, requests an hour
MARKS = (
    "<!-- tables: python benchmarks/router_policies.py --trace TRACE --markdown docs/router.md -->",
    "<!-- end of tables -->",
)


def decisions() -> bool:
    """Time each policy; returns whether the gate holds."""
    rng = Random(7)
    workers = [WorkerView(f"http://10.0.{n // 256}.{n % 256}:30000", load=n % 3) for n in range(WORKERS)]
    heads = [rng.randbytes(PROMPT // 2) for _ in range(HEADS)]
    print(f"{WORKERS} workers, prompts of {PROMPT} bytes, {ROUNDS} rounds of {BATCH}, us: best / median / worst")
    print(f"{'policy':<34}{'decide':>24}{'decide and record':>24}")
    worst = 0.0
    for name in policy_names():
        policy = make_policy(name, PolicySettings())
        if name != "cache_aware":
            _show(name, _time(policy, workers, rng, lambda: rng.randbytes(PROMPT)))
            continue
        kinds = _kinds(_grow(policy, workers, heads, rng), heads, rng)
        gc.collect()
        print(f"{name}, {len(policy.tree):,} nodes counted as {policy.tree.bytes / 1e6:.1f} MB")  # type: ignore[attr-defined] # it is the cache-aware one
        for kind, make in kinds.items():
            times = _time(policy, workers, rng, make)
            _show(f"  {kind}", times)
            worst = max(worst, statistics.median(times[0])) if "KB" not in kind else worst
    verdict = "within the goal" if worst <= GOAL else "within the gate" if worst <= GATE else "ABOVE THE GATE"
    print(f"cache-aware decision, 4 KB, slowest median: {worst:.1f} us: {verdict} ({GATE:g} us, goal {GOAL:g} us)")
    return worst <= GATE


def _kinds(seen: list[bytes], heads: list[bytes], rng: Random) -> dict[str, Callable[[], bytes]]:
    return {
        "seen before": lambda: bytes(bytearray(rng.choice(seen))),  # a copy: no hash of it is known
        "head seen": lambda: rng.choice(heads) + rng.randbytes(PROMPT // 2),
        "new": lambda: rng.randbytes(PROMPT),
        "new, 64 KB": lambda: rng.randbytes(65536),
    }


def _grow(policy: Policy, workers: list[WorkerView], heads: list[bytes], rng: Random) -> list[bytes]:
    """Let a policy learn of the prompts; returns some of them."""
    seen = []
    for number in range(PREFIXES):
        prompt = heads[number % HEADS] + rng.randbytes(PROMPT // 2)
        home = workers[(number % HEADS + number % 3) % WORKERS]
        policy.record(RequestView("m", None, prompt), Decision(home.id, policy.name, "grown"), 0.0)
        if number >= PREFIXES - 5000:
            seen.append(prompt)
    return seen


def _time(
    policy: Policy, workers: list[WorkerView], rng: Random, make: Callable[[], bytes]
) -> tuple[list[float], list[float]]:
    """Return us a decision, and a decision with its record, of each round."""
    alone, both = [], []
    for _ in range(ROUNDS):
        for times, record in ((alone, False), (both, True)):
            requests = [RequestView("m", None, make()) for _ in range(BATCH)]
            began = time.process_time()
            for request in requests:
                decision = policy.decide(request, workers, rng, 0.0)
                if record:
                    policy.record(request, decision, 0.0)
            times.append((time.process_time() - began) / BATCH * 1e6)
    return alone, both


def _show(label: str, times: tuple[list[float], list[float]]) -> None:
    cells = (f"{min(t):7.1f} /{statistics.median(t):6.1f} /{max(t):6.1f}" for t in times)
    print(f"{label:<34}" + "".join(f"{cell:>24}" for cell in cells))


def simulations(path: Path) -> str:
    """Replay a trace through all policies in each fleet; returns the tables for a document."""
    trace, own, parts = load_trace(path), OwnPolicies(), []
    for workers, speed in FLEETS:
        setup = Setup(workers, Engine(), speed)
        rows = [Row.of(simulate(trace, own.make(name), name, setup)) for name in own.names()]
        report = Report(path.name, len(trace), setup, rows, on_paper(trace, own.names(), *PAPER))
        print("\n" + render(report))
        head = f"{workers} workers, {speed:g} times as fast as recorded:"
        parts.append(f"{head}\n\n{markdown(report)}")
    return "\n\n".join(parts)


def replace_tables(path: Path, tables: str) -> None:
    """Put the tables between the two marks of a document."""
    text = path.read_text(encoding="utf-8")
    pattern = f"({re.escape(MARKS[0])}\n).*?({re.escape(MARKS[1])})"
    text, found = re.subn(pattern, lambda match: f"{match[1]}{tables}\n{match[2]}", text, flags=re.DOTALL)
    if not found:
        raise SystemExit(f"{path} has no place for the tables: put {MARKS[0]} and {MARKS[1]} there")
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, help="also replay this trace, in Mooncake's format")
    parser.add_argument("--markdown", type=Path, help="a file whose tables, between two marks, are replaced")
    given = parser.parse_args()
    good = decisions()
    tables = simulations(given.trace) if given.trace else ""
    if tables and given.markdown:
        replace_tables(given.markdown, tables)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
