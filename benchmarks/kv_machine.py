"""Many steps of the KV state machine: ``python benchmarks/kv_machine.py --steps 100000 [--kv MODULE]``.

Each round draws with a seed of its own, over tiers of several sizes. Prints what the runs came across and the
violations, each with the shortest way there; ends with 1 if there was any.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from functools import partial

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.kv_machine import run_machine
from gaugeblock.fixtures.targets.kv_tally import Tally
from gaugeblock.fixtures.targets.kv_target import load_kv

SIZES = ((5, 8), (6, 6), (4, 12), (8, 16))  # pages of the fastest tier, and of each below
RUNS, STEPS = 100, 50  # of one seed
ROUND_SECONDS = 600.0
SHOWN = 5  # violations


def main() -> int:
    """Run until the steps are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--kv", default="gaugeblock.fixtures.targets.kv_reference", metavar="MODULE")
    parser.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    given = parser.parse_args()
    make = load_kv(given.kv)
    counts: Counter[str] = Counter()
    violations: list[str] = []
    started, number = time.monotonic(), 0
    while counts["steps"] < given.steps and len(violations) < SHOWN:
        pages, below = SIZES[number % len(SIZES)]
        tally = Tally()
        try:
            run_machine(
                partial(make, pages, below),
                runs=RUNS,
                steps=STEPS,
                seed=given.seed + number,
                seconds=ROUND_SECONDS,
                tally=tally,
            )
        except TargetFault as fault:
            violations.append(f"seed {given.seed + number}, tiers of {pages} and {below} pages: {fault}")
        counts.update(tally.counts())
        number += 1
    print(f"{given.kv}: {number} seeds in {time.monotonic() - started:.0f} s")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"{counts['steps']} steps, {len(violations)} violations")
    print("\n".join(violations))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
