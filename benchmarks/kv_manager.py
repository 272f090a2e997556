"""How many page operations a tier does in a second, and what it remembers of a page, at a million pages.

``python benchmarks/kv_manager.py [--pages N] [--policy NAME] [--rounds N]``, one core. An operation is a page's way
through lookup, prepare and complete. *Store*: the tier is full, every page evicts another. *Load*: every page is a hit,
pinned and unpinned. Chains of 64 pages, one call a chain; keys are made beforehand.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import statistics
import time
from pathlib import Path

from gaugeblock.reference.kv.policies import POLICIES
from gaugeblock.reference.kv.table import PageTable
from gaugeblock.reference.kv.tier import NewPage, Tier

CHAIN = 64
SIZE = 1 << 20  # bytes; none are moved
CHAINS_A_ROUND = 1000


def chain(number: int) -> list[NewPage]:
    """Return the pages of one sequence, each the parent of the next."""
    pages, parent = [], hashlib.sha256(b"root").digest()
    for position in range(CHAIN):
        key = hashlib.sha256(b"%d.%d" % (number, position)).digest()
        pages.append(NewPage(key, parent, SIZE))
        parent = key
    return pages


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def store(tier: Tier, pages: list[NewPage]) -> None:
    """Look a chain up and store it, as the device does with what it evicts."""
    keys = [page.key for page in pages]
    found = tier.prefix(keys)
    plan = tier.prepare_store(pages[found:])
    assert plan is not None
    tier.complete_store([page.key for page in plan.fresh])


def load(tier: Tier, pages: list[NewPage]) -> None:
    """Look a chain up, pin and unpin it, and note its use."""
    keys = [page.key for page in pages]
    assert tier.prefix(keys) == CHAIN
    assert tier.prepare_load(keys)
    tier.complete_load(keys)
    tier.touch(keys)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1_000_000)
    parser.add_argument("--policy", choices=list(POLICIES), default="lru")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    gc.collect()
    before = resident()
    capacity = options.pages * SIZE
    tier = Tier("host", capacity, POLICIES[options.policy](capacity), PageTable(), 1)
    for number in range(options.pages // CHAIN):
        store(tier, chain(number))
    gc.collect()
    print(f"{options.policy}, {tier.count} pages: {(resident() - before) / tier.count:.0f} bytes a page, key included")
    rates: dict[str, list[float]] = {"store": [], "load": []}
    for turn in range(options.rounds):
        first = options.pages + turn * CHAINS_A_ROUND
        chains = [chain(number) for number in range(first, first + CHAINS_A_ROUND)]
        for name, operation in (("store", store), ("load", load)):
            started = time.perf_counter()
            for pages in chains:
                operation(tier, pages)
            rates[name].append(CHAINS_A_ROUND * CHAIN / (time.perf_counter() - started))
    assert tier.evictions >= options.rounds * CHAINS_A_ROUND * CHAIN, "nothing was evicted"
    for name, values in rates.items():
        low, high = min(values) / 1e3, max(values) / 1e3
        print(f"{name}: {statistics.median(values) / 1e3:.0f} k page operations/s ({low:.0f}-{high:.0f})")
    tier.recount()


if __name__ == "__main__":
    main()
