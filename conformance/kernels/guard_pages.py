"""Calls whose tensors end, or begin, at memory that must not be touched.

On a CPU each tensor lies against a page without access rights, in a forked process: a kernel in Triton's interpreter
that reads or writes past it dies there. On a GPU the calls run under ``compute-sanitizer``, with every tensor in an
allocation of its own.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing.connection import Connection

import torch

from gaugeblock.conformance.kernels.configured import configured
from gaugeblock.conformance.kernels.served import served
from gaugeblock.conformance.outcome import unsupported
from gaugeblock.fixtures.faults.record import active, planted
from gaugeblock.fixtures.targets.kernels import KernelTarget, load_kernels
from gaugeblock.kernels.contract import Case, Op, Tensors, load_contracts

PAGE = mmap.PAGESIZE
NO_ACCESS = 0  # PROT_NONE of sys/mman.h
CHILD_TIMEOUT = 120.0  # seconds for the calls of one op
RAISED = 1  # exit code of a child whose call raised; a signal's is negative
SIDES = ("end", "start")
ROWS = {"cpu": 3, "cuda": 129}
"""Of the aligned calls of every configuration: on a GPU more than the largest tile has."""
ORDER = {"cpu": 1, "cuda": -1}
"""Of the cases that a configuration may take: the interpreter has the smallest variant, a GPU what engines serve in."""


@dataclass(frozen=True)
class Touch:
    """A case of which the tensors in ``names`` lie against a guard page at one side."""

    case: Case
    side: str
    names: tuple[str, ...]


def beside_guard(values: torch.Tensor, side: str) -> torch.Tensor:
    """Return a contiguous copy of ``values`` that ends (or starts) at a page without access rights."""
    size = values.numel() * values.itemsize
    if size == 0:
        return values.clone()
    body = -(-size // PAGE) * PAGE
    memory = mmap.mmap(-1, body + PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    guard, offset = (address + body, body - size) if side == "end" else (address, PAGE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), NO_ACCESS) != 0:
        raise OSError(ctypes.get_errno(), "mprotect of a guard page failed")
    tensor = torch.frombuffer(memory, dtype=values.dtype, count=values.numel(), offset=offset).view(values.shape)
    return tensor.copy_(values)


def touched_outside(kernels: KernelTarget, op: Op, cases: Iterable[Case]) -> Iterator[str]:
    """Call the target with all tensors beside guard pages; yield what it touched outside, one line a tensor.

    All calls are made in one process first; where that dies, each call gets one of its own, then each tensor.
    """
    outs = tuple(op.outs.values()) if kernels.takes_outs(op) else ()
    touches = [Touch(case, side, (*case.inputs, *outs)) for case in cases for side in SIDES]
    if not _dies(kernels, op, *touches):
        return
    for touch in touches:
        if _dies(kernels, op, touch):
            alone = [name for name in touch.names if _dies(kernels, op, replace(touch, names=(name,)))]
            tensors = " and ".join(alone) or "a tensor"
            yield f"{touch.case.label}: memory past the {touch.side} of {tensors} is touched"


def _dies(kernels: KernelTarget, op: Op, *touches: Touch) -> bool:
    """Whether a forked process that makes the calls is killed by a signal."""
    context = multiprocessing.get_context("fork")  # a planted fault and the target's module come along
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_call, args=(kernels, op, touches, sender), daemon=True)
    child.start()
    sender.close()
    child.join(CHILD_TIMEOUT)
    if child.is_alive():
        child.kill()
        child.join()
        raise AssertionError(f"{touches[0].case.label}: no result within {CHILD_TIMEOUT:.0f} s")
    if child.exitcode == RAISED:
        raise AssertionError(receiver.recv())
    return child.exitcode != 0


def _call(kernels: KernelTarget, op: Op, touches: tuple[Touch, ...], sender: Connection) -> None:
    """Make the calls in the forked process; what one raises goes through the pipe."""
    faulthandler.disable()  # dying is an answer here
    torch.set_num_threads(1)  # a forked process has none of the threads that its parent's pool counts on
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for touch in touches:
        try:
            inputs, outs = _tensors(kernels, op, touch)
            kernels.call(op, inputs, touch.case.params, **outs)
        except BaseException as error:
            sender.send(f"{touch.case.label}: {type(error).__name__}: {error}")
            os._exit(RAISED)
    os._exit(0)


def _tensors(kernels: KernelTarget, op: Op, touch: Touch) -> tuple[Tensors, Tensors]:
    inputs = {
        name: beside_guard(tensor, touch.side) if name in touch.names else tensor.clone()
        for name, tensor in touch.case.inputs.items()
    }
    outs = {}
    for name, expected in op.oracle(touch.case).items():
        out = op.outs[name]
        if out in touch.names:
            dtype = touch.case.dtype if expected.is_floating_point() else expected.dtype
            outs[out] = beside_guard(torch.zeros(expected.shape, dtype=dtype), touch.side)
    return inputs, outs


def sanitized(kernels: KernelTarget, op: Op) -> str:
    """Run an op's calls under compute-sanitizer; return its first complaint, or nothing."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        unsupported("compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-m", __name__]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [kernels.name, op.name, *active()]
    run = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    if run.returncode == 0:
        return ""
    lines = [line.strip("= ") for line in run.stdout.splitlines() if line.startswith("=========")]
    said = [line for line in lines if "Invalid" in line or "out of bounds" in line or "Error" in line]
    return "; ".join(said[:3]) or f"exit code {run.returncode}: {(run.stdout + run.stderr).strip()[-400:]}"


def small_cases(kernels: KernelTarget, op: Op) -> Iterator[Case]:
    """Yield the calls of this check: few rows, a size that no tile divides, every dtype and variant.

    And one call of a single row, for which an op may have another kernel, of another variant than the default where
    there is one; and the first that every configuration takes, at that size and at one of whole 16-byte loads. On a GPU
    the aligned ones have more rows than the largest tile.
    """
    yield from op.some_cases(3, op.sizes.odd, 19)
    yield from list(islice(op.some_cases(1, op.sizes.odd, 19), 2))[-1:]
    for rows, size in ((3, op.sizes.odd), (ROWS[kernels.device], op.sizes.small)):
        cases = list(op.some_cases(rows, size, 19))[:: ORDER[kernels.device]]
        for config in kernels.configs(op):
            yield from islice(configured(kernels, op, config, cases), 1)


def served_calls(kernels: KernelTarget, op: Op) -> Iterator[Case]:
    """Yield the calls of every served shape: large tiles, libraries, contexts in splits, rows longer than is held."""
    for shape in op.shapes:
        yield from served(kernels, op, shape, op.dtypes[-1])


def main(module: str, op_name: str, fault_ids: list[str]) -> None:
    """Make an op's calls on the GPU; this runs under compute-sanitizer."""
    op, kernels = load_contracts()[op_name], load_kernels(module)
    with planted(fault_ids[0] if fault_ids else None):
        for case in chain(small_cases(kernels, op), served_calls(kernels, op)):
            if not kernels.unclaimed(op, case):
                kernels.run(op, case)
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
