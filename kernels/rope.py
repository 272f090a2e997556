"""Rotary position embedding (RoPE) of queries and keys: every pair of a head turns by the token's position.

Pair i of the first ``rotary_dim`` elements of a head, at position p, turns by the angle p·base^(−2i/rotary_dim)::

    x₁' = x₁ cos − x₂ sin        x₂' = x₂ cos + x₁ sin

In the neox layout (Llama, Qwen) a pair is (i, i + rotary_dim/2), in the interleaved one (GPT-J, ChatGLM) (2i, 2i + 1).
What a head has beyond ``rotary_dim`` is copied. The cosines and sines come from a table ``[max_position, rotary_dim]``
in fp32, cosines in the first half of a row and sines in the second, as SGLang and vLLM keep it; one that is kept in
bf16 loses the angle of long contexts. Unfused, q and k make several round trips through device memory each; fused, both
are read once and written once, in one launch, and the table's row once a token.

Error model (u = 2⁻²⁴). The table is an input: its own error (position · 2⁻²⁴ radians where angles are computed in fp32)
is the caller's; :func:`cos_sin_cache` computes it in float64. Left are two rounded products and a rounded sum, fused or
not: γ(2)·(|x₁ cos| + |x₂ sin|), then one rounding to the dtype. What is copied is exact.

A position outside of the table makes the token's rotated elements NaN; nothing outside of it is read. To refuse it
would mean to wait for the device.

RoPE: Su et al. 2021, arXiv:2104.09864.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import torch

from gaugeblock.kernels.arguments import DTYPES, Refused, require_hidden, require_like, require_shape
from gaugeblock.kernels.bounds import TINY, gamma, output_bound
from gaugeblock.kernels.cases import fill
from gaugeblock.kernels.contract import Case, Op, Sizes, Tensors
from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, inline, jit, next_power_of_two, quiet, tl

MAX_DIM = 4096


class Config(NamedTuple):
    """What one program takes: ``tokens`` × ``heads``, of q or of k."""

    tokens: int
    heads: int
    warps: int


CONFIGS = (Config(64, 8, 4), Config(16, 4, 4)) if INTERPRETED else (Config(1, 16, 4), Config(1, 32, 4), Config(1, 8, 4))
"""Every configuration that may be launched."""


def config_for(tokens: int) -> Config:
    """Return the configuration. An element's bits depend on none of it."""
    del tokens
    return CONFIGS[0]


@inline
def _rotate(
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    table_ptr: tl.tensor,  # [TOKENS, 1, 1]: where the row of each token's position begins
    known: tl.tensor,  # [TOKENS, 1, 1]: whether the table has it
    inside: tl.tensor,  # [TOKENS, HEADS, 1]
    dim: tl.constexpr,
    rotary_dim: tl.constexpr,
    HALF: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    REST: tl.constexpr,  # noqa: N803 # the same
    INTERLEAVED: tl.constexpr,  # noqa: N803 # the same
) -> None:
    half: tl.constexpr = rotary_dim // 2
    pair = tl.arange(0, HALF)[None, None, :]
    mask = inside & (pair < half)
    if INTERLEAVED:
        both = tl.arange(0, 2 * HALF)[None, None, :]
        pairs = tl.load(x_ptr + both, mask=inside & (both < rotary_dim), other=0.0)
        first, second = tl.split(tl.reshape(pairs, [inside.shape[0], inside.shape[1], HALF, 2]))
    else:
        first = tl.load(x_ptr + pair, mask=mask, other=0.0)
        second = tl.load(x_ptr + half + pair, mask=mask, other=0.0)
    # only now the table: its address waits for the position, and loads are issued in this order
    cos = tl.load(table_ptr + pair, mask=known & (pair < half), other=float("nan"))
    sin = tl.load(table_ptr + half + pair, mask=known & (pair < half), other=float("nan"))
    first, second = widened(first), widened(second)
    turned_first = rounded(first * cos - second * sin, out_ptr.dtype.element_ty)
    turned_second = rounded(second * cos + first * sin, out_ptr.dtype.element_ty)
    if INTERLEAVED:
        turned = tl.reshape(tl.join(turned_first, turned_second), [inside.shape[0], inside.shape[1], 2 * HALF])
        tl.store(out_ptr + both, turned, mask=inside & (both < rotary_dim))
    else:
        tl.store(out_ptr + pair, turned_first, mask=mask)
        tl.store(out_ptr + half + pair, turned_second, mask=mask)
    if REST > 0:
        rest = rotary_dim + tl.arange(0, REST)[None, None, :]
        copied = tl.load(x_ptr + rest, mask=inside & (rest < dim), other=0.0)
        tl.store(out_ptr + rest, copied, mask=inside & (rest < dim))


_COUNTS = ("tokens", "max_position", "q_heads", "k_heads", "q_programs", "programs")
_jit = partial(jit, do_not_specialize=_COUNTS)  # type: ignore[call-arg] # triton.jit's own: one binary for all of them


@_jit
def _rope_kernel(
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    position_ptr: tl.tensor,
    table_ptr: tl.tensor,
    q_out_ptr: tl.tensor,
    k_out_ptr: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    k_token: tl.tensor,
    k_head: tl.tensor,
    q_out_token: tl.tensor,
    q_out_head: tl.tensor,
    k_out_token: tl.tensor,
    k_out_head: tl.tensor,
    table_stride: tl.tensor,
    tokens: tl.tensor,
    max_position: tl.tensor,
    q_heads: tl.tensor,
    k_heads: tl.tensor,
    q_programs: tl.tensor,
    programs: tl.tensor,
    dim: tl.constexpr,
    rotary_dim: tl.constexpr,
    TOKENS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    HEADS: tl.constexpr,  # noqa: N803 # the same
    HALF: tl.constexpr,  # noqa: N803 # the same
    REST: tl.constexpr,  # noqa: N803 # the same
    INTERLEAVED: tl.constexpr,  # noqa: N803 # the same
) -> None:
    part = tl.program_id(0) % programs  # neighbours share tokens, and so rows of the table
    token = (tl.program_id(0) // programs).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)[:, None, None]
    position = tl.load(position_ptr + token, mask=token < tokens, other=0).to(tl.int64)  # [TOKENS, 1, 1]
    known = (position >= 0) & (position < max_position)
    row_ptr = table_ptr + position * table_stride
    if part < q_programs:
        head = part * HEADS + tl.arange(0, HEADS)[None, :, None]
        x_ptr = q_ptr + token * q_token + head * q_head
        out_ptr = q_out_ptr + token * q_out_token + head * q_out_head
        inside = (token < tokens) & (head < q_heads)
        _rotate(x_ptr, out_ptr, row_ptr, known, inside, dim, rotary_dim, HALF, REST, INTERLEAVED)
    else:
        head = (part - q_programs) * HEADS + tl.arange(0, HEADS)[None, :, None]
        x_ptr = k_ptr + token * k_token + head * k_head
        out_ptr = k_out_ptr + token * k_out_token + head * k_out_head
        inside = (token < tokens) & (head < k_heads)
        _rotate(x_ptr, out_ptr, row_ptr, known, inside, dim, rotary_dim, HALF, REST, INTERLEAVED)


def cos_sin_cache(
    max_position: int, rotary_dim: int, base: float = 10000.0, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Return the fp32 table ``[max_position, rotary_dim]``: cosines, then sines. Angles and both are float64 before.

    In fp32 an angle of 131072 radians is off by up to 0.004.
    """
    frequency = base ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)  # [rotary_dim ÷ 2]
    angle = torch.arange(max_position, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1).float().to(device)


def rope(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    interleaved: bool = False,
    *,
    q_out: torch.Tensor | None = None,
    k_out: torch.Tensor | None = None,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return q and k turned by their tokens' positions, of their shapes and dtype.

    ``q``: ``[tokens, q_heads, dim]``, ``k``: ``[tokens, k_heads, dim]``, both fp32, fp16 or bf16; ``positions``:
    ``[tokens]``, int32 or int64; ``cos_sin_cache``: ``[max_position, rotary_dim]``, fp32, ``rotary_dim`` even and at
    most ``dim``. ``q_out`` and ``k_out`` take the results and may be ``q`` and ``k``. ``config`` replaces the tile.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take.
    """
    _require(q, k, positions, cos_sin_cache)
    q_out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if q_out is None else q_out
    k_out = torch.empty(k.shape, dtype=k.dtype, device=k.device) if k_out is None else k_out
    require_like("q", {"q": q, "k": k, "q_out": q_out, "k_out": k_out})
    for name, tensor, out in (("q_out", q, q_out), ("k_out", k, k_out)):
        require_shape(name, out, tensor.shape)
        if out.numel() and out.stride(-1) != 1:
            raise Refused(f"{name} has strides {out.stride()}: its last dimension must be contiguous")
    _launch(
        _contiguous_heads(q),
        _contiguous_heads(k),
        positions.contiguous(),
        _contiguous_heads(cos_sin_cache),
        q_out,
        k_out,
        interleaved,
        config or config_for(q.shape[0]),
    )
    return q_out, k_out


def _require(q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor) -> None:
    """Refuse inputs that do not fit together."""
    for name, tensor, rank in (("q", q, 3), ("k", k, 3), ("positions", positions, 1), ("cos_sin_cache", cache, 2)):
        if tensor.dim() != rank:
            raise Refused(f"{name} has shape {tuple(tensor.shape)}, expected {rank} dimensions")
    require_like("q", {"q": q, "k": k})
    tokens, _, dim = q.shape
    require_hidden("q", dim, MAX_DIM)
    require_shape("k", k, (tokens, k.shape[1], dim))
    require_shape("positions", positions, (tokens,))
    if positions.dtype not in (torch.int32, torch.int64):
        raise Refused(f"positions is {positions.dtype}, expected torch.int32 or torch.int64")
    if cache.dtype != torch.float32:
        raise Refused(f"cos_sin_cache is {cache.dtype}, expected torch.float32: 16 bits lose the angle")
    rotary_dim = cache.shape[1]
    if rotary_dim % 2 or not 2 <= rotary_dim <= dim:
        raise Refused(f"the last dimension of cos_sin_cache is {rotary_dim}, expected an even one in 2…{dim}")
    for name, tensor in (("positions", positions), ("cos_sin_cache", cache)):
        if tensor.device != q.device:
            raise Refused(f"{name} is on {tensor.device} but q is on {q.device}")


def _contiguous_heads(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 or tensor.numel() == 0 else tensor.contiguous()


def _launch(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    cache: torch.Tensor,
    q_out: torch.Tensor,
    k_out: torch.Tensor,
    interleaved: bool,
    config: Config,
) -> None:
    (tokens, q_heads, dim), k_heads = q.shape, k.shape[1]
    max_position, rotary_dim = cache.shape
    q_programs, k_programs = -(-q_heads // config.heads), -(-k_heads // config.heads)
    if tokens == 0 or q_heads + k_heads == 0:
        return
    with quiet():
        _rope_kernel[(-(-tokens // config.tokens) * (q_programs + k_programs),)](
            q,
            k,
            positions,
            cache,
            q_out,
            k_out,
            *q.stride()[:2],
            *k.stride()[:2],
            *q_out.stride()[:2],
            *k_out.stride()[:2],
            cache.stride(0),
            tokens,
            max_position,
            q_heads,
            k_heads,
            q_programs,
            q_programs + k_programs,
            dim=dim,
            rotary_dim=rotary_dim,
            TOKENS=config.tokens,
            HEADS=config.heads,
            HALF=next_power_of_two(rotary_dim // 2),
            REST=next_power_of_two(dim - rotary_dim) if dim > rotary_dim else 0,
            INTERLEAVED=interleaved,
            num_warps=config.warps,
        )


def eager(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin_cache: torch.Tensor, interleaved: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the op from PyTorch's own kernels, the table's fp32 deciding the type of the products."""
    cos, sin = cos_sin_cache[positions.long()].unsqueeze(1).chunk(2, dim=-1)  # [tokens, 1, rotary_dim ÷ 2]
    return _turn(q, cos, sin, interleaved).to(q.dtype), _turn(k, cos, sin, interleaved).to(k.dtype)


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """Return ``x`` turned, in the wider of the two types."""
    rotary_dim = 2 * cos.shape[-1]
    turning, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    first, second = (turning[..., 0::2], turning[..., 1::2]) if interleaved else turning.chunk(2, dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    together = torch.stack(turned, dim=-1).flatten(-2) if interleaved else torch.cat(turned, dim=-1)
    return torch.cat([together, rest.to(together.dtype)], dim=-1)


MAX_POSITION = 2048
FAR = 40000
"""Of the cases, and of the kind ``far``: positions beyond 2¹⁵, so that one kept in 16 bits shows."""

HEADS = (6, 3)
"""Of the cases: queries' and keys', neither a power of two, so that no tile is full; a group has two queries."""

_case_cache = cache(cos_sin_cache)


def make(
    rows: int,
    dim: int,
    dtype: torch.dtype,
    seed: int = 0,
    kind: str = "normal",
    interleaved: bool = False,
    partial: bool = False,
    heads: tuple[int, int] = HEADS,
) -> Case:
    """Return q and k ``[rows, heads, dim]`` at random positions, the last of the table among them.

    ``partial``: only about half of a head turns. ``heads``: of q and of k. The kind ``far``: a long context.
    """
    rotary_dim = max(dim // 4 * 2, 2) if partial else dim // 2 * 2
    max_position = FAR if kind == "far" else MAX_POSITION
    positions = torch.randint(0, max_position, (rows,), generator=torch.Generator().manual_seed(3 * seed + 2))
    positions[-1:] = max_position - 1
    values = "normal" if kind == "far" else kind
    q, k = (
        fill(values, rows, count * dim, dtype, 3 * seed + i).view(rows, count, dim) for i, count in enumerate(heads)
    )
    inputs = {"q": q, "k": k, "positions": positions, "cos_sin_cache": _case_cache(max_position, rotary_dim)}
    layout = f"{'interleaved' if interleaved else 'neox'}{', partial' if partial else ''}"
    label = f"rope {rows}×({heads[0]}+{heads[1]})×{dim} {layout} {dtype} {kind} seed {seed}"
    return Case(label, dtype, inputs, {"interleaved": interleaved})


def workload(device: str, dtype: torch.dtype, **shape: Any) -> Case:
    """Return a prefill of ``tokens`` with ``q_heads``, ``k_heads`` and ``dim``; positions as of one long prompt."""
    tokens, dim = shape["tokens"], shape["dim"]
    q, k = (torch.randn(tokens, shape[n], dim, device=device, dtype=dtype) for n in ("q_heads", "k_heads"))
    positions = torch.arange(tokens, device=device)
    inputs = {"q": q, "k": k, "positions": positions, "cos_sin_cache": cos_sin_cache(tokens, dim, device=device)}
    return Case(f"rope {tokens}×({shape['q_heads']}+{shape['k_heads']})×{dim}", dtype, inputs)


def _in_float64(case: Case, magnitudes: bool) -> Tensors:
    """Return both results; with ``magnitudes``, the sums of the absolute products instead."""
    positions, cache = case.inputs["positions"].long(), case.inputs["cos_sin_cache"]
    cos, sin = cache[positions].double().unsqueeze(1).chunk(2, dim=-1)
    interleaved = case.params.get("interleaved", False)
    results = {}
    for name in ("q", "k"):
        x = case.inputs[name].double()
        if magnitudes:  # |x₁||cos| + |x₂||sin| twice: the first element of a pair subtracts, so negate its sine
            first = _turn(x.abs(), cos.abs(), -sin.abs(), interleaved)
            second = _turn(x.abs(), cos.abs(), sin.abs(), interleaved)
            results[name] = torch.maximum(first, second)
        else:
            results[name] = _turn(x, cos, sin, interleaved)
    return results


def oracle(case: Case) -> Tensors:
    """Return float64 ``q`` and ``k``."""
    return _in_float64(case, magnitudes=False)


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed errors by the model of the module's docstring; what is copied must be exact."""
    rotary_dim = case.inputs["cos_sin_cache"].shape[1]
    bounds = {}
    for name, magnitude in _in_float64(case, magnitudes=True).items():
        bounds[name] = output_bound(expected[name], gamma(2) * magnitude + 2 * TINY, case.dtype)
        bounds[name][..., rotary_dim:] = 0.0
    return bounds


def bytes_moved(case: Case) -> int:
    """Return q and k, read and written, the positions, and a row of the table a token."""
    q, k, positions, cache = case.inputs.values()
    heads = 2 * (q.numel() + k.numel()) * q.element_size()
    return heads + positions.numel() * (positions.element_size() + cache.shape[1] * cache.element_size())


def flops(case: Case) -> int:
    """Return four products and two sums a pair."""
    heads = case.inputs["q"].shape[1] + case.inputs["k"].shape[1]
    return 3 * case.inputs["cos_sin_cache"].shape[1] * heads * case.inputs["q"].shape[0]


SHAPES: tuple[dict[str, Any], ...] = (
    ({"rows": 129, "size": 128, "heads": (17, 2)},)
    if INTERPRETED
    else (
        {"rows": 4097, "size": 128, "heads": (32, 8)},
        {"rows": 1031, "size": 128, "heads": (28, 4), "interleaved": True},
        {"rows": 65, "size": 64, "heads": (71, 1), "partial": True},
    )
)
"""Served shapes: heads of Llama, Qwen and Falcon models, more than a program takes."""


CONTRACT = Op(
    name="rope",
    signature="rope(q, k, positions, cos_sin_cache, interleaved=False, *, q_out=None, k_out=None) -> (q, k)",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    outs={"q": "q_out", "k": "k_out"},
    dtypes=DTYPES,
    row_inputs=("q", "k", "positions"),
    eager=eager,
    kernel=rope,
    bytes_moved=bytes_moved,
    flops=flops,
    kinds=("normal", "small", "scaled", "offset", "denormal", "large", "zeros", "far"),
    variants=({}, {"partial": True}, {"interleaved": True, "partial": True}),
    sizes=Sizes(small=64, odd=38, usual=128, long=258, step=2),
    in_place={"q_out": "q", "k_out": "k"},
    tied=("q", "k"),
    configs=CONFIGS,
    shapes=SHAPES,
)
