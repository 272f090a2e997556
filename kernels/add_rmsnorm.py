"""Residual add + RMSNorm, the op between any two blocks of a Llama-like model.

``residual' = x + residual`` rounded to the dtype, then ``y = residual' / sqrt(mean(residual'²) + eps) * weight`` of the
rounded sum, where the mean runs over the last dimension. Unfused, the sum makes a round trip through device memory
between the two; fused, each row is read once, kept in registers and written once: 4 × hidden × itemsize bytes a row.

Error model (u = 2⁻²⁴, n = hidden). ``residual'`` is exact to its one rounding: an fp32 sum of two numbers of at most 11
bits, rounded again, equals the exact sum rounded once, since 24 ≥ 2·11 + 2 (Figueroa 1995); in fp32 it is one addition.
``y``: the squares and their blocked sum err by γ(1 + depth(n)) relative (all terms are positive: no cancellation),
the division by n and the addition of eps by 2u each; the root halves all that; rsqrt adds 4u (2 ulp, the hardware's
approximation), the two products 2u. Then one rounding to the dtype.

RMSNorm: Zhang and Sennrich 2019, arXiv:1910.07467.
"""

from __future__ import annotations

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
from gaugeblock.kernels.bounds import TINY, gamma, output_bound, sum_depth
from gaugeblock.kernels.cases import fill, normal
from gaugeblock.kernels.contract import Case, Op, Tensors
from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, add, jit, next_power_of_two, overlaps, quiet, tl

MAX_HIDDEN = 65536
"""One program holds a whole row in registers: 64 fp32 values a thread at this size."""


@jit
def _add_rmsnorm_kernel(
    x_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    y_ptr: tl.tensor,
    residual_out_ptr: tl.tensor,
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    y_stride: tl.tensor,
    residual_out_stride: tl.tensor,
    rows: tl.tensor,
    hidden: tl.tensor,
    eps: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    COLS: tl.constexpr,  # noqa: N803 # the same
    OVERLAP: tl.constexpr,  # noqa: N803 # the same
    WHOLE: tl.constexpr,  # noqa: N803 # the same
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    col = tl.arange(0, COLS)[None, :]  # [1, COLS]
    in_row = (col < hidden) | WHOLE  # a constant where one row fills the tile: no masks, 0.3% less time
    inside = ((row < rows) | WHOLE) & in_row
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()  # before the first access of memory: what another kernel writes must be there
    weight = widened(tl.load(weight_ptr + col, mask=in_row, other=0.0))
    x = widened(tl.load(x_ptr + row * x_stride + col, mask=inside, other=0.0))
    residual = widened(tl.load(residual_ptr + row * residual_stride + col, mask=inside, other=0.0))
    total = rounded(x + residual, residual_out_ptr.dtype.element_ty)
    tl.store(residual_out_ptr + row * residual_out_stride + col, total, mask=inside)
    value = widened(total)
    mean_square = tl.reduce(value * value, 1, add) / hidden  # [ROWS]
    scale = tl.rsqrt(mean_square + eps)[:, None]
    y = rounded(value * scale * weight, y_ptr.dtype.element_ty)
    tl.store(y_ptr + row * y_stride + col, y, mask=inside)


Config = tuple[int, int]
"""Elements a program, and warps; a program always holds whole rows, one where a row has more elements than that."""

CONFIGS: tuple[Config, ...] = (
    *((16384, 32),) * INTERPRETED,
    (1024, 2),
    (1, 4),
    (1, 8),
    (1, 16),
    (1, 32),
    (4096, 8),
    (16384, 8),
    (16384, 16),
)
"""Every tile that ``config_for`` may choose, and their neighbours."""


def config_for(hidden: int) -> Config:
    """Return elements a program and warps, from the row length alone.

    The order of a row's sum follows from them. They must not depend on the number of rows, or a request's
    result would change with its batch; hence no autotuning over the batch. One row a program. On an H200 4 warps are
    the best at 4096 columns for a batch of 64 (2.24 µs, with 8 2.42) and as good as any for many rows; at 8192 32 are
    the best for a batch of 64 (3.3 µs, with 16 3.5) and for many rows (R .922, with 16 .918, with 8 .910). That is near
    the end there: PyTorch's copy of the same bytes has .944. Several long rows a program, clusters, a persistent grid,
    the bulk copy engine and other cache policies are slower. Short rows share a program.
    """
    if INTERPRETED:
        return 16384, 32
    if hidden <= 1024:
        return 1024, 2
    return 1, 4 if hidden <= 4096 else 32


def add_rmsnorm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    *,
    out: torch.Tensor | None = None,
    residual_out: torch.Tensor | None = None,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(y, residual')``, both of the shape and dtype of ``x``.

    ``x``, ``residual``: ``[…, hidden]``, fp32, fp16 or bf16; ``weight``: ``[hidden]``, all of one dtype. ``out`` and
    ``residual_out`` take the results; ``out`` may be ``x``, ``residual_out`` may be ``residual``.
    ``config`` replaces :func:`config_for`.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take; ``eps`` ≤ 0.
    """
    if x.dim() == 0:
        raise Refused("x has no dimensions, expected […, hidden]")
    hidden = x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    residual_out = torch.empty_like(out) if residual_out is None else residual_out
    tensors = {"x": x, "residual": residual, "weight": weight, "out": out, "residual_out": residual_out}
    require_like("x", tensors)
    require_hidden("x", hidden, MAX_HIDDEN)
    require_shape("weight", weight, (hidden,))
    for name in ("residual", "out", "residual_out"):
        require_shape(name, tensors[name], x.shape)
    if not eps > 0:
        raise Refused(f"eps is {eps}, must be positive: a row of zeros would divide by zero")
    y, total = output_rows("out", out), output_rows("residual_out", residual_out)
    _launch(input_rows(x), input_rows(residual), weight.contiguous(), y, total, eps, config or config_for(hidden))
    return out, residual_out


def _launch(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    y: torch.Tensor,
    total: torch.Tensor,
    eps: float,
    config: Config,
) -> None:
    rows, hidden = x.shape
    if rows == 0:
        return
    elements, warps = config
    cols = next_power_of_two(hidden)
    tile_rows = max(1, elements // cols)
    with quiet():
        _add_rmsnorm_kernel[(-(-rows // tile_rows),)](
            x,
            residual,
            weight,
            y,
            total,
            x.stride(0),
            residual.stride(0),
            y.stride(0),
            total.stride(0),
            rows,
            hidden,
            eps,
            ROWS=tile_rows,
            COLS=cols,
            OVERLAP=overlaps(),
            WHOLE=tile_rows == 1 and hidden == cols,
            num_warps=warps,
            **({"launch_pdl": True} if overlaps() else {}),
        )


def eager(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the op from PyTorch's own two kernels: the baseline of errors and times."""
    total = x + residual
    return F.rms_norm(total, (x.shape[-1],), weight, eps), total


def make(rows: int, hidden: int, dtype: torch.dtype, seed: int = 0, kind: str = "normal") -> Case:
    """Return inputs ``[rows, hidden]``; the weight is far from constant, so that none can be ignored."""
    x = fill(kind, rows, hidden, dtype, 3 * seed)
    residual = fill("normal" if kind == "offset" else kind, rows, hidden, dtype, 3 * seed + 1)
    weight = (1 + 0.5 * normal(1, hidden, 3 * seed + 2)[0]).to(dtype)
    label = f"add_rmsnorm {rows}×{hidden} {dtype} {kind} seed {seed}"
    return Case(label, dtype, {"x": x, "residual": residual, "weight": weight}, {"eps": 1e-6})


def workload(device: str, dtype: torch.dtype, *, rows: int, hidden: int) -> Case:
    """Return random inputs made on the device, for timing."""
    x, residual = (torch.randn(rows, hidden, dtype=dtype, device=device) for _ in range(2))
    inputs = {"x": x, "residual": residual, "weight": torch.randn(hidden, dtype=dtype, device=device)}
    return Case(f"add_rmsnorm {rows}×{hidden}", dtype, inputs, {"eps": 1e-6})


def oracle(case: Case) -> Tensors:
    """Return float64 ``y`` and ``residual``, the sum rounded to the dtype."""
    x, residual, weight = (case.inputs[name].double() for name in ("x", "residual", "weight"))
    total = (x + residual).to(case.dtype).double()  # [rows, hidden]
    mean_square = total.square().mean(-1, keepdim=True)
    return {"y": total / (mean_square + case.params["eps"]).sqrt() * weight, "residual": total}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed errors by the model of the module's docstring."""
    hidden = case.inputs["x"].shape[-1]
    relative = gamma((1 + sum_depth(hidden) + 4) / 2 + 4 + 2)
    underflow = 2 * TINY * (1 + case.inputs["weight"].double().abs())
    slack = relative * expected["y"].abs() + underflow
    return {
        "y": output_bound(expected["y"], slack, case.dtype),
        "residual": torch.zeros_like(expected["residual"]),
    }


def bytes_moved(case: Case) -> int:
    """Return the bytes of ``x``, ``residual`` and the two results, and of the weight once."""
    x = case.inputs["x"]
    return (4 * x.numel() + x.shape[-1]) * x.itemsize


def flops(case: Case) -> int:
    """Return additions, products, and one root, division and sum of epsilon a row."""
    x = case.inputs["x"]
    return 5 * x.numel() + 3 * (x.numel() // x.shape[-1])


SHAPES: tuple[dict[str, int], ...] = (
    ({"rows": 129, "size": 128}, {"rows": 3, "size": 16384})
    if INTERPRETED
    else (
        {"rows": 4097, "size": 4096},
        {"rows": 1030, "size": 8192},
        {"rows": 65, "size": 8191},
        {"rows": 33, "size": 16384},
        {"rows": 33, "size": 5120},
    )
)
"""Served shapes: hidden sizes of Llama and Qwen models, with masks and without (a power of two, one row a program)."""


CONTRACT = Op(
    name="add_rmsnorm",
    signature="add_rmsnorm(x, residual, weight, eps=1e-6, *, out=None, residual_out=None) -> (y, residual)",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    exact=("residual",),
    outs={"y": "out", "residual": "residual_out"},
    in_place={"out": "x", "residual_out": "residual"},
    dtypes=DTYPES,
    row_inputs=("x", "residual"),
    tied=("x", "residual", "weight"),
    leading=True,
    configs=CONFIGS,
    shapes=SHAPES,
    eager=eager,
    kernel=add_rmsnorm,
    bytes_moved=bytes_moved,
    flops=flops,
)
