"""The contract of an op: what a fused kernel must compute, to the last justified bit, whoever wrote it.

Each file of this package that holds an op defines ``CONTRACT``. ``--gb-kernels MODULE`` names any module whose
functions have the names and signatures of the contracts; it is held to the same checks, and an op that it lacks is
*unsupported*.

The rules that hold for every op:

- inputs may have any strides, and any leading dimensions where the op says so (``Op.leading``); an op that cannot take
  some refuses them with an error that names the argument. Nothing is broadcast. No autograd.
- results are new tensors, or are written into the keyword arguments ``out…``; every element is written. Inputs stay
  unchanged, unless one is itself passed as the output that may take its place (``Op.in_place``).
- one rounding to the output dtype at the end; all before it in fp32, except what the op's docstring states.
- finite inputs, except where the op defines more; NaN or infinity in one row reach no other row.
- the result of a row depends on no other row and on no earlier call; whether it may depend on the number of rows is the
  op's ``invariance``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from gaugeblock.kernels.runtime import INTERPRETED

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One call: input tensors in the order of the signature, and the keyword arguments.

    ``dtype`` is the floating dtype under test: that of the outputs (integer outputs have the oracle's).
    """

    label: str
    dtype: torch.dtype
    inputs: Tensors
    params: dict[str, Any] = field(default_factory=dict)

    def to(self, device: str) -> Case:
        """Return the case with fresh copies of its inputs on a device."""
        inputs = {name: tensor.to(device, copy=True) for name, tensor in self.inputs.items()}
        return Case(self.label, self.dtype, inputs, self.params)


@dataclass(frozen=True)
class Sizes:
    """What the checks pass as ``size`` of ``Op.make``: a row's length, a context's length, a head's dimension.

    ``step``: a legal size is a multiple of it. The four are small and even, odd (or the nearest legal), usual, and just
    past a power of two.
    """

    small: int = 64
    odd: int = 63
    usual: int = 1000
    long: int = 4097
    step: int = 1


SHAPES: tuple[Mapping[str, Any], ...] = (
    ({"rows": 129, "size": 1024}, {"rows": 3, "size": 8191})
    if INTERPRETED
    else (
        {"rows": 4097, "size": 4096},  # a prefill
        {"rows": 65, "size": 14336},  # the MLP of a decode step
        {"rows": 33, "size": 8191},
        {"rows": 9, "size": 128256},  # logits
    )
)
"""The served shapes of an op whose rows may have any length."""


@dataclass(frozen=True)
class Op:
    """A fused op and everything needed to judge and time an implementation of it.

    Data. ``make(rows, size, dtype, seed, kind, **variant)`` returns a :class:`Case` on the CPU: ``rows`` independent
    rows (tokens, requests), ``kind`` one of ``kinds`` (of :func:`gaugeblock.kernels.cases.fill`, or the op's own),
    ``variant`` one of ``variants``, the first of which is the default. ``workload(device, dtype, **shape)`` returns
    random inputs made on the device, for timing.

    Judgement. ``oracle(case)`` returns float64 outputs by name (integer outputs as they must be), computed from the
    inputs as they are already rounded, on the inputs' device. ``bound(case, oracle)`` returns the allowed absolute
    error of each element of each output, float64. ``exact`` names the outputs that must equal the rounded oracle bit
    for bit.

    Form. ``outs`` maps each output to its keyword argument, ``in_place`` such a keyword to the input it may overwrite;
    ``leading``: inputs take any leading dimensions. ``row_inputs`` have one entry a row in their first dimension, the
    others are shared; ``tied`` have a last dimension that another input or a parameter fixes. ``take(case, start,
    stop)`` returns the case of some rows and where they lie in the first dimension of the outputs. ``invariance``:
    ``rows``, a row's bits depend on nothing but the row; ``contents``, they may depend on the number of rows (another
    tile or library call for another batch size), never on what the other rows hold.

    ``integer``: the outputs are integers. NaN in a row's first floating input shows in
    ``nan_outputs``.

    ``paged``: the inputs ``k_cache`` and ``v_cache`` are paged and ``block_table`` says where. ``configs`` are all tile
    configurations that the op chooses from; ``kernel`` takes one as ``config``; ``fits(case, config)``: whether the
    call is then made by it, or by another in its place. ``served``: what an engine adds to a call of ``kernel``, and
    only an engine knows to be true. ``shapes`` are arguments of ``make`` beside dtype and seed:
    batches and sizes as engines run them, with odd neighbours, so that every path of the dispatch is met; in the
    interpreter the least that meets the paths there.

    Cost. ``bytes_moved(case)`` counts each input read once and each output written once; ``flops(case)`` counts
    additions, products and special functions. ``eager`` is PyTorch's unfused composition; ``kernel`` the reference.
    """

    name: str
    signature: str
    make: Callable[..., Case]
    workload: Callable[..., Case]
    oracle: Callable[[Case], Tensors]
    bound: Callable[[Case, Tensors], Tensors]
    outs: dict[str, str]
    dtypes: tuple[torch.dtype, ...]
    row_inputs: tuple[str, ...]
    eager: Callable[..., Any]
    kernel: Callable[..., Any]
    bytes_moved: Callable[[Case], int]
    flops: Callable[[Case], int]
    kinds: tuple[str, ...] = ("normal", "small", "scaled", "offset", "denormal", "large", "zeros")
    variants: tuple[Mapping[str, Any], ...] = ({},)
    sizes: Sizes = Sizes()
    exact: tuple[str, ...] = ()
    in_place: dict[str, str] = field(default_factory=dict)
    tied: tuple[str, ...] = ()
    leading: bool = False
    invariance: Literal["rows", "contents"] = "rows"
    paged: bool = False
    integer: bool = False
    configs: tuple[Any, ...] = ()
    fits: Callable[[Case, Any], bool] = lambda case, config: True
    served: Mapping[str, Any] = field(default_factory=dict)
    shapes: tuple[Mapping[str, Any], ...] = SHAPES
    take: Callable[[Case, int, int], tuple[Case, slice]] | None = None

    @property
    def nan_outputs(self) -> tuple[str, ...]:
        """The outputs in which NaN of a row's first floating input must show."""
        return () if self.integer else tuple(self.outs)[:1]

    def rows(self, case: Case, start: int, stop: int) -> tuple[Case, slice]:
        """Return the case of rows ``start``…``stop − 1`` and where they lie in the outputs."""
        if self.take is not None:
            return self.take(case, start, stop)
        inputs = {name: t[start:stop] if name in self.row_inputs else t for name, t in case.inputs.items()}
        label = f"{case.label} rows {start}…{stop - 1}"
        return Case(label, case.dtype, inputs, case.params), slice(start, stop)

    def cases(self, rows: int, size: int, seed: int, kind: str = "normal") -> Iterator[Case]:
        """Yield the case of every dtype and variant; nothing for a kind that the op does not define."""
        if kind in self.kinds:
            for dtype in self.dtypes:
                for variant in self.variants:
                    yield self.make(rows, size, dtype, seed, kind, **variant)

    def some_cases(self, rows: int, size: int, seed: int, kind: str = "normal") -> Iterator[Case]:
        """Yield one case a dtype, the variants in turn; nothing for a kind that the op does not define."""
        if kind in self.kinds:
            for i in range(max(len(self.dtypes), len(self.variants))):
                dtype, variant = self.dtypes[i % len(self.dtypes)], self.variants[i % len(self.variants)]
                yield self.make(rows, size, dtype, seed, kind, **variant)

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
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    ops = [m.CONTRACT for m in modules if isinstance(getattr(m, "CONTRACT", None), Op)]
    return {op.name: op for op in ops}
