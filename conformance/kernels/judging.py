"""Hold outputs to an op's contract, and say exactly where they break it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from gaugeblock.conformance.outcome import unsupported
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.bounds import budget_used, ulp
from gaugeblock.kernels.contract import Case, Op, Tensors

RecordProperty = Callable[[str, object], None]
SHOWN = 3  # bad elements that a message lists

SEVERAL = 6
"""Rows of a call whose values are judged: above the 4 up to which a kernel for a few tokens may take the others' place.

Judged on 4 rows alone, an INT8 layer whose kernel for batches drops the bias passes on a GPU.
"""

STRUCTURE = 4.0
"""How many bounds an element may be off where a check asks about memory, shapes or earlier calls.

Chosen here. A bound is at least half a unit in the last place of the output, which is what one more rounding to its
dtype costs: 4 leaves room for three roundings too many, of which KER-002 is to be failed and these checks need not. A
value from another place differs by a good part of itself, even in bf16 by dozens of units. Outputs that must be exact
still must be.
"""


def claimed(kernels: KernelTarget, op: Op, cases: Iterable[Case], *, exact: bool = True) -> Iterator[Case]:
    """Yield the cases whose form the target offers; the check is unsupported where it offers none of them.

    ``exact``: the results will be compared with the oracle, which a sampler with random numbers of its own rules out.
    """
    if exact and kernels.own_randomness(op):
        unsupported(f"{kernels.name}.{op.name} draws its own random numbers; KER-019, KER-020 and KER-021 judge it")
    reasons: dict[str, None] = {}
    offered = False
    for case in cases:
        reason = kernels.unclaimed(op, case)
        if reason:
            reasons[reason] = None
        else:
            offered = True
            yield case
    if not offered:
        unsupported(f"{kernels.name}: {'; '.join(reasons) or 'no case'}")


def affordable(kernels: KernelTarget, op: Op, rows: int, size: int, seed: int) -> Iterator[Case]:
    """Yield the case of every dtype with every variant on a GPU, in the interpreter of each dtype with one in turn."""
    return (op.cases if kernels.device == "cuda" else op.some_cases)(rows, size, seed)


def run_and_judge(kernels: KernelTarget, op: Op, cases: Iterable[Case], allowed: float = 1.0) -> list[dict[str, Any]]:
    """Run each case that the target offers and judge it; return the evidence of each."""
    return [judge(op, case, kernels.run(op, case), allowed=allowed) for case in claimed(kernels, op, cases)]


def judge(op: Op, case: Case, outputs: Tensors, what: str = "", allowed: float = 1.0) -> dict[str, Any]:
    """Assert that every element is within ``allowed`` times its bound, exact outputs bit for bit.

    Computed on the device of the case. Returns the evidence: the largest share of the budget that each output uses.
    ``what`` is put behind the case in the message.
    """
    oracle = op.oracle(case)
    bound = op.bound(case, oracle)
    label = f"{case.label} {what}".strip()
    used = {}
    for name, expected in oracle.items():
        result = outputs[name].detach().to(expected.device)
        require_form(label, name, result, expected, case)
        share = budget_used(result, expected, bound[name])
        largest = share.max().item() if share.numel() else 0.0
        assert largest <= allowed, _describe(label, name, result, expected, bound[name], share / allowed)
        used[name] = round(largest, 4)
    return {"case": label, "budget_used": used}


def judge_beside(
    op: Op, case: Case, outputs: Tensors, plain: Tensors, what: str, allowed: float = 1.0
) -> dict[str, Any]:
    """Assert that a call under hard conditions has the bits of a plain call, or as :func:`judge`; return the evidence.

    Who is out of bounds in both alike fails KER-002 for it, and has not failed under these conditions. A NaN in the
    plain call is judged all the same: what is not written there may be old memory of these very conditions.
    """
    if not any(result.isnan().any() for result in plain.values()) and all(
        torch.equal(bits(outputs[name].cpu()), bits(result.cpu())) for name, result in plain.items()
    ):
        return {"case": f"{case.label} {what}: as a plain call", "budget_used": {}}
    return judge(op, case, outputs, what, allowed)


def require_form(label: str, name: str, result: torch.Tensor, expected: torch.Tensor, case: Case) -> None:
    """Assert shape and dtype of one output."""
    dtype = case.dtype if expected.is_floating_point() else expected.dtype
    assert result.shape == expected.shape, (
        f"{label}: {name} has shape {tuple(result.shape)}, not {tuple(expected.shape)}"
    )
    assert result.dtype == dtype, f"{label}: {name} is {result.dtype}, not {dtype}"


def _describe(
    label: str, name: str, result: torch.Tensor, expected: torch.Tensor, bound: torch.Tensor, share: torch.Tensor
) -> str:
    wrong = (share > 1).nonzero()
    lines = []
    for index in wrong[:SHOWN].tolist():
        at = tuple(index)
        got, right = result[at].item(), expected[at].item()
        if not result.is_floating_point():
            lines.append(f"{name}{list(at)} = {got}, oracle {right}")
            continue
        units = abs(got - right) / ulp(expected[at], result.dtype).item()
        allowed = f"{bound[at].item():.3g} allowed" if bound[at] else "must be exact"
        lines.append(f"{name}{list(at)} = {got!r}, oracle {right:.9g}: off by {units:.3g} ulp, {allowed}")
    return f"{label}: {len(wrong)} of {share.numel()} elements out of bound; " + "; ".join(lines)


def require_same_bits(result: torch.Tensor, expected: torch.Tensor, message: str) -> None:
    """Assert bitwise equality (−0 differs from +0; equal NaN are equal); the message gets the first difference."""
    result, expected = result.detach().cpu().contiguous(), expected.detach().cpu().contiguous()
    assert result.shape == expected.shape, f"{message}: shapes {tuple(result.shape)} and {tuple(expected.shape)}"
    differ = bits(result) != bits(expected)
    if differ.any():
        at = tuple(differ.nonzero()[0].tolist())
        values = f"{result[at].item()!r} against {expected[at].item()!r} at {list(at)}"
        raise AssertionError(
            f"{message}: {int(differ.sum())} of {differ.numel()} elements differ in their bits, {values}"
        )


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's bit patterns as integers."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


def record(record_property: RecordProperty, op: Op, kernels: KernelTarget, cases: list[dict[str, Any]]) -> None:
    """Attach the judged cases to the verdict, with the largest share of the budget that any of them used."""
    worst = max((share for case in cases for share in case["budget_used"].values()), default=0.0)
    evidence = {"op": op.name, "module": kernels.name, "device": kernels.device, "budget_used": worst, "cases": cases}
    record_property("evidence", evidence)
