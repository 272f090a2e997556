"""Chrome traces made by hand: operators one after the other, kernels behind them, phases around them."""

from __future__ import annotations

from typing import Any

BF16 = "c10::BFloat16"


def op(name: str, *shapes: list[int], us: float = 10.0, dtype: str = BF16, inner: tuple[Any, ...] = (), kernels=()):
    """An operator of tensors; ``inner``: what it calls, ``kernels``: microseconds of each that it launches."""
    return {"name": name, "shapes": list(shapes), "us": us, "dtype": dtype, "inner": inner, "kernels": kernels}


def cat(*shapes: list[int], us: float = 10.0):
    """``aten::cat`` of a list of tensors."""
    return {**op("aten::cat", us=us), "shapes": [list(shapes), []], "list": True}


def trace(**phases: list[Any]) -> dict[str, Any]:
    """A trace with one annotation a phase."""
    events: list[Any] = []
    clock = 1000.0
    for name, ops in phases.items():
        begin = clock
        for each in ops:
            clock = _lay(each, clock, events)
        events.append(
            {"ph": "X", "cat": "user_annotation", "name": f"gaugeblock.{name}", "ts": begin, "dur": clock - begin}
        )
        clock += 5.0
    return {"schemaVersion": 1, "traceEvents": events}


def _lay(each: Any, begin: float, events: list[Any]) -> float:
    """Place an operator and what is below it; return its end, one microsecond before the next."""
    index = len(events)
    events.append(None)
    clock = begin + 1.0
    for child in each["inner"]:
        clock = _lay(child, clock, events)
    for us in each["kernels"]:
        correlation = len(events)
        common = {"ph": "X", "pid": 1, "args": {"correlation": correlation}}
        events.append({**common, "cat": "cuda_runtime", "name": "cudaLaunchKernel", "tid": 1, "ts": clock, "dur": 0.5})
        events.append({**common, "cat": "kernel", "name": "k", "tid": 7, "ts": clock + 50.0, "dur": us})
        clock += 1.0
    end = max(clock, begin + each["us"])
    count = len(each["shapes"])
    kinds = (
        ["TensorList", "Scalar"]
        if each.get("list")
        else [each["dtype"] if s is not None else "" for s in each["shapes"]]
    )
    events[index] = {
        "ph": "X",
        "cat": "cpu_op",
        "name": each["name"],
        "pid": 1,
        "tid": 1,
        "ts": begin,
        "dur": end - begin,
        "args": {"Input Dims": each["shapes"], "Input type": kinds, "Concrete Inputs": [""] * count},
    }
    return end + 1.0


def named(names: str, shape: list[int], us: float = 10.0) -> list[Any]:
    """Several operators of one shape."""
    return [op(f"aten::{name}", shape, shape, us=us) for name in names.split()]
