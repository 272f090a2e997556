"""GELU-and-mul, the activation of a gated MLP (Gemma, T5): ``out = gelu(gate) * up`` with ``gelu(g) = g·Φ(g)``.

Two functions bear the name. ``approximate="none"``: Φ(g) = (1 + erf(g/√2)) / 2, the normal distribution itself.
``approximate="tanh"``: Φ(g) ≈ (1 + tanh(z/2)) / 2 with z = 2√(2/π)·(g + 0.044715·g³). They differ by up to 4.7·10⁻⁴,
which a bf16 tolerance lets pass and a model trained with the other one does not. ``x`` holds the gate in its first half
and up in its second, as for :mod:`gaugeblock.kernels.silu_and_mul`, whose launch this op shares; 3 × hidden × itemsize
bytes a row.

Error model (u = 2⁻²⁴). All in fp32, one rounding at the end. tanh: (1 + tanh(z/2)) / 2 is sigmoid(z), computed as
1 / (1 + exp(−z)). Seven roundings in z and two in exp's argument put 9|z|u into the exponential, the hardware's
approximation 4u, of which 1 + exp passes on the share sigmoid(−z); that sum adds u, the reciprocal 2u, the products
with gate and up u each. none: Φ(−t) = exp(−t²/2)·s·P(s) with s = 1/(1 + 0.26t) and a polynomial P of degree 8; for
positive gates one minus that. s carries 4u, to which s·P(s) answers threefold at most; eight steps of P, whose terms
add up to 2.2 times its value, 17u; its fit u/2; the exponential 1.5g²u for its argument and 4u; the products the rest
of (1.5g² + 36)u.

Written with an erf or a tanh, both forms add 1 to something close to −1 where the gate is negative, and lose all their
digits at −6 (here neither does). What that leaves, two units in the last place of 1 halved, is an absolute error of
2u·|g·up|, and is allowed.

GELU: Hendrycks and Gimpel 2016, arXiv:1606.08415; gated: Shazeer 2020, arXiv:2002.05202.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812 # the name that every PyTorch user knows

from gaugeblock.kernels import silu_and_mul as gated
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.bounds import TINY, U, output_bound
from gaugeblock.kernels.contract import Case, Tensors
from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import inline, tl
from gaugeblock.kernels.special import exp, reciprocal

FORMS = ("tanh", "none")


@inline
def _normal_cdf(x: tl.tensor) -> tl.tensor:
    """Return Φ(x), the normal distribution, of fp32 ``x``, with all its digits in the tail."""
    t = tl.abs(x)
    s = reciprocal(1.0 + 0.26 * t)
    # Φ(−t)·exp(t²/2) ÷ s, fitted to erfcx for t in 0…14.5 with the least relative maximum, 2.8·10⁻⁸
    p = 0.248743981 + s * (-0.151499674 + s * 0.0302313864)
    p = 0.0519612059 + s * (0.158767238 + s * (-0.147801638 + s * p))
    p = 0.103757031 + s * (0.103050843 + s * (0.102789611 + s * p))
    tail = exp(-0.5 * t * t) * (s * p)
    return tl.where(x < 0.0, tail, 1.0 - tail)


@gated.gated_jit
def _gelu_and_mul_kernel(
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    x_stride: tl.tensor,
    out_stride: tl.tensor,
    rows: tl.tensor,
    hidden: tl.tensor,
    column_tiles: tl.tensor,
    TANH: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    ROWS: tl.constexpr,  # noqa: N803 # the same
    COLS: tl.constexpr,  # noqa: N803 # the same
    OVERLAP: tl.constexpr,  # noqa: N803 # the same
) -> None:
    program = tl.program_id(0)  # neighbours share a row, so that they read neighbouring memory
    row = (program // column_tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    col = (program % column_tiles) * COLS + tl.arange(0, COLS)[None, :]  # [1, COLS]
    inside = (row < rows) & (col < hidden)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()  # before the first access of memory: what another kernel writes must be there
    gate = widened(tl.load(x_ptr + row * x_stride + col, mask=inside, other=0.0))
    up = widened(tl.load(x_ptr + row * x_stride + hidden + col, mask=inside, other=0.0))
    if TANH:
        z = 1.5957691216057308 * gate * (1.0 + 0.044715 * gate * gate)  # 2√(2/π)
        gelu = gate * reciprocal(1.0 + exp(-z))
    else:
        gelu = gate * _normal_cdf(gate)
    tl.store(out_ptr + row * out_stride + col, rounded(gelu * up, out_ptr.dtype.element_ty), mask=inside)


def gelu_and_mul(
    x: torch.Tensor, approximate: str = "tanh", *, out: torch.Tensor | None = None, config: gated.Config | None = None
) -> torch.Tensor:
    """Return ``gelu(x[…, :hidden]) * x[…, hidden:]``, ``[…, hidden]`` of the dtype of ``x``.

    ``x``: ``[…, 2·hidden]``, fp32, fp16 or bf16. ``approximate``: ``"tanh"`` or ``"none"``, as in
    ``torch.nn.functional.gelu``. ``out`` takes the result and must not overlap ``x``. ``config`` replaces the tile.

    Raises:
        Refused: another ``approximate``; shapes, dtypes, devices or strides that the op does not take.
    """
    if approximate not in FORMS:
        raise Refused(f"approximate is {approximate!r}, expected one of {', '.join(map(repr, FORMS))}")
    out = gated.result_of_halves(x, out)
    gated.launch_over_halves(_gelu_and_mul_kernel, x, out, config, TANH=approximate == "tanh")
    return out


def eager(x: torch.Tensor, approximate: str = "tanh") -> torch.Tensor:
    """Return the op from PyTorch's own two kernels: the baseline of errors and times. It rounds twice."""
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate, approximate=approximate) * up


def make(
    rows: int, hidden: int, dtype: torch.dtype, seed: int = 0, kind: str = "normal", approximate: str = "tanh"
) -> Case:
    """Return ``x`` of ``[rows, 2·hidden]``; only the gate is large, subnormal or zero where ``kind`` says so."""
    inputs = gated.make(rows, hidden, dtype, seed, kind).inputs
    label = f"gelu_and_mul {rows}×{hidden} {approximate} {dtype} {kind} seed {seed}"
    return Case(label, dtype, inputs, {"approximate": approximate})


def workload(device: str, dtype: torch.dtype, *, rows: int, hidden: int) -> Case:
    """Return random inputs made on the device, for timing."""
    inputs = gated.workload(device, dtype, rows=rows, hidden=hidden).inputs
    return Case(f"gelu_and_mul {rows}×{hidden}", dtype, inputs, {"approximate": "tanh"})


def _z(gate: torch.Tensor) -> torch.Tensor:
    """Return the argument of the sigmoid of the tanh form, float64."""
    return 2 * math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)


def oracle(case: Case) -> Tensors:
    """Return the float64 ``out``; no 1 + erf or 1 + tanh, which cancel for negative gates."""
    gate, up = case.inputs["x"].double().chunk(2, dim=-1)
    if case.params["approximate"] == "tanh":
        return {"out": gate * torch.sigmoid(_z(gate)) * up}
    return {"out": 0.5 * gate * torch.special.erfc(-gate / math.sqrt(2)) * up}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed error by the model of the module's docstring."""
    gate, up = case.inputs["x"].double().chunk(2, dim=-1)
    if case.params["approximate"] == "tanh":
        z = _z(gate)
        relative = ((9 * z.abs() + 4) * torch.sigmoid(-z) + 1 + 4 + 1) * U
    else:
        tail, whole = (torch.special.erfc(t / math.sqrt(2)) for t in (gate.abs(), -gate))
        relative = ((1.5 * gate.square() + 36) * (tail / whole).nan_to_num(nan=1.0) + 3) * U
    cancelled = 2 * U * (gate * up).abs()
    underflow = (gate * up).abs() * 2.0**-126 + 2 * TINY * (1 + up.abs())
    slack = relative * expected["out"].abs() + cancelled + underflow
    return {"out": output_bound(expected["out"], slack, case.dtype)}


CONTRACT = replace(
    gated.CONTRACT,
    name="gelu_and_mul",
    signature='gelu_and_mul(x, approximate="tanh", *, out=None) -> out',
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    variants=({}, {"approximate": "none"}),
    eager=eager,
    kernel=gelu_and_mul,
    flops=lambda case: 10 * case.inputs["x"].numel() // 2,
)
