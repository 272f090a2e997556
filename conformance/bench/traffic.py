"""Bytes that a computation moves: of PyTorch's composition by its operators, of a Triton kernel by its interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from gaugeblock.kernels.contract import Case


@dataclass
class Traffic:
    """Bytes read and written, and the number of operators or kernel launches that moved them."""

    read: int = 0
    written: int = 0
    launches: int = 0

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.read + self.written


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call] # PyTorch's class hook has no types
    """Counts each operator's tensor inputs once and its results once; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the same
        self.traffic = Traffic()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {_identity(tensor): tensor for tensor in _tensors((args, kwargs or {}))}
        outputs = [tensor for tensor in _tensors(result) if not _is_view(tensor, inputs)]
        written_in_place = func._schema.is_mutable
        if outputs or written_in_place:
            self.traffic.launches += 1
            reads = [] if not inputs or _only_allocates(func) else list(inputs.values())
            self.traffic.read += sum(tensor.nbytes for tensor in reads)
            targets = outputs or list(inputs.values())[:1]
            self.traffic.written += 0 if _only_allocates(func) else sum(tensor.nbytes for tensor in targets)
        return result


def composition_bytes(function: Callable[..., Any], case: Case) -> Traffic:
    """Return what PyTorch's operators move when ``function`` runs on a case: the unfused cost, cache hits aside."""
    counted = _Counted()
    with torch.no_grad(), counted:
        function(*case.inputs.values(), **case.params)
    return counted.traffic


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors(item)


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _is_view(tensor: torch.Tensor, inputs: dict[tuple[Any, ...], torch.Tensor]) -> bool:
    storage = tensor.untyped_storage().data_ptr()
    return tensor.numel() > 0 and any(storage == other.untyped_storage().data_ptr() for other in inputs.values())


def _only_allocates(func: Any) -> bool:
    return str(func.overloadpacket).rpartition(".")[2] in ("empty", "empty_like", "empty_strided", "new_empty")


@contextmanager
def interpreted_bytes() -> Iterator[Traffic]:
    """Count what kernels load and store while they run in Triton's interpreter: exact, and the same on every run.

    Masked-off elements are not counted, and what several programs load is counted for each of them, as if there were no
    cache.
    """
    from triton.runtime import interpreter

    traffic = Traffic()
    builder: Any = interpreter.InterpreterBuilder
    load, store, grid = builder.create_masked_load, builder.create_masked_store, interpreter.GridExecutor.__call__

    def counted_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
        traffic.read += int(np.count_nonzero(mask.data)) * _width(ptrs)
        return load(self, ptrs, mask, *rest)

    def counted_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        traffic.written += int(np.count_nonzero(mask.data)) * _width(ptrs)
        return store(self, ptrs, value, mask, *rest)

    def counted_grid(self: Any, *args: Any, **kwargs: Any) -> Any:
        traffic.launches += 1
        with _disable_current_modes():  # the interpreter's own copies are no traffic
            return grid(self, *args, **kwargs)

    try:
        builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
        interpreter.GridExecutor.__call__ = counted_grid
        yield traffic
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
        interpreter.GridExecutor.__call__ = grid


def _width(pointers: Any) -> int:
    """Return the bytes of one element that a tensor handle of pointers points to."""
    return max(int(pointers.get_element_ty().primitive_bitwidth) // 8, 1)
