"""What a graph capture would meet: reads of tensor values on the host, and a replay on other inputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.arguments import Unclaimed
from gaugeblock.kernels.contract import Case, Op, Tensors

READS = {
    "item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__contains__",
    "nonzero", "argwhere", "masked_select", "unique", "equal", "allclose", "is_nonzero", "repeat_interleave",
}  # fmt: skip
"""Functions of tensors that need a value on the host: a synchronisation, and an error inside a capture."""


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.reads: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS and not _inside_triton():
            self.reads[name] = None
        return func(*args, **(kwargs or {}))


def _inside_triton() -> bool:
    """Whether Triton itself is on the stack: its interpreter reads all tensors on the host."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("triton."):
            return True
        frame = frame.f_back
    return False


@contextmanager
def host_reads() -> Iterator[dict[str, None]]:
    """Collect the names of the functions that read tensor values on the host, in the order of their first call."""
    with _Recorder() as recorder:
        yield recorder.reads


def replayed(kernels: KernelTarget, op: Op, case: Case) -> tuple[Tensors, Tensors]:
    """Capture a call, replay it on other inputs of the same shapes; return a direct call's outputs and the replay's.

    The other inputs are the same rows in another order: each a legal row, none where it was.

    Raises:
        TargetFault: the call cannot be captured.
    """
    rows = next(iter(case.inputs.values())).shape[0]
    inputs, other = kernels.place(case), kernels.place(case)
    for name in op.row_inputs:
        if op.take is None and other[name].shape[0] == rows:
            other[name] = other[name].roll(1, 0)
    if op.take is not None:  # ragged rows do not fit each other's places: change the values alone
        first = next(iter(inputs))
        other[first] = other[first].roll(1, 0)
    direct = kernels.call(op, other, case.params)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch does not annotate it
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        kernels.call(op, inputs, case.params)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            captured = kernels.call(op, inputs, case.params)
    except Unclaimed:
        raise
    except Exception as error:  # whatever a capture raises is the target's fault
        raise TargetFault(f"{case.label} cannot be captured: {type(error).__name__}: {error}") from error
    for name, tensor in inputs.items():
        tensor.copy_(other[name])
    graph.replay()
    torch.cuda.synchronize()
    return direct, captured
