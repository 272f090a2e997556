"""KER-011."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.bad_calls import BadCall
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op

SAYS_WHAT = ("shape", "size", "dtype", "type", "dim", "hidden", "expected", "must be")


@check(
    "KER-011",
    feature="kernels",
    bound="exact: an exception whose message names the argument, its shape or its dtype; afterwards a legal call works",
    sources=(
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
    for bad in bad_calls(op, case, with_outs=kernels.takes_outs(op)):
        _require_refused(kernels, op, case, bad)
    outputs = kernels.run(op, case)
    if not kernels.own_randomness(op):
        judge(op, case, outputs, "after refusals", allowed=STRUCTURE)


def _require_refused(kernels: KernelTarget, op: Op, case: Case, bad: BadCall) -> None:
    from gaugeblock.kernels.arguments import Unclaimed

    move = {name: tensor.to(kernels.device) for name, tensor in {**bad.inputs, **bad.outs}.items()}
    inputs = [move[name] for name in bad.inputs]
    outs = {name: move[name] for name in bad.outs}
    what = f"{op.name}: {bad.argument} ({bad.what})"
    refusal = None
    try:
        kernels.functions[op.name](*inputs, **case.params, **outs)
    except Unclaimed:
        return  # the adapter answers for a library that was not asked
    except Exception as error:  # any refusal counts, its message decides
        refusal = error
    assert refusal is not None, f"{what} was accepted"
    clear = any(word in str(refusal).lower() for word in (bad.argument, *SAYS_WHAT))
    assert clear, f"{what} was refused by {type(refusal).__name__}({refusal}), which does not say what is wrong"
