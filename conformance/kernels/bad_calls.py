"""Calls that a kernel must refuse, derived from any op's contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gaugeblock.kernels.contract import Case, Op, Tensors


@dataclass(frozen=True)
class BadCall:
    """One illegal call: ``argument`` is what is wrong with it."""

    argument: str
    what: str
    inputs: Tensors
    outs: Tensors


def bad_calls(op: Op, case: Case, *, with_outs: bool) -> Iterator[BadCall]:
    """Yield illegal variants of a legal case: wrong dtypes, shapes that would have to be broadcast, wrong outputs.

    Shortened tensors are views of the full ones, so that a kernel that does not look reads valid memory.
    """
    inputs = case.inputs
    first = next(iter(inputs))
    rows = inputs[first].shape[0]
    other = torch.float16 if case.dtype != torch.float16 else torch.float32
    yield BadCall(first, "int32", {**inputs, first: inputs[first].to(torch.int32)}, {})
    yield BadCall(first, "without dimensions", {**inputs, first: inputs[first].flatten()[0]}, {})
    for name, tensor in inputs.items():
        if tensor.is_floating_point() and name != first:
            yield BadCall(name, f"{other} for {tensor.dtype}", {**inputs, name: tensor.to(other)}, {})
        if name in op.tied:
            yield BadCall(name, "one column short", {**inputs, name: tensor[..., :-1]}, {})
        a_row_each = name in op.row_inputs and name != first and tensor.shape[0] == rows
        if a_row_each or (name in op.tied and tensor.dim() == 1):
            yield BadCall(name, "of size 1, to be broadcast", {**inputs, name: tensor[:1]}, {})
    if not with_outs:
        return
    for name, expected in op.oracle(case).items():
        out = op.outs[name]
        dtype = case.dtype if expected.is_floating_point() else expected.dtype
        longer = torch.empty(*expected.shape[:-1], expected.shape[-1] + 1, dtype=dtype)
        yield BadCall(out, "one column too long", inputs, {out: longer})
        yield BadCall(out, str(other), inputs, {out: torch.empty(expected.shape, dtype=other)})
