"""Calls that a kernel must refuse, derived from any op's contract, and the words by which a refusal is clear."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from gaugeblock.kernels.contract import Case, Op, Tensors

ELSEWHERE = {"cpu": "meta", "cuda": "cpu"}
"""Where a tensor lies that is not with the others."""

DTYPE = r"dtypes?|(scalar|data)[_ ]?types?"
SHAPE = r"shapes?|sizes?|dims?|dimensions?|ndim|rank|length|columns?|hidden"
DIMENSIONS = r"dims?|dimensions?|dimensional|ndim|rank|scalar|\d-?d"
DEVICE = r"devices?|cpu|cuda|gpu|meta|host"
NAMES = {
    torch.float32: "float32|float|fp32|f32",
    torch.float16: "float16|half|fp16|f16",
    torch.bfloat16: "bfloat16|bf16",
    torch.int64: "int64|long|i64",
    torch.int32: "int32|int|i32",
    torch.int8: "int8|char|i8",
}
"""What PyTorch, C++ and CUDA libraries call a dtype; a refusal may name the one it got or the one it wants."""


@dataclass(frozen=True)
class BadCall:
    """One illegal call: ``argument`` is what is wrong with it, in its ``wrong``.

    ``harmless``: who takes it may, if the result is right: 64-bit numbers, or a tensor that is copied to the others.
    """

    argument: str
    what: str
    inputs: Tensors
    outs: Tensors
    wrong: Literal["dtype", "shape", "device"]
    harmless: bool = False

    def said_by(self, message: str) -> bool:
        """Return whether a message names the argument, or what is wrong with it, in whole words of its own."""
        tensor = {**self.inputs, **self.outs}[self.argument]
        if "CUDA error" in message:  # no refusal: it ran
            return False
        if _word(re.escape(self.argument), message):
            return True
        if self.wrong == "device":
            return _word(DEVICE, message)
        if self.wrong == "dtype":
            return _word("|".join((DTYPE, *NAMES.values())), message)
        if tensor.dim() == 0:
            return _word(DIMENSIONS, message)
        printed = r"\s*[,x×]\s*".join(map(str, tensor.shape))
        return (tensor.dim() > 1 and _word(printed, message)) or _names_a_size(tensor, message)


def _word(pattern: str, message: str) -> bool:
    return re.search(rf"(?<![^\W_])({pattern})(?![^\W_])", message, re.IGNORECASE) is not None


def _names_a_size(tensor: torch.Tensor, message: str) -> bool:
    """Whether a message speaks of sizes and gives one of this tensor's."""
    return _word(SHAPE, message) and _word("|".join(map(str, tensor.shape)), message)


def bad_calls(op: Op, case: Case, *, with_outs: bool, device: str) -> Iterator[BadCall]:
    """Yield illegal variants of a legal case, for a target on ``device``.

    Wrong dtypes, shapes that would have to be broadcast, tensors elsewhere, wrong outputs. Shortened tensors are views
    of the full ones, so that a kernel that does not look reads valid memory.
    """
    inputs = {name: tensor.to(device) for name, tensor in case.inputs.items()}
    first = next(iter(inputs))
    yield BadCall(first, "int32", {**inputs, first: inputs[first].to(torch.int32)}, {}, "dtype")
    yield BadCall(first, "without dimensions", {**inputs, first: inputs[first].flatten()[0]}, {}, "shape")
    yield from _wrong_dtypes(inputs, first, _other(case))
    yield from _wrong_shapes(op, inputs, first)
    for name, tensor in inputs.items():
        place = ELSEWHERE[device]
        yield BadCall(name, f"on {place}", {**inputs, name: tensor.to(place)}, {}, "device", place == "cpu")
    if with_outs:
        yield from _wrong_outputs(op, case, inputs)


def _other(case: Case) -> torch.dtype:
    return torch.float16 if case.dtype != torch.float16 else torch.float32


def _wrong_dtypes(inputs: Tensors, first: str, other: torch.dtype) -> Iterator[BadCall]:
    for name, tensor in inputs.items():
        if name == first:
            continue
        dtype = other if tensor.is_floating_point() else torch.float32
        yield BadCall(name, f"{dtype} for {tensor.dtype}", {**inputs, name: tensor.to(dtype)}, {}, "dtype")
        if tensor.dtype == torch.int32:
            yield BadCall(name, "int64", {**inputs, name: tensor.long()}, {}, "dtype", harmless=True)


def _wrong_shapes(op: Op, inputs: Tensors, first: str) -> Iterator[BadCall]:
    rows = inputs[first].shape[0]
    for name, tensor in inputs.items():
        if name in op.tied:
            yield BadCall(name, "one column short", {**inputs, name: tensor[..., :-1]}, {}, "shape")
        a_row_each = name in op.row_inputs and name != first and tensor.shape[0] == rows
        if a_row_each or (name in op.tied and tensor.dim() == 1):
            yield BadCall(name, "of size 1, to be broadcast", {**inputs, name: tensor[:1]}, {}, "shape")


def _wrong_outputs(op: Op, case: Case, inputs: Tensors) -> Iterator[BadCall]:
    device = next(iter(inputs.values())).device
    for name, expected in op.oracle(case).items():
        out = op.outs[name]
        dtype = case.dtype if expected.is_floating_point() else expected.dtype
        longer = torch.empty(*expected.shape[:-1], expected.shape[-1] + 1, dtype=dtype, device=device)
        yield BadCall(out, "one column too long", inputs, {out: longer}, "shape")
        other = torch.empty(expected.shape, dtype=_other(case), device=device)
        yield BadCall(out, str(other.dtype), inputs, {out: other}, "dtype")
