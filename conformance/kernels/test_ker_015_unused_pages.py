"""KER-015."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


def applies(op: Op) -> bool:
    """Whether the op reads a paged cache."""
    return op.paged


@check(
    "KER-015",
    feature="kernels",
    bound="exact: the bits are the same whatever stands in unused pages and in unused slots of a last page",
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/1745",
        "https://github.com/vllm-project/vllm/issues/53856",
        "https://github.com/sgl-project/sglang/issues/32477",
    ),
    timeout=120,
)
def test_ker_015(kernels: KernelTarget, op: Op) -> None:
    """What stands in unused pages, and behind a request's last token, reaches no result.

    NaN in the result: a weight of zero times an unused value, so mask the values too, not the weights alone. Other
    numbers: a mask of the last page that is off by one, or a context length that is another request's.
    """
    from gaugeblock.conformance.kernels.judging import affordable, claimed, require_same_bits
    from gaugeblock.conformance.kernels.paging import refilled, unused

    for case in claimed(kernels, op, affordable(kernels, op, 4, op.sizes.usual + 1, 16)):
        slots = int(unused(case).sum())
        assert slots > 0, "the case leaves no slot unused"
        expected = kernels.call(op, {n: t.to(kernels.device) for n, t in refilled(case, 0.0).items()}, case.params)
        for value in (math.nan, math.inf, 1e4):
            inputs = {name: tensor.to(kernels.device) for name, tensor in refilled(case, value).items()}
            for name, result in kernels.call(op, inputs, case.params).items():
                require_same_bits(result, expected[name], f"{case.label}: {name} with {value} in {slots} unused slots")
