"""How often the gates and a watch call a right engine wrong: twins of a model in five precisions.

    python3 benchmarks/similarity_alarms.py                       # tiny-llama, 240 comparisons
    python3 benchmarks/similarity_alarms.py --model PATH --device cuda --out alarms.jsonl

A twin computes the same function with other weights, so that all roundings fall differently
(gaugeblock/fixtures/similarity/twins.py). Each is held to the plain model's null, and watched for 500 rounds of 48
positions. Every line is written as it is measured; a run that is stopped has measured as many as it says. ``--workers``
are processes, each with a model of its own on the device, and one thread. On SmolLM2 one of them needs 10 to 30 s a
comparison on a CPU. It runs from a plain checkout as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

from on_gpu import make_importable

if TYPE_CHECKING:
    from gaugeblock.fixtures.similarity.false_alarms import Held, Twin
    from gaugeblock.fixtures.similarity.measure_null import Bench


def say(found: list[Twin], seconds: float) -> str:
    """Return what was measured."""
    from gaugeblock.fixtures.similarity.false_alarms import ROUNDS, interval

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


def load(model: Path, device: str) -> Bench:
    """Return the model's bench; one thread computes it."""
    make_importable()
    import torch

    from gaugeblock.fixtures.similarity.measure_null import load_bench

    torch.set_num_threads(1)
    return load_bench(model, device)


class Worker:
    """What a process of the pool keeps from twin to twin."""

    bench: Bench
    held: Mapping[str, Held]

    @classmethod
    def start(cls, model: Path, device: str, held: Mapping[str, Held]) -> None:
        """Load the model."""
        cls.bench, cls.held = load(model, device), held

    @classmethod
    def compare(cls, seed: int) -> list[Twin]:
        """Compare one twin in every variant."""
        from gaugeblock.fixtures.similarity.false_alarms import compare_twin

        return list(compare_twin(cls.bench, cls.held, seed))


def compare_all(
    bench: Bench, held: Mapping[str, Held], model: Path, seeds: Sequence[int], workers: int
) -> Iterator[Twin]:
    """Compare all twins, in this process or in ``workers`` others."""
    if workers == 1:
        Worker.bench, Worker.held = bench, held
        for seed in seeds:
            yield from Worker.compare(seed)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, Worker.start, (model, bench.device, held)) as pool:
        for done in as_completed([pool.submit(Worker.compare, seed) for seed in seeds]):
            yield from done.result()


def main() -> None:
    """Measure and print."""
    make_importable()
    from gaugeblock.fixtures.embedded import tiny_model
    from gaugeblock.fixtures.similarity.false_alarms import VARIANTS, held_to
    from gaugeblock.fixtures.similarity.measure_null import measure_null
    from gaugeblock.fixtures.similarity.prediction import ROUNDINGS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=tiny_model())
    parser.add_argument("--seeds", type=int, default=48, help="twins; each is compared in every variant")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="all by default; on a CPU 16 bits are slow")
    parser.add_argument("--roundings", type=int, default=ROUNDINGS, help="of each variant in the null")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, help="processes; by default 1 on a CPU, up to 12 on a GPU")
    parser.add_argument("--out", type=Path, help="one JSON line a comparison")
    options = parser.parse_args()
    workers = options.workers or (min(12, os.cpu_count() or 1) if options.device == "cuda" else 1)
    start = time.monotonic()
    found: list[Twin] = []
    variants = options.variants.split(",")
    bench = load(options.model, options.device)
    held = held_to(measure_null(bench, variants, roundings=options.roundings), variants)
    for gate in {limits.gate.name: limits.gate for limits in held.values()}.values():
        print(
            f"gate {gate.name}: first percentile above {gate.tail:.4f}, lowest 1% above {gate.shortfall:.4f}, worst 1% "
            f"at most {gate.excess:.2f} times as far off as usual; {time.monotonic() - start:.0f} s",
            flush=True,
        )
    for one in compare_all(bench, held, options.model, range(options.seeds), workers):
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
