"""How often the gates and a watch call a right engine wrong: twins of a model in five precisions.

    python benchmarks/similarity_alarms.py                                  # tiny-llama, 240 comparisons
    python benchmarks/similarity_alarms.py --model PATH --out alarms.jsonl  # SmolLM2: some 30 s a comparison, one core

A twin computes the same function with other weights, so that all roundings fall differently
(gaugeblock/fixtures/similarity/twins.py). Each is held to the plain model's null, and watched for 500 rounds of 48
positions. Every line is written as it is measured; a run that is stopped has measured as many as it says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.similarity.false_alarms import ROUNDS, VARIANTS, Twin, compare_twins, interval
from gaugeblock.fixtures.similarity.measure_null import load_bench


def say(found: list[Twin], seconds: float) -> str:
    """Return what was measured."""
    failed = [one for one in found if one.complaints]
    alarms = [one for one in found if one.alarm is not None]
    lines = []
    for name, some in (("gate", failed), (f"watch of {ROUNDS} rounds", alarms)):
        low, high = interval(len(some), len(found))
        by = ", ".join(f"{variant} {count}" for variant, count in Counter(one.variant for one in some).items())
        lines.append(
            f"{name}: {len(some)} of {len(found)} right engines called wrong (95%: {100 * low:.2f} to "
            f"{100 * high:.2f}%){': ' if by else ''}{by}"
        )
    return "\n".join([*lines, f"{seconds:.0f} s"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=tiny_model())
    parser.add_argument("--seeds", type=int, default=48, help="twins; each is compared in every variant")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="all by default; on a CPU 16 bits are slow")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="one JSON line a comparison")
    options = parser.parse_args()
    start = time.monotonic()
    found: list[Twin] = []
    bench = load_bench(options.model, options.device)
    for one in compare_twins(bench, range(options.seeds), options.variants.split(",")):
        found.append(one)
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(one)) + "\n")
        if one.complaints or one.alarm is not None:
            said = f"{', '.join(one.complaints) or 'no limit missed'}, alarm in round {one.alarm}"
            print(f"twin {one.seed} in {one.variant}: {said}", flush=True)
    print(say(found, time.monotonic() - start))


if __name__ == "__main__":
    main()
