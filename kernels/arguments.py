"""What an op refuses before it launches anything, and how tensors of any rank become rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gaugeblock.kernels.runtime import DEVICE

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""The storage dtypes of every op; arithmetic is fp32."""


class Refused(ValueError):
    """An op was called with tensors that it does not take; nothing was launched, nothing was written."""


class Unclaimed(Exception):  # it says what it is: no failure, a form of the op that is not offered
    """The implementation does not offer the op in this form (a dtype, a variant): nothing is said about it."""


def require_like(reference: str, tensors: dict[str, torch.Tensor]) -> None:
    """Refuse tensors that differ from ``tensors[reference]`` in dtype or device, or are of a dtype that no op takes."""
    expected = tensors[reference]
    if expected.dtype not in DTYPES:
        raise Refused(f"{reference} is {expected.dtype}; supported: {', '.join(map(str, DTYPES))}")
    if expected.device.type != DEVICE:
        raise Refused(f"{reference} is on {expected.device}; these kernels run on {DEVICE}")
    for name, tensor in tensors.items():
        if tensor.dtype != expected.dtype:
            raise Refused(f"{name} is {tensor.dtype} but {reference} is {expected.dtype}")
        if tensor.device != expected.device:
            raise Refused(f"{name} is on {tensor.device} but {reference} is on {expected.device}")


def require_shape(name: str, tensor: torch.Tensor, shape: Sequence[int]) -> None:
    """Refuse a shape other than ``shape``: nothing is broadcast."""
    if tuple(tensor.shape) != tuple(shape):
        raise Refused(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}")


def require_hidden(name: str, hidden: int, limit: int) -> None:
    """Refuse a row length outside 1…``limit``."""
    if not 1 <= hidden <= limit:
        raise Refused(f"the last dimension of {name} is {hidden}, supported: 1…{limit}")


def input_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return an input as ``[rows, hidden]`` with contiguous columns: a view where the strides allow, else a copy."""
    rows = tensor.reshape(-1, tensor.shape[-1]) if tensor.numel() else tensor.new_empty((0, tensor.shape[-1]))
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def output_rows(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return an output as a ``[rows, hidden]`` view; other strides are refused: a copy would lose the result."""
    hidden = tensor.shape[-1]
    if tensor.numel() == 0:
        return tensor.view(0, hidden)
    if hidden > 1 and tensor.stride(-1) != 1:
        raise Refused(f"{name} has strides {tensor.stride()}: its last dimension must be contiguous")
    try:
        return tensor.view(-1, hidden)
    except RuntimeError as error:
        raise Refused(f"{name} of shape {tuple(tensor.shape)}, strides {tensor.stride()} is no view of rows") from error
