"""The contract of an op: what a fused kernel must compute, to the last justified bit, whoever wrote it.

Each file of this package that holds an op defines ``CONTRACT``. ``--gb-kernels MODULE`` names any module whose
functions have the names and signatures of the contracts; it is held to the same checks, and an op that it lacks is
*unsupported*.

The rules that hold for every op:

- inputs may have any leading dimensions and any strides; an op that cannot take some refuses them with an error that
  names the argument. Nothing is broadcast. No autograd.
- results are new tensors, or are written into the keyword arguments ``out…``; every element is written. Inputs stay
  unchanged, unless one is itself passed as the output that may take its place (``Op.in_place``).
- one rounding to the output dtype at the end; all before it in fp32, except what the op's docstring states.
- finite inputs; NaN or infinity in one row reach no other row.
- the result of a row depends on no other row, on the number of rows, or on earlier calls.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One call: input tensors on the CPU in the order of the signature, and the scalar keyword arguments."""

    label: str
    inputs: Tensors
    params: dict[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first input, which is that of the outputs."""
        return next(iter(self.inputs.values())).dtype


@dataclass(frozen=True)
class Op:
    """A fused op and everything needed to judge and time an implementation of it.

    ``make(rows, hidden, dtype, seed, kind)`` returns a :class:`Case`; kinds: :func:`gaugeblock.kernels.cases.fill`.
    ``oracle(case)`` returns float64 outputs by name, computed from the inputs as they are already rounded.
    ``bound(case, oracle)`` returns the allowed absolute error of each element of each output, float64.
    ``exact`` names the outputs that must equal the rounded oracle bit for bit.
    ``outs`` maps each output to its keyword argument, ``in_place`` such a keyword to the input it may overwrite.
    ``bytes_moved(rows, hidden, itemsize)`` counts each input read once and each output written once;
    ``flops(rows, hidden)`` counts additions, products and special functions.
    """

    name: str
    signature: str
    make: Callable[[int, int, torch.dtype, int, str], Case]
    oracle: Callable[[Case], Tensors]
    bound: Callable[[Case, Tensors], Tensors]
    exact: tuple[str, ...]
    outs: dict[str, str]
    in_place: dict[str, str]
    dtypes: tuple[torch.dtype, ...]
    max_hidden: int
    eager: Callable[..., Any]
    kernel: Callable[..., Any]
    bytes_moved: Callable[[int, int, int], int]
    flops: Callable[[int, int], int]

    def named(self, result: Any) -> Tensors:
        """Return what an implementation returned as tensors by output name.

        Raises:
            TypeError: another number of outputs, or something that is no tensor.
        """
        values = result if isinstance(result, tuple | list) else (result,)
        if len(values) != len(self.outs) or not all(isinstance(v, torch.Tensor) for v in values):
            kinds = ", ".join(type(v).__name__ for v in values)
            raise TypeError(f"{self.name} must return tensors ({', '.join(self.outs)}), got ({kinds})")
        return dict(zip(self.outs, values, strict=True))


def load_contracts() -> dict[str, Op]:
    """Return the contract of every op of this package, by name."""
    package = importlib.import_module("gaugeblock.kernels")
    modules = [importlib.import_module(f"{package.__name__}.{i.name}") for i in pkgutil.iter_modules(package.__path__)]
    ops = [m.CONTRACT for m in modules if isinstance(getattr(m, "CONTRACT", None), Op)]
    return {op.name: op for op in ops}
