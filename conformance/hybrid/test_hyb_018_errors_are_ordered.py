"""HYB-018."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary

PROMPTS = 6
TIMES = 1.5  # each step of precision at least so many times the error of the one before


@check(
    "HYB-018",
    feature="similarity",
    bound="fp32 exact; 1 - overlap grows at least 1.5 times from each precision to the next. Measured on the tiny "
    "model: fp16 1.0e-3, bf16 7.5e-3, INT8 weights and activations 3.9e-2, INT4 weights 1.8e-1",
    sources=("https://github.com/Nerogar/OneTrainer/pull/1063", "https://github.com/pytorch/ao/issues/4266"),
    timeout=120,  # on a busy machine most of it is the import of transformers
)
def test_hyb_018(prefill_library: PrefillLibrary, record_property: Callable[[str, object], None]) -> None:
    """Right variants err in the order of their precision: fp32, fp16, bf16, INT8, INT4

    A calibration stands on variants that are what they say. One that is not below the finer one computed in it: a cast
    that did nothing, layers that were not found. Look at what the variant changed.
    """
    import torch

    from gaugeblock.fixtures.embedded import tiny_model
    from gaugeblock.fixtures.oracle import oracle_for
    from gaugeblock.fixtures.similarity import variants
    from gaugeblock.fixtures.similarity.measures import overlap
    from gaugeblock.fixtures.similarity.prompts import token_prompts

    prompts = [torch.tensor(ids) for ids in token_prompts(oracle_for(tiny_model()))[:PROMPTS]]
    model = prefill_library.model
    plain = variants.plain(model)
    reference = [plain(ids) for ids in prompts]
    forwards = {
        "fp32": variants.RIGHT["fp32-again"](model),
        "fp16": variants.RIGHT["fp16"](model),
        "bf16": variants.RIGHT["bf16"](model),
        "INT8": variants.int8_both(model),
        "INT4": variants.plain(variants.quantised(model, bits=4)),
    }
    errors = {}
    for name, forward in forwards.items():
        shares = [overlap(rows, forward(ids)).mean() for rows, ids in zip(reference, prompts, strict=True)]
        errors[name] = 1 - float(sum(shares) / len(shares))
    assert errors["fp32"] < 1e-9, f"fp32 against itself is {errors['fp32']:.1e} off"
    steps = list(errors.items())
    for (finer, small), (coarser, large) in pairwise(steps):
        assert large > max(TIMES * small, 1e-6), (
            f"{coarser} is {large:.1e} off and {finer} {small:.1e}: {coarser} does not compute in {coarser}"
        )
    record_property("evidence", ", ".join(f"{name} {error:.1e}" for name, error in steps))
