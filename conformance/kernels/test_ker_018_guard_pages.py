"""KER-018."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


@check(
    "KER-018",
    feature="kernels",
    bound="exact: no byte outside a tensor is read or written, whether or not it changes the result",
    sources=(
        "https://github.com/triton-lang/triton/issues/10336",
        "https://github.com/svg-project/Sparse-VideoGen/pull/74",
        "https://github.com/thunlp/TritonBench/issues/12",
    ),
    timeout=600,
)
def test_ker_018(kernels: KernelTarget, op: Op) -> None:
    """Memory outside the tensors is not touched.

    A load without a mask whose values are masked afterwards gives right results until the tensor lies at the end of an
    allocation: an illegal memory access in production, once a day. The message names the tensor.
    """
    from gaugeblock.conformance.kernels.guard_pages import sanitized, small_cases, touched_outside
    from gaugeblock.conformance.kernels.judging import claimed

    cases = list(claimed(kernels, op, small_cases(kernels, op), exact=False))
    if kernels.device == "cpu":
        lines = list(touched_outside(kernels, op, cases))
        assert not lines, "; ".join(lines)
    else:
        complaint = sanitized(kernels, op)
        assert not complaint, f"{op.name} touches memory outside its tensors: {complaint}"
