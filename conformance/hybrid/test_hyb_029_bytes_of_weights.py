"""HYB-029."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

MOST = 0.40


@check(
    "HYB-029",
    feature="int8",
    bound=f"at most {MOST} of fp32's bytes, every tensor counted once: a quarter for the values, scales, wide columns, "
    "and room for a matrix or two that must stay fp32",
    sources=(
        "https://github.com/huggingface/transformers/issues/31474",
        "https://github.com/AutoGPTQ/AutoGPTQ/issues/723",
    ),
)
def test_hyb_029(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """INT8 weights take the memory of INT8 weights

    A copy in another layout, integers kept as int32, or an embedding table that was left out costs what INT8 was to
    save: a quarter of a small model is its embedding. Counted are all tensors that the model's operators hold.
    """
    from gaugeblock.fixtures.targets.inprocess import target_call
    from gaugeblock.fixtures.targets.weight_bytes import held_bytes
    from gaugeblock.reference.engine.model import LlamaModel
    from gaugeblock.reference.hybrid.recipe import Recipe, quantize_model

    config, weights = inprocess.config, inprocess.weights
    with target_call("quantising the weights"):
        quantized = quantize_model(weights, config, (), Recipe(calibrate=False))  # values differ, their size does not
    before, after = (held_bytes(LlamaModel(config, held)) for held in (weights, quantized))
    record_property("evidence", f"{after:,} of {before:,} bytes, {after / before:.3f}")
    assert after <= MOST * before, f"INT8 weights take {after:,} bytes, {after / before:.2f} of fp32's {before:,}"
