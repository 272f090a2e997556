"""Kernels that are launched while the one before still runs (programmatic dependent launch), and what they touch then.

In the interpreter the order is watched: which tensors a program reads or writes before it waits. On a GPU the kernel
before gives the sign to launch at once, lets milliseconds pass and only then writes an input: whoever does not wait
reads what lay there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels import runtime
from gaugeblock.kernels.contract import Case, Op, Tensors
from gaugeblock.kernels.runtime import jit, tl

LATE = 8_000_000  # cycles until the kernel before writes: 4 ms, more than a call takes to be launched
PROGRAMS = 32  # few enough that all start at once, which is when a launch may follow
BLOCK = 1024


@dataclass
class Watched:
    """What interpreted launches touched too early: a line each, in order, without repetition.

    ``tensors``: those that the message can name, by name.
    """

    tensors: Mapping[str, torch.Tensor]
    early: dict[str, None] = field(default_factory=dict)
    waited: bool = True
    launched_early: bool = False
    kernel: str = ""

    def touch(self, how: str, pointers: Any, mask: Any) -> None:
        """Note an access of memory, unless the program has waited or need not."""
        if self.waited or not np.any(mask.data):
            return
        address = int(np.asarray(pointers.data)[np.asarray(mask.data)].flat[0])
        self.early[f"{self.kernel} {how} {self._name(address)} before it waits for the kernel before"] = None

    def _name(self, address: int) -> str:
        for name, tensor in self.tensors.items():
            start = tensor.untyped_storage().data_ptr()
            if start <= address < start + tensor.untyped_storage().nbytes():
                return name
        return "memory"


@contextmanager
def watched(tensors: Mapping[str, torch.Tensor]) -> Iterator[Watched]:
    """Let interpreted kernels believe that they are launched early, and watch what they touch before they wait."""
    from triton.language.extra import cuda
    from triton.runtime import interpreter

    seen = Watched(tensors)
    builder: Any = interpreter.InterpreterBuilder
    load, store, atomic = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    begin, grid = builder.set_grid_idx, interpreter.GridExecutor.__call__
    wait, sign = cuda.gdc_wait, cuda.gdc_launch_dependents

    def watched_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
        seen.touch("reads", ptrs, mask)
        return load(self, ptrs, mask, *rest)

    def watched_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        seen.touch("writes", ptrs, mask)
        return store(self, ptrs, value, mask, *rest)

    def watched_atomic(self: Any, operation: Any, ptr: Any, value: Any, mask: Any, *rest: Any) -> Any:
        seen.touch("writes", ptr, mask)
        return atomic(self, operation, ptr, value, mask, *rest)

    def watched_program(self: Any, *index: int) -> Any:
        seen.waited = not seen.launched_early
        return begin(self, *index)

    def watched_grid(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.launched_early, seen.kernel = bool(kwargs.get("launch_pdl")), self.fn.__name__
        return grid(self, *args, **kwargs)

    def waits() -> None:
        seen.waited = True

    try:
        builder.create_masked_load, builder.create_masked_store = watched_load, watched_store
        builder.create_atomic_rmw, builder.set_grid_idx = watched_atomic, watched_program
        interpreter.GridExecutor.__call__ = watched_grid
        cuda.gdc_wait, cuda.gdc_launch_dependents = waits, lambda: None
        runtime.pretended = True
        yield seen
    finally:
        runtime.pretended = False
        cuda.gdc_wait, cuda.gdc_launch_dependents = wait, sign
        interpreter.GridExecutor.__call__ = grid
        builder.create_masked_load, builder.create_masked_store = load, store
        builder.create_atomic_rmw, builder.set_grid_idx = atomic, begin


@jit
def _clock() -> tl.tensor:
    return tl.inline_asm_elementwise("mov.u64 $0, %clock64;", "=l", [], dtype=tl.int64, is_pure=False, pack=1)


@jit
def _late_copy_kernel(
    source: tl.tensor,
    target: tl.tensor,
    count: tl.tensor,
    cycles: tl.tensor,
    SIZE: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
) -> None:
    tl.extra.cuda.gdc_launch_dependents()
    tl.extra.cuda.gdc_wait()
    begin = _clock()
    now = begin
    while now - begin < cycles:
        now = _clock()
    for start in range(tl.program_id(0) * SIZE, count, tl.num_programs(0) * SIZE):
        at = start + tl.arange(0, SIZE)
        tl.store(target + at, tl.load(source + at, mask=at < count), mask=at < count)


def late_inputs(case: Case) -> list[str]:
    """Return the inputs that can be written late: numbers, in one piece; stale page tables could lead anywhere."""
    return [n for n, t in case.inputs.items() if (t.is_floating_point() or t.dtype == torch.int8) and t.is_contiguous()]


def stale(right: torch.Tensor) -> torch.Tensor:
    """Return other numbers of the same size: each its neighbour's opposite, so that a single one is another, too."""
    other = right.flatten().roll(1).view_as(right)
    return -other if right.is_floating_point() else ~other


def with_late_input(kernels: KernelTarget, op: Op, case: Case, name: str) -> Tensors:
    """Call an op right behind a kernel that starts it early and writes one of its inputs late; return its outputs.

    Until then the input holds :func:`stale` numbers.
    """
    inputs = kernels.place(case)
    late = inputs[name]
    right = late.clone()
    for cycles in (0, LATE):  # the first time everything is compiled
        late.copy_(stale(right))
        torch.cuda.synchronize()
        flat, new = late.view(torch.uint8).flatten(), right.view(torch.uint8).flatten()
        _late_copy_kernel[(PROGRAMS,)](new, flat, flat.numel(), cycles, SIZE=BLOCK, num_warps=4)
        outputs = kernels.call(op, inputs, case.params)
        torch.cuda.synchronize()
    return outputs
