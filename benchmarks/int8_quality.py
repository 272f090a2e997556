"""What each step of the INT8 recipe brings: overlap with fp32, and the bytes of the weights, as one table.

``OMP_NUM_THREADS=1 python benchmarks/int8_quality.py [--model PATH] [--prompts 24]``

Teacher-forced over the kit's prompts, against plain fp32 in transformers. The gate ``int8`` stands on this model's own
null of bf16 and INT8 weights, measured first. Every row but those two has INT8 weights and INT8 activations in every
matrix, embedding and head included; the reference engine's model computes it. The last one, two INT8 digits of all
activations, is for comparison: what is left is the weights' share of the error.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.similarity.gates import GATES, Gate, judge
from gaugeblock.fixtures.similarity.measure_null import Bench, load_bench, measure_null
from gaugeblock.fixtures.similarity.summary import Similarity, summarise
from gaugeblock.fixtures.similarity.variants import RIGHT
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.loader import LayerWeights, Weights, load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.hybrid import int8
from gaugeblock.reference.hybrid.int8_file import stored_bytes
from gaugeblock.reference.hybrid.recipe import Recipe, calibration_prompts, quantize_model

NULL = ("bf16", "int8-weights")
PLAIN = Recipe(rotate_stream=False, rotate_values=False, rotate_down=False, calibrate=False, second_digit=())
LADDER = {
    "plain INT8": PLAIN,
    "residual stream rotated": replace(PLAIN, rotate_stream=True),
    "+ values rotated": replace(PLAIN, rotate_stream=True, rotate_values=True),
    "+ down's input rotated": Recipe(calibrate=False, second_digit=()),
    "+ calibrated rounding": Recipe(second_digit=()),
}
DIGITS = {
    "+ two digits for qkv and out: the recipe": Recipe().second_digit,
    "all inputs in two digits": int8.MATRICES,
}


def with_digits(weights: Weights, names: Sequence[str]) -> Weights:
    """Return the same INT8 weights with a second digit of some matrices' inputs; of the head's if of all."""

    def layer(old: LayerWeights) -> LayerWeights:
        return replace(old, **{name: replace(getattr(old, name), digits=2) for name in names})

    head = replace(weights.head, digits=2) if set(names) == set(int8.MATRICES) else weights.head
    return replace(weights, layers=tuple(map(layer, weights.layers)), head=head)


def rows(bench: Bench, gate: Gate) -> Iterator[tuple[str, Similarity, float | None]]:
    """Yield each row's name, similarity and share of fp32's bytes."""
    config, exact = load_config(bench.folder), load_weights(bench.folder, load_config(bench.folder))
    fp32 = sum(t.nbytes for t in {t.data_ptr(): t for t in tensors(exact)}.values())

    def row(name: str, weights: Weights) -> tuple[str, Similarity, float | None]:
        found = summarise(bench.against_fp32(LlamaModel(config, weights).forward_full), usual=gate.usual)
        return name, found, stored_bytes(weights) / fp32

    prompts = calibration_prompts(Tokenizer(str(bench.folder)).encode)
    for name, recipe in LADDER.items():
        weights = quantize_model(exact, config, prompts, recipe)
        yield row(name, weights)
    for name, names in DIGITS.items():  # the last weights again: digits are no part of them
        yield row(name, with_digits(weights, names))


def tensors(weights: Weights) -> Iterator[Tensor]:
    """Yield every tensor of fp32 weights."""
    yield from (weights.embed, weights.norm, weights.head)
    for layer in weights.layers:
        yield from vars(layer).values()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=tiny_model(), help="a Hugging Face folder; default: tiny-llama")
    parser.add_argument("--prompts", type=int, default=24, help="of the kit's prompts, the first so many")
    options = parser.parse_args()
    console, begin = Console(width=130), time.perf_counter()
    bench = load_bench(options.model, count=options.prompts)
    null = {name: bench.against_fp32(RIGHT[name](bench.model)) for name in NULL}
    gate = measure_null(bench, NULL).gate(GATES["int8"])
    table = Table("", "mean", "worst prompt", "p1", "lowest 1%", "usual", "min", "KL mean", "bytes", "gate int8")
    right = [(name, summarise(prompts, usual=gate.usual), None) for name, prompts in null.items()]
    for name, found, share in itertools.chain(right, rows(bench, gate)):
        numbers = [found.overlap, found.worst_prompt.value, found.tail.value, found.shortfall.value]
        numbers += [found.excess.value if found.excess else math.nan, found.lowest.value]
        size = "" if share is None else f"{share:.3f}"
        outcome = judge(found, gate).outcome
        table.add_row(name, *(f"{n:.4f}" for n in numbers), f"{found.kl_mean:.1e}", size, outcome)
        console.print(f"{time.perf_counter() - begin:.0f} s: {name}", style="dim")
    console.print(
        f"{options.model.resolve().name}, {len(bench.prompts)} prompts, {sum(map(len, bench.prompts))} positions; "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n"
        f"gate int8 by the null of {', '.join(NULL)}: worst prompt above {gate.worst_prompt}, first percentile above "
        f"{gate.tail:.4f}, mean of the lowest 1% above {gate.shortfall:.4f}, worst 1% at most {gate.excess:.2f} times "
        "as far off as rounding usually is there (usual); bytes: of fp32's"
    )
    console.print(table)


if __name__ == "__main__":
    main()
