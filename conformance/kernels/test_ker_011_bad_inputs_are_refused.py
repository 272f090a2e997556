"""KER-011."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.bad_calls import BadCall
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op


@check(
    "KER-011",
    feature="kernels",
    bound="exact: an exception whose message names the argument, or its shape, dtype or device, in whole words; "
    "indices of 64 bits and, on a GPU, tensors of the host may be taken where the result is right; afterwards a legal "
    "call works",
    sources=(
        "https://github.com/flashinfer-ai/flashinfer/issues/1654",
        "https://github.com/huggingface/kernels-community/issues/76",
        "https://github.com/vllm-project/vllm/pull/3324",
    ),
)
def test_ker_011(kernels: KernelTarget, op: Op) -> None:
    """Illegal inputs are refused before anything runs, with a message that says what is wrong.

    A kernel that reads whatever it is given turns a wrong shape or dtype into wrong numbers, or reads out of bounds.
    Check shapes, dtypes and devices in the Python function: nothing is broadcast.
    """
    from gaugeblock.conformance.kernels.bad_calls import bad_calls
    from gaugeblock.conformance.kernels.judging import STRUCTURE, claimed, judge

    cases = (op.make(4, op.sizes.small, dtype, 12, "normal") for dtype in reversed(op.dtypes))
    case = next(claimed(kernels, op, cases, exact=False))
    for bad in bad_calls(op, case, with_outs=kernels.takes_outs(op), device=kernels.device):
        _require_refused(kernels, op, case, bad)
    outputs = kernels.run(op, case)
    if not kernels.own_randomness(op):
        judge(op, case, outputs, "after refusals", allowed=STRUCTURE)


def _require_refused(kernels: KernelTarget, op: Op, case: Case, bad: BadCall) -> None:
    from gaugeblock.conformance.kernels.judging import STRUCTURE, judge
    from gaugeblock.kernels.arguments import Unclaimed

    what = f"{op.name}: {bad.argument} ({bad.what})"
    refusal, result = None, None
    try:
        result = kernels.functions[op.name](*bad.inputs.values(), **case.params, **bad.outs)
        _wait(kernels)
    except Unclaimed:
        return  # the adapter answers for a library that was not asked
    except Exception as error:  # any refusal counts, its message decides
        refusal = error
    if refusal is not None:
        said = f"{type(refusal).__name__}({refusal})"
        assert bad.said_by(str(refusal)), f"{what} was refused by {said}, which does not say what is wrong"
        return
    assert bad.harmless, f"{what} was accepted"
    if not kernels.own_randomness(op):
        judge(op, case, op.named(result), f"with {bad.argument} {bad.what}", allowed=STRUCTURE)


def _wait(kernels: KernelTarget) -> None:
    """Let what a GPU does wrong show here."""
    import torch

    if kernels.device == "cuda":
        torch.cuda.synchronize()
