"""INT8 linear layer: ``out = acc · x_scale · w_scale + bias`` with the exact integer sum ``acc = x · weightᵀ``.

Both operands are int8. The integers of a token (a row of ``x``) stand for ``x · x_scale[row]``, those of an output
channel (a row of ``weight``) for ``weight · w_scale[channel]``: symmetric, no zero point, −128 allowed. Because neither
scale depends on the summed index, the sum needs integers alone and both scales are applied once, to the result. Half
the bytes of bf16 and, on the tensor cores, twice its rate; fused, the int32 sums never reach memory: 8 bytes an output
element less than a product followed by a dequantisation.

Error model (u = 2⁻²⁴). The sum is exact in int32: |acc| ≤ 2¹⁴·depth < 2³¹ for depth ≤ 2¹⁷ − 1, in any order, so no
tile and no split of the sum changes a bit. Then four fp32 roundings: int32 to fp32 (exact up to 2²⁴), the product with
one scale, that with the other, the sum with the bias: γ(4)·|acc·x_scale·w_scale| + u·|bias|, whichever scale comes
first (here w_scale) and whether or not the last two are fused. A product below 2⁻¹²⁶ may lose 2⁻¹⁴⁹, times the factor
that follows. One rounding to the output dtype. Scales whose product with acc leaves fp32's range are not for this op.

Per token × per channel: Xiao et al. 2023 (SmoothQuant), arXiv:2211.10438; the meaning of ``int8_scaled_mm`` in SGLang's
sgl-kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 # the name that every PyTorch user knows

from gaugeblock.kernels._int8_linear_early import EarlyConfig
from gaugeblock.kernels._int8_linear_early import fits as early_fits
from gaugeblock.kernels._int8_linear_gemv import GemvConfig
from gaugeblock.kernels._int8_linear_hopper import HopperConfig
from gaugeblock.kernels._int8_linear_hopper import fits as hopper_fits
from gaugeblock.kernels._int8_linear_tiles import CONFIGS, AnyConfig, Config, config_for, launch
from gaugeblock.kernels.arguments import DTYPES, Refused, input_rows, output_rows, require_hidden, require_shape
from gaugeblock.kernels.bounds import TINY, U, gamma, output_bound
from gaugeblock.kernels.cases import fill
from gaugeblock.kernels.contract import Case, Op, Sizes, Tensors
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED

__all__ = ["CONFIGS", "CONTRACT", "Config", "EarlyConfig", "GemvConfig", "HopperConfig", "config_for", "int8_linear"]

MAX_DEPTH = 2**17 - 1
"""The longest sum of products of two int8 numbers that int32 always holds: 2¹⁷ products of −128 by −128 are 2³¹."""


def int8_linear(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out_dtype: torch.dtype = torch.bfloat16,
    *,
    out: torch.Tensor | None = None,
    config: AnyConfig | None = None,
    weights_at_rest: bool = False,
) -> torch.Tensor:
    """Return ``(x · weightᵀ) · x_scale · w_scale + bias``, ``[…, columns]`` of ``out_dtype`` (fp32, fp16 or bf16).

    ``x``: ``[…, depth]`` int8; ``x_scale``: ``[…, 1]`` fp32, one a token; ``weight``: ``[columns, depth]`` int8;
    ``w_scale``: ``[columns]`` fp32, one a channel; ``bias``: ``[columns]`` of ``out_dtype``. ``out`` takes the result.
    ``config`` overrides the tile, and the kernel, that :func:`config_for` chooses. ``weights_at_rest``: the caller's
    promise that no kernel which may still be running writes ``weight``, ``w_scale`` or ``bias``, as of a model that has
    been loaded; a few tokens are then multiplied sooner, with the same bits.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take.
    """
    if x.dim() == 0 or weight.dim() != 2:
        raise Refused(
            f"x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}, expected […, depth], [columns, depth]"
        )
    columns, depth = weight.shape
    shape = (*x.shape[:-1], columns)
    out = torch.empty(shape, dtype=out_dtype, device=x.device) if out is None else out
    _require_dtypes(x, x_scale, weight, w_scale, bias, out, out_dtype)
    require_hidden("weight", depth, MAX_DEPTH)
    require_hidden("out", columns, 2**31 - 1)
    require_shape("x", x, (*x.shape[:-1], depth))
    require_shape("x_scale", x_scale, (*x.shape[:-1], 1))
    require_shape("w_scale", w_scale, (columns,))
    require_shape("bias", bias, (columns,))
    require_shape("out", out, shape)
    weights = input_rows(weight), w_scale.contiguous(), bias.contiguous()
    given = zip(weights, (weight, w_scale, bias), strict=True)
    copied = any(ours.data_ptr() != theirs.data_ptr() for ours, theirs in given)
    launch(
        input_rows(x),
        x_scale.reshape(-1),
        *weights,
        output_rows("out", out),
        config,
        weights_at_rest and not copied,  # a copy of ours has only just been written
    )
    return out


def _require_dtypes(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    out_dtype: torch.dtype,
) -> None:
    if out_dtype not in DTYPES:
        raise Refused(f"out_dtype is {out_dtype}; supported: {', '.join(map(str, DTYPES))}")
    expected = {
        "x": (x, torch.int8),
        "x_scale": (x_scale, torch.float32),
        "weight": (weight, torch.int8),
        "w_scale": (w_scale, torch.float32),
        "bias": (bias, out_dtype),
        "out": (out, out_dtype),
    }
    for name, (tensor, dtype) in expected.items():
        if tensor.dtype != dtype:
            raise Refused(f"{name} is {tensor.dtype}, its dtype must be {dtype}")
        if tensor.device != x.device or tensor.device.type != DEVICE:
            raise Refused(f"{name} is on {tensor.device}, expected all tensors on one {DEVICE} device")


def integer_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the exact int32 ``x · weightᵀ`` of int8 ``[rows, depth]`` and ``[columns, depth]``.

    On a GPU by ``torch._int_mm``, which takes more than 16 rows and multiples of 8: other sizes are padded with zeros.
    On a CPU in float64, whose sums of integers are exact up to 2⁵³: ``torch._int_mm`` adds pairs of products in 16 bits
    on processors without VNNI, where they saturate (pytorch/pytorch#103646), and leaves its result unwritten for a
    depth of 1 (torch 2.13; pytorch/pytorch#195066 is of that kind).
    """
    if not x.is_cuda:
        return F.linear(x.double(), weight.double()).int()
    rows, columns, deeper = x.shape[0], weight.shape[0], -x.shape[1] % 8
    x = F.pad(x, (0, deeper, 0, max(17 - rows, 0)))
    weight = F.pad(weight, (0, deeper, 0, -columns % 8))
    product: torch.Tensor = torch._int_mm(x, weight.t())
    return product[:rows, :columns]


def eager(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out_dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    """Return the op from PyTorch's integer product and an unfused dequantisation in fp32: the baseline."""
    total = integer_product(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[0])
    return (total.float() * w_scale * x_scale + bias.float()).to(out_dtype)


def _integers(kind: str, rows: int, columns: int, seed: int) -> torch.Tensor:
    """Return int8 ``[rows, columns]``: uniform in −128…127, or as ``kind`` says.

    ``saturated``: −128 and 127 alone, whole rows of either among them: the largest sums that there are. ``offset``: a
    mean of 100, so that sums exceed 2²⁴ early. ``zeros``: every other row is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-128, 128, (rows, columns), generator=generator, dtype=torch.int8)
    if kind == "saturated":
        values = torch.where(values < 0, -128, 127).to(torch.int8)
        values[::4] = -128
        values[1::4] = 127
    elif kind == "offset":
        values = 100 + values // 5
    elif kind == "zeros":
        values[::2] = 0
    return values


def _scales(kind: str, count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return ``[count]`` positive fp32 scales, no two alike: around 2⁻⁷, or one power of two each where ``scaled``."""
    values = 2.0**-7 * (1 + torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    if kind == "scaled":
        limit = 4 if dtype == torch.float16 else 20
        values *= torch.exp2(torch.linspace(-limit, limit, max(count, 1), dtype=torch.float64)[:count].round())
    elif kind == "small":
        values *= 2.0**-7
    return values.float()


def make(rows: int, depth: int, dtype: torch.dtype, seed: int = 0, kind: str = "normal", *, columns: int = 72) -> Case:
    """Return int8 ``x`` ``[rows, depth]`` and ``weight`` ``[columns, depth]``, their scales and a bias of ``dtype``."""
    bias = fill("zeros" if kind == "zeros" else "normal", 1, columns, dtype, 5 * seed + 4)[0]
    inputs = {
        "x": _integers(kind, rows, depth, 5 * seed),
        "x_scale": _scales(kind, rows, dtype, 5 * seed + 1)[:, None],
        "weight": _integers(kind, columns, depth, 5 * seed + 2),
        "w_scale": _scales(kind, columns, dtype, 5 * seed + 3),
        "bias": bias if kind == "zeros" else 8 * bias,
    }
    label = f"int8_linear {rows}×{depth}→{columns} {dtype} {kind} seed {seed}"
    return Case(label, dtype, inputs, {"out_dtype": dtype})


def workload(device: str, dtype: torch.dtype, *, rows: int, depth: int, columns: int) -> Case:
    """Return random inputs made on ``device``."""

    def integers(*shape: int) -> torch.Tensor:
        return torch.randint(-128, 128, shape, dtype=torch.int8, device=device)

    def scales(*shape: int) -> torch.Tensor:
        return 1e-3 * (1 + torch.rand(shape, device=device))

    inputs = {
        "x": integers(rows, depth),
        "x_scale": scales(rows, 1),
        "weight": integers(columns, depth),
        "w_scale": scales(columns),
        "bias": torch.randn(columns, dtype=dtype, device=device),
    }
    return Case(f"int8_linear {rows}×{depth}→{columns} {dtype}", dtype, inputs, {"out_dtype": dtype})


def _parts(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the exact sums and, broadcastable to them, both scales and the bias, in float64."""
    x, x_scale, weight, w_scale, bias = (tensor.double() for tensor in case.inputs.values())
    return x @ weight.t(), x_scale, w_scale, bias  # |sums| < 2³¹: exact in float64, in any order


def oracle(case: Case) -> Tensors:
    """Return the float64 ``out``."""
    total, x_scale, w_scale, bias = _parts(case)
    return {"out": total * w_scale * x_scale + bias}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed error by the model of the module's docstring."""
    total, x_scale, w_scale, bias = _parts(case)
    product = (total * w_scale * x_scale).abs()
    underflow = TINY * (1 + total.abs() + x_scale.abs() + w_scale.abs())
    slack = gamma(4) * product + U * bias.abs() + torch.where(total == 0, 0.0, underflow)
    return {"out": output_bound(expected["out"], slack, case.dtype)}


def config_fits(case: Case, config: AnyConfig) -> bool:
    """Return whether a configuration runs a case, and no other in its place."""
    x, weight = case.inputs["x"], case.inputs["weight"]
    if isinstance(config, HopperConfig):
        return hopper_fits(x, weight, x.new_empty((x.shape[0], weight.shape[0]), dtype=case.dtype))
    return not isinstance(config, EarlyConfig) or early_fits(x, weight)


def bytes_moved(case: Case) -> int:
    """Return the bytes of all inputs, read once, and of the output, written once."""
    x, bias = case.inputs["x"], case.inputs["bias"]
    written = (x.numel() // x.shape[-1]) * bias.numel() * case.dtype.itemsize
    return sum(t.numel() * t.element_size() for t in case.inputs.values()) + written


def flops(case: Case) -> int:
    """Return the integer operations of the product, and four operations an output element."""
    x, weight = case.inputs["x"], case.inputs["weight"]
    return 2 * x.numel() * weight.shape[0] + 4 * (x.numel() // x.shape[-1]) * weight.shape[0]


SHAPES: tuple[dict[str, int], ...] = (
    ({"rows": 129, "size": 136, "columns": 136},)  # more rows of tiles than a band has
    if INTERPRETED
    else (
        {"rows": 4097, "size": 4096, "columns": 4096},  # more tiles than multiprocessors
        {"rows": 4097, "size": 4095, "columns": 4096},  # the same without the tensor memory accelerator
        {"rows": 513, "size": 4096, "columns": 4096},
        {"rows": 129, "size": 4096, "columns": 4096},
        {"rows": 65, "size": 4096, "columns": 11008},
        {"rows": 17, "size": 4096, "columns": 8200},
        {"rows": 16, "size": 4096, "columns": 4096},
        {"rows": 4, "size": 4096, "columns": 4096},
        {"rows": 1, "size": 4096, "columns": 8200},
    )
)
"""Served shapes: prefill and decode of a layer, one for every way that :func:`config_for` chooses."""


CONTRACT = Op(
    name="int8_linear",
    signature="int8_linear(x, x_scale, weight, w_scale, bias, out_dtype, *, out=None) -> out",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    outs={"out": "out"},
    dtypes=DTYPES,
    row_inputs=("x", "x_scale"),
    eager=eager,
    kernel=int8_linear,
    bytes_moved=bytes_moved,
    flops=flops,
    kinds=("normal", "small", "scaled", "offset", "zeros", "saturated"),
    variants=({"columns": 72}, {"columns": 33}, {"columns": 264}),
    sizes=Sizes(usual=1008, long=2049),
    tied=("x", "x_scale", "weight", "w_scale", "bias"),
    leading=True,
    invariance="rows",
    configs=CONFIGS,
    fits=config_fits,
    shapes=SHAPES,
    served={"weights_at_rest": True},
)
