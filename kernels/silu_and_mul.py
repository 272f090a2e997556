"""SiLU-and-mul, the activation of a gated MLP: ``out = silu(gate) * up`` with ``silu(g) = g / (1 + exp(−g))``.

``x`` is the output of one fused matrix product: the gate in its first half, up in its second, as SGLang and vLLM lay it
out. Unfused, silu(gate) makes a round trip through device memory; fused, 3 × hidden × itemsize bytes a row.

Error model (u = 2⁻²⁴). All in fp32, one rounding at the end. exp(−g) is 2^(−g·log₂e): the rounded product and the
rounded constant put 2|g|u into the exponential, the hardware's approximation 4u; 1 + exp passes on the share
1 − sigmoid(g) of that and adds u, a division 4u (2 ulp; here a reciprocal and a product, 3u), the product with up u.
Below g ≈ −88 exp(−g) overflows fp32 and the sigmoid, smaller than the smallest normal number 2⁻¹²⁶, becomes zero: an
absolute error of |g·up|·2⁻¹²⁶.

SwiGLU: Shazeer 2020, arXiv:2002.05202.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 # the name that every PyTorch user knows

from gaugeblock.kernels.arguments import (
    DTYPES,
    Refused,
    input_rows,
    output_rows,
    require_hidden,
    require_like,
    require_shape,
)
from gaugeblock.kernels.bounds import TINY, U, output_bound
from gaugeblock.kernels.cases import fill
from gaugeblock.kernels.contract import Case, Op, Tensors
from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, jit, next_power_of_two, overlaps, quiet, tl
from gaugeblock.kernels.special import exp, reciprocal

MAX_HIDDEN = 2**24

gated_jit = partial(jit, do_not_specialize=("rows", "column_tiles"))  # type: ignore[call-arg] # triton.jit's own: one binary for any batch


@gated_jit
def _silu_and_mul_kernel(
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    x_stride: tl.tensor,
    out_stride: tl.tensor,
    rows: tl.tensor,
    hidden: tl.tensor,
    column_tiles: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
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
    silu = gate * reciprocal(1.0 + exp(-gate))
    tl.store(out_ptr + row * out_stride + col, rounded(silu * up, out_ptr.dtype.element_ty), mask=inside)


Config = tuple[int, int]
"""Elements of the result a program, and warps."""

CONFIGS: tuple[Config, ...] = (*((32768, 8),) * INTERPRETED, (512, 2), (1024, 4), (2048, 8), (4096, 8))
"""Every tile that ``config_for`` may choose, and its neighbours."""


def config_for(elements: int) -> Config:
    """Return elements a program and warps for a result of some size: 8 elements a thread, 16 bytes a load.

    On an H100 in a graph, 64 × 14336 takes 2.7 µs in tiles of 512 and 2.8 in tiles of 2048, as long as all programs
    find a place at once; at 8192 × 14336 tiles of 1024 to 4096 are equally fast, .99 of a copy or more.
    """
    if INTERPRETED:
        return 32768, 8
    return (512, 2) if elements <= 2**21 else (2048, 8)


def silu_and_mul(x: torch.Tensor, *, out: torch.Tensor | None = None, config: Config | None = None) -> torch.Tensor:
    """Return ``silu(x[…, :hidden]) * x[…, hidden:]``, ``[…, hidden]`` of the dtype of ``x``.

    ``x``: ``[…, 2·hidden]``, fp32, fp16 or bf16. ``out`` takes the result and must not overlap ``x``.
    ``config`` replaces :func:`config_for`.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take.
    """
    out = result_of_halves(x, out)
    launch_over_halves(_silu_and_mul_kernel, x, out, config)
    return out


def result_of_halves(x: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Return ``out``, or a new tensor of half the last dimension of ``x``; refuse what does not fit."""
    if x.dim() == 0 or x.shape[-1] % 2:
        raise Refused(f"x has shape {tuple(x.shape)}, expected […, 2·hidden]: gate and up")
    hidden = x.shape[-1] // 2
    shape = (*x.shape[:-1], hidden)
    out = torch.empty(shape, dtype=x.dtype, device=x.device) if out is None else out
    require_like("x", {"x": x, "out": out})
    require_hidden("out", hidden, MAX_HIDDEN)
    require_shape("out", out, shape)
    return out


def launch_over_halves(
    kernel: Any, x: torch.Tensor, out: torch.Tensor, config: Config | None, **constants: Any
) -> None:
    """Launch an elementwise kernel of gate and up, with the signature of this module's, on checked tensors."""
    x, out = input_rows(x), output_rows("out", out)
    rows, hidden = out.shape
    if rows == 0:
        return
    size, warps = config or config_for(rows * hidden)
    tile_cols = min(next_power_of_two(hidden), size)
    tile_rows = size // tile_cols
    column_tiles = -(-hidden // tile_cols)
    with quiet():
        kernel[(-(-rows // tile_rows) * column_tiles,)](
            x,
            out,
            x.stride(0),
            out.stride(0),
            rows,
            hidden,
            column_tiles,
            ROWS=tile_rows,
            COLS=tile_cols,
            OVERLAP=overlaps(),
            num_warps=warps,
            **({"launch_pdl": True} if overlaps() else {}),
            **constants,
        )


def eager(x: torch.Tensor) -> torch.Tensor:
    """Return the op from PyTorch's own two kernels: the baseline of errors and times. It rounds twice."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def make(rows: int, hidden: int, dtype: torch.dtype, seed: int = 0, kind: str = "normal") -> Case:
    """Return ``x`` of ``[rows, 2·hidden]``; only the gate is large, subnormal or zero where ``kind`` says so."""
    gate = fill(kind, rows, hidden, dtype, 2 * seed)
    up = fill("normal" if kind in ("large", "denormal", "zeros") else kind, rows, hidden, dtype, 2 * seed + 1)
    label = f"silu_and_mul {rows}×{hidden} {dtype} {kind} seed {seed}"
    return Case(label, dtype, {"x": torch.cat([gate, up], dim=1)})


def workload(device: str, dtype: torch.dtype, *, rows: int, hidden: int) -> Case:
    """Return random inputs made on the device, for timing."""
    x = torch.randn(rows, 2 * hidden, dtype=dtype, device=device)
    return Case(f"silu_and_mul {rows}×{hidden}", dtype, {"x": x})


def oracle(case: Case) -> Tensors:
    """Return the float64 ``out``."""
    gate, up = case.inputs["x"].double().chunk(2, dim=-1)
    return {"out": gate * torch.sigmoid(gate) * up}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed error by the model of the module's docstring."""
    gate, up = case.inputs["x"].double().chunk(2, dim=-1)
    relative = ((2 * gate.abs() + 4) * torch.sigmoid(-gate) + 1 + 4 + 1 + 1) * U
    underflow = (gate * up).abs() * 2.0**-126 + 2 * TINY * (1 + up.abs())
    slack = relative * expected["out"].abs() + underflow
    return {"out": output_bound(expected["out"], slack, case.dtype)}


CONTRACT = Op(
    name="silu_and_mul",
    signature="silu_and_mul(x, *, out=None) -> out",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    outs={"out": "out"},
    dtypes=DTYPES,
    row_inputs=("x",),
    tied=("x",),
    leading=True,
    configs=CONFIGS,
    eager=eager,
    kernel=silu_and_mul,
    bytes_moved=lambda case: 3 * case.inputs["x"].nbytes // 2,
    flops=lambda case: 5 * case.inputs["x"].numel() // 2,
)
