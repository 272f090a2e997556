"""KER-013."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

EXAMPLES = {"cpu": 12, "cuda": 60}
"""Calls an op. The sequence is fixed, so that a run can be repeated; the interpreter pays for each call."""


@check(
    "KER-013",
    feature="kernels",
    bound="4 × KER-002's; the examples are derived from the check itself, the same in every run",
    sources=(
        "https://github.com/NVIDIA/TensorRT-LLM/pull/14810",
        "https://github.com/ModelTC/LightLLM/issues/1467",
    ),
    timeout=300,
)
def test_ker_013(kernels: KernelTarget, op: Op) -> None:
    """Drawn shapes, values and layouts, each input laid out on its own, give the right result or a clear refusal.

    The counterexample in the message is shrunk: fewest rows, smallest size, plainest values and strides that still
    fail. One input strided and the others not: a stride of one tensor is used for another. A size: a tile's mask.
    """
    from gaugeblock.conformance.kernels.drawing import judge_drawn
    from gaugeblock.conformance.kernels.judging import claimed

    next(claimed(kernels, op, op.cases(2, op.sizes.small, 0)))
    judge_drawn(kernels, op, EXAMPLES[kernels.device])
