"""Layer norm + linear + activation: ``out = act(LN(x) · weightᵀ + bias)``, the way into every MLP of a transformer.

``LN(x) = (x − mean) / sqrt(var + eps) · ln_weight + ln_bias`` over the last dimension, with the biased variance;
``weight`` lies as ``torch.nn.Linear`` keeps it, ``[columns, hidden]``. Unfused, the product makes a round trip through
device memory before the activation and is rounded twice; here bias, activation and the one rounding happen while the
sums are still in registers. The normalised row x̂ is rounded to the storage dtype, because that is what the tensor cores
multiply, and it is written once: folding the norm into the product (``rstd·(x·Wᵀ − mean·ΣW)``) would save that, but
cancels wherever the mean is large against the deviation, and normalising again in each tile costs more than reading x̂
from the L2 cache.

Activations: ``none``; ``relu``; ``silu`` z·σ(z); ``gelu`` z·Φ(z) by erf; ``gelu_tanh`` its tanh approximation,
computed as z / (1 + exp(−2v)) with v = √(2/π)·(z + 0.044715·z³).

Error model (u = 2⁻²⁴, K = hidden, depth = :func:`gaugeblock.kernels.bounds.sum_depth`), in the order of computation:

1. Mean. x − mean may be off by 16u·|mean| + γ(depth + 2)·avg|x − mean|, the same shift for the whole row: a tree sum of
   the row, or a rough mean whose error the centred values put right. A sum that errs by γ(depth)·|mean| instead loses
   the row where the mean is 500 deviations. The shift reaches the result as rstd·|Σₖ ln_weightₖ·weightₙₖ|.
2. Deviation. The squares of the centred values are positive: γ(depth + 6) relative on var + eps, of which the root
   keeps half; rsqrt adds 4u (2 ulp), the subtraction, two products and the sum with ln_bias 4u.
3. x̂ is rounded once to the storage dtype: ½ulp(x̂ₖ)·Σ|weightₙₖ|. This is most of the bound in bf16 and fp16.
4. The product is accumulated in fp32: γ(chain)·Σ|x̂ₖ·weightₙₖ|, chain = depth + 2 in fp32 and, in bf16 and fp16, at
   least K/8: tensor cores add 16 exact products a step and truncate, twice the error of rounding. Bias: u·|z|.
5. All that is an error of z; the activation passes on |act'(z)| of it, plus the error² (|act''| < 1 for all four).
   Its own error is relative (2|z| + 4)u·σ(−z) + 6u for silu, with z·(1.6 + 0.143z²) for the exponent of gelu_tanh,
   absolute 4u|z| for both gelu (1 + tanh or 1 + erf cancels for negative z), 0 for relu and none.
6. One rounding to the output dtype.

Two launches: the norm, then the product, which starts early and fetches weights while the norm runs. In large batches
the product is cuBLASLt's where that has the activation as an epilogue (:mod:`gaugeblock.kernels._ln_linear_tiles`). The
dispatch depends on the number of rows (other tiles, hence another order of step 4), never on what other rows hold.

Layer norm: Ba, Kiros, Hinton 2016, arXiv:1607.06450. GELU: Hendrycks and Gimpel 2016, arXiv:1606.08415. Corrected
two-pass variance: Chan, Golub, LeVeque 1983, doi:10.1080/00031305.1983.10483115.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 # the name that every PyTorch user knows

from gaugeblock.kernels._ln_linear_tiles import CONFIGS, Config, config_for, is_wide, launch, runs
from gaugeblock.kernels.arguments import (
    DTYPES,
    Refused,
    input_rows,
    output_rows,
    require_hidden,
    require_like,
    require_shape,
)
from gaugeblock.kernels.bounds import TINY, U, gamma, output_bound, sum_depth, ulp
from gaugeblock.kernels.cases import fill, normal
from gaugeblock.kernels.contract import Case, Op, Tensors
from gaugeblock.kernels.runtime import INTERPRETED

__all__ = ["ACTIVATIONS", "CONFIGS", "CONTRACT", "Config", "config_for", "ln_linear"]

MAX_HIDDEN = 65536
"""One program normalises a whole row in registers."""

ACTIVATIONS = ("gelu_tanh", "gelu", "silu", "relu", "none")


def ln_linear(
    x: torch.Tensor,
    ln_weight: torch.Tensor,
    ln_bias: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float = 1e-5,
    activation: str = "gelu_tanh",
    *,
    out: torch.Tensor | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """Return ``act(LN(x) · weightᵀ + bias)``, ``[…, columns]`` of the dtype of ``x``.

    ``x``: ``[…, hidden]``; ``ln_weight``, ``ln_bias``: ``[hidden]``; ``weight``: ``[columns, hidden]``; ``bias``:
    ``[columns]``; all fp32, all fp16 or all bf16. ``activation``: one of :data:`ACTIVATIONS`. ``out`` takes the result
    and must not overlap an input. ``config`` overrides the tile that :func:`config_for` chooses (fp32 has only one).

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take; ``eps`` ≤ 0; an unknown activation.
    """
    if x.dim() == 0 or weight.dim() != 2:
        shapes = f"x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}"
        raise Refused(f"{shapes}, expected […, hidden] and [columns, hidden]")
    if activation not in ACTIVATIONS:
        raise Refused(f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    if not eps > 0:
        raise Refused(f"eps is {eps}, must be positive: a constant row would divide by zero")
    columns, hidden = weight.shape
    shape = (*x.shape[:-1], columns)
    out = torch.empty(shape, dtype=x.dtype, device=x.device) if out is None else out
    vectors = {"ln_weight": (ln_weight, hidden), "ln_bias": (ln_bias, hidden), "bias": (bias, columns)}
    require_like("x", {"x": x, **{name: t for name, (t, _) in vectors.items()}, "weight": weight, "out": out})
    require_hidden("weight", hidden, MAX_HIDDEN)
    require_shape("x", x, (*x.shape[:-1], hidden))
    for name, (tensor, length) in vectors.items():
        require_shape(name, tensor, (length,))
    require_shape("out", out, shape)
    rows, result = input_rows(x), output_rows("out", out)
    gain, shift, bias = ln_weight.contiguous(), ln_bias.contiguous(), bias.contiguous()
    launch(rows, gain, shift, input_rows(weight), bias, result, eps, activation, config)
    return out


def activated(z: torch.Tensor, activation: str) -> torch.Tensor:
    """Return PyTorch's own activation of that name, in the dtype of ``z``."""
    if activation in ("gelu", "gelu_tanh"):
        return F.gelu(z, approximate="tanh" if activation == "gelu_tanh" else "none")
    if activation == "silu":
        return F.silu(z)
    return F.relu(z) if activation == "relu" else z


def eager(
    x: torch.Tensor,
    ln_weight: torch.Tensor,
    ln_bias: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float = 1e-5,
    activation: str = "gelu_tanh",
) -> torch.Tensor:
    """Return the op from PyTorch's own three kernels: the baseline of errors and times. It rounds three times."""
    return activated(F.linear(F.layer_norm(x, x.shape[-1:], ln_weight, ln_bias, eps), weight, bias), activation)


def make(
    rows: int,
    hidden: int,
    dtype: torch.dtype,
    seed: int = 0,
    kind: str = "normal",
    activation: str = "gelu_tanh",
    columns: int | None = None,
) -> Case:
    """Return ``x`` ``[rows, hidden]`` of the kind, and weights with which z is about N(0, 2²): both tails count."""
    columns = (136 if hidden < 128 else 40) + hidden % 40 if columns is None else columns
    vectors = normal(3, max(hidden, columns), 3 * seed)
    weight = 2 / math.sqrt(hidden) * normal(columns, hidden, 3 * seed + 1)
    inputs = {
        "x": fill(kind, rows, hidden, dtype, 3 * seed + 2),
        "ln_weight": (1 + 0.5 * vectors[0, :hidden]).to(dtype),
        "ln_bias": (0.5 * vectors[1, :hidden]).to(dtype),
        "weight": weight.to(dtype),
        "bias": vectors[2, :columns].to(dtype),
    }
    label = f"ln_linear {rows}×{hidden}→{columns} {activation} {dtype} {kind} seed {seed}"
    return Case(label, dtype, inputs, {"eps": 1e-5, "activation": activation})


def workload(
    device: str,
    dtype: torch.dtype,
    rows: int = 4096,
    hidden: int = 4096,
    columns: int = 16384,
    activation: str = "gelu_tanh",
) -> Case:
    """Return random inputs made on the device, for timing; by default those of an MLP of 4096 → 16384."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    inputs = {
        "x": random(rows, hidden),
        "ln_weight": random(hidden),
        "ln_bias": random(hidden),
        "weight": random(columns, hidden) / math.sqrt(hidden),
        "bias": random(columns),
    }
    label = f"ln_linear {rows}×{hidden}→{columns} {activation} {dtype}"
    return Case(label, dtype, inputs, {"eps": 1e-5, "activation": activation})


def oracle(case: Case) -> Tensors:
    """Return the float64 ``out``."""
    x, gain, shift, weight, bias = (tensor.double() for tensor in case.inputs.values())
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + case.params["eps"]).rsqrt()
    z = (centred * scale * gain + shift) @ weight.t() + bias
    return {"out": activated(z, case.params["activation"])}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed error by the model of the module's docstring."""
    x, gain, shift, weight, bias = (tensor.double() for tensor in case.inputs.values())
    hidden, depth = x.shape[-1], sum_depth(x.shape[-1])
    mean = x.mean(-1, keepdim=True)
    centred = x - mean  # [rows, hidden]
    scale = (centred.square().mean(-1, keepdim=True) + case.params["eps"]).rsqrt()
    unit = centred * scale * gain
    normalised = unit + shift
    offset = (16 * U * mean.abs() + gamma(depth + 2) * centred.abs().mean(-1, keepdim=True)) * scale  # [rows, 1]
    each = gamma((depth + 6) / 2 + 4 + 3) * unit.abs() + U * normalised.abs() + 4 * TINY
    each = each + 0.5 * ulp(normalised.abs() + each, case.dtype)
    chain = depth + 2 if case.dtype == torch.float32 else max(depth + 2, hidden / 8)
    sums = (normalised.abs() + each) @ weight.abs().t()  # [rows, columns]
    z = normalised @ weight.t() + bias
    error = each @ weight.abs().t() + offset * (gain @ weight.t()).abs() + gamma(chain) * sums + U * z.abs()
    slack = _through(z, error, case.params["activation"]) + (hidden + 2) * TINY
    return {"out": output_bound(expected["out"], slack, case.dtype)}


def _through(z: torch.Tensor, error: torch.Tensor, activation: str) -> torch.Tensor:
    """Return the error of the activation of ``z`` where ``z`` is off by up to ``error``; all float64."""
    if activation == "none":
        return error
    if activation == "relu":
        return torch.where(z + error > 0, error, 0.0)
    with torch.enable_grad():
        variable = z.detach().requires_grad_()
        value = activated(variable, activation)
        (slope,) = torch.autograd.grad(value.sum(), variable)
    passed = (slope.abs() + error) * error  # |act″| < 1
    if activation == "gelu":
        return passed + 4 * U * z.abs()
    exponent = 2 * z.abs()
    absolute = 2.0**-126
    if activation == "gelu_tanh":
        exponent, absolute = 4 * z.abs() * (1.6 + 0.143 * z.square()), 4 * U
    sigmoid = torch.sigmoid(-z if activation == "silu" else -1.6 * z)
    return passed + ((exponent + 4) * sigmoid + 6) * U * value.detach().abs() + absolute * z.abs()


def config_fits(case: Case, config: Config) -> bool:
    """Return whether a configuration runs a case, and no other in its place."""
    columns, hidden = case.inputs["weight"].shape
    return runs(config, case.dtype, is_wide(hidden, columns))


def _matrix_bytes(case: Case) -> int:
    rows, columns = case.inputs["x"][..., 0].numel(), case.inputs["weight"].shape[0]
    return (sum(t.numel() for t in case.inputs.values()) + rows * columns) * case.dtype.itemsize


def _operations(case: Case) -> int:
    rows, (columns, hidden) = case.inputs["x"][..., 0].numel(), case.inputs["weight"].shape
    return rows * (2 * columns * hidden + 8 * hidden + 6 * columns)


SHAPES: tuple[dict[str, Any], ...] = (
    (
        {"rows": 257, "size": 64, "columns": 520, "activation": "silu"},  # more tiles than programs
        {"rows": 257, "size": 63, "columns": 66, "activation": "gelu_tanh"},  # more rows of tiles than a band has
    )
    if INTERPRETED
    else (
        {"rows": 4097, "size": 4096, "columns": 4096, "activation": "gelu_tanh"},  # cuBLASLt
        {"rows": 1025, "size": 4096, "columns": 4104, "activation": "relu"},  # the same, odd
        {"rows": 4097, "size": 4096, "columns": 4096, "activation": "silu"},  # more tiles than multiprocessors
        {"rows": 129, "size": 4096, "columns": 4096, "activation": "gelu"},
        {"rows": 65, "size": 4096, "columns": 14336, "activation": "gelu_tanh"},
        {"rows": 16, "size": 4096, "columns": 4096, "activation": "none"},
        {"rows": 300, "size": 1001, "columns": 1003, "activation": "silu"},  # no descriptors
    )
)
"""Served shapes: prefill and decode of an MLP, one or more for every way to compute the product."""


CONTRACT = Op(
    name="ln_linear",
    signature="ln_linear(x, ln_weight, ln_bias, weight, bias, eps=1e-5, activation='gelu_tanh', *, out=None) -> out",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    outs={"out": "out"},
    dtypes=DTYPES,
    row_inputs=("x",),
    eager=eager,
    kernel=ln_linear,
    bytes_moved=_matrix_bytes,
    flops=_operations,
    variants=tuple({"activation": name} for name in ACTIVATIONS),
    tied=("ln_weight", "ln_bias", "weight", "bias"),
    leading=True,
    invariance="contents",
    configs=CONFIGS,
    fits=config_fits,
    shapes=SHAPES,
)
