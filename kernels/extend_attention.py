"""Extend attention, the attention of chunked prefill: a ragged batch of new tokens over a paged KV cache.

Request b has ``seq_len`` keys and values in the cache, those of its ``q_len`` new tokens included (the engine writes
them before it calls). Its new token i stands at the absolute position p = seq_len − q_len + i and sees the keys at
positions 0 … p::

    out[i, h] = Σ_j softmax_j(scale · q[i, h] · k[j, g]) v[j, g]    with g = h ÷ (query heads ÷ KV heads), j ≤ p

A prefix of length 0 is a plain prefill, one new token a decode step, none an idle request. The key at position j of
request b lies in page ``block_table[b, j ÷ page_size]``, slot ``j mod page_size``. Slots behind a request's end and
pages of nobody may hold anything, NaN too: a probability of 0 times NaN would still be NaN, so V is masked, not only P.

Unfused, the logits (query heads × new tokens × keys) make several trips through device memory; here a tile of them
lives in registers, with a running maximum m and sum: p = exp(s − m), and when m grows what was summed is multiplied by
exp(m_old − m_new) (Dao et al. 2022, arXiv:2205.14135; the online softmax is Milakov and Gimelshein 2018,
arXiv:1805.02867). Tiles of keys that nobody in the tile sees are never read. Two kernels do this: one in Triton
for every card, dtype and layout, one for Hopper's tensor cores that takes pages of 8 slots and more. In both a token's
bits depend on its request alone, and on no chunk boundary: a prompt in chunks equals the prompt at once. Operations
are counted as 4 · head_dim · query heads · Σ visible keys: two products of two operations, as in that paper.

Error model (u = 2⁻²⁴, t the storage dtype's unit roundoff, n visible keys, P normalised, A_j = scale · Σ_d |q_d k_jd|):

- a logit: head_dim products summed in fp32, γ(head_dim)·A_j, twice that on tensor cores, which truncate; the product
  with scale · log₂e, that constant and the difference from the maximum: 3u(|s_j| + max|s|);
- exp2 in hardware: 4u. At most one rescale per 16 keys: 6u each, and 2u·max|s| for all the differences of maxima;
- so p_j is off by a factor 1 ± e_j, which moves the result by at most Σ p_j e_j (|v_j| + |out|);
- p_j is rounded to the storage dtype before it meets V (fp16 and bf16): t·Σ p|v|, and in fp16 below its normal
  numbers 2⁻²⁵ each, relative to the running maximum;
- the sums of numerator and denominator: γ(n) each, the division 4u; exp2 flushes below 2⁻¹²⁶;
- one rounding to the output dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gaugeblock.kernels import _extend_attention_hopper as hopper
from gaugeblock.kernels._extend_attention_cases import make, workload
from gaugeblock.kernels._extend_attention_hopper import HopperConfig
from gaugeblock.kernels._extend_attention_triton import Config, launch
from gaugeblock.kernels.arguments import DTYPES, Refused, require_like, require_shape
from gaugeblock.kernels.bounds import TINY, U, gamma, output_bound
from gaugeblock.kernels.contract import Case, Op, Sizes, Tensors
from gaugeblock.kernels.runtime import INTERPRETED

HEAD_DIMS = (64, 128)
TILES = Config(64, 64, 4, 3)
TILES_FP32 = Config(128, 64, 8, 3)
HOPPER = HopperConfig(128, 2)
FEWEST_STEPS = Config(64, 256, 1, 1)  # the interpreter's time goes by operations more than by elements
CONFIGS: tuple[Config | HopperConfig, ...] = (TILES, TILES_FP32, HOPPER, *((FEWEST_STEPS,) * INTERPRETED))
"""Every configuration that :func:`config_for` may choose."""


def config_for(q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor) -> Config | HopperConfig:
    """Return the tile: one for all batches, so that a token's bits depend on nothing but its request.

    On an H100, 2048 new tokens on 8192, 32/8 heads × 128, pages of 16, bf16: the Hopper kernel 664 TFLOP/s (581 with 64
    keys), the Triton kernel 350 (338 with twice the rows), PyTorch's FlashAttention on contiguous K and V 330.
    """
    if INTERPRETED:
        return FEWEST_STEPS
    if hopper.fits(q, k_cache, v_cache):
        return HOPPER
    return TILES_FP32 if q.dtype == torch.float32 else TILES


def extend_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    q_starts: torch.Tensor,
    scale: float,
    *,
    out: torch.Tensor | None = None,
    config: Config | HopperConfig | None = None,
) -> torch.Tensor:
    """Return the attention of each new token, ``[tokens, query heads, head_dim]`` of the dtype of ``q``.

    ``q``: ``[tokens, query heads, head_dim]``, fp32, fp16 or bf16, the requests one behind the other. ``k_cache``,
    ``v_cache``: ``[pages, page_size, KV heads, head_dim]``, any strides with contiguous ``head_dim``. ``block_table``:
    ``[requests, max pages]`` int32. ``seq_lens``: ``[requests]`` int32, keys of each request, the new ones included.
    ``q_starts``: ``[requests + 1]`` int32, where each request's tokens start in ``q``; the last entry is ``tokens``.
    ``scale`` > 0 multiplies the logits. ``out`` takes the result. ``config`` replaces :func:`config_for`.

    Nothing is read on the host, so the call can be captured in a CUDA graph; hence lengths and page numbers aren't
    checked: 0 ≤ q_len ≤ seq_len ≤ max pages · page_size and pages inside the cache are the caller's part.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    require_like("q", {"q": q, "k_cache": k_cache, "v_cache": v_cache, "out": out})
    _require_shapes(q, k_cache, v_cache, out)
    _require_batch(q, block_table, seq_lens, q_starts)
    if not 0 < scale < math.inf:
        raise Refused(f"scale is {scale}, expected a positive number")
    if not q.numel():
        return out
    config = config or config_for(q, k_cache, v_cache)
    if isinstance(config, HopperConfig) and hopper.fits(q, k_cache, v_cache):
        hopper.launch(q, k_cache, v_cache, block_table, seq_lens, q_starts, out, scale, config)
    else:
        config = TILES if isinstance(config, HopperConfig) else config
        launch(q, k_cache, v_cache, block_table, seq_lens, q_starts, out, scale, config)
    return out


def _require_shapes(q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, out: torch.Tensor) -> None:
    if q.dim() != 3 or q.shape[2] not in HEAD_DIMS:
        raise Refused(
            f"q has shape {tuple(q.shape)}, expected [tokens, query heads, {' or '.join(map(str, HEAD_DIMS))}]"
        )
    if k_cache.dim() != 4 or k_cache.shape[3] != q.shape[2]:
        raise Refused(f"k_cache has shape {tuple(k_cache.shape)}, expected [pages, page size, KV heads, {q.shape[2]}]")
    require_shape("v_cache", v_cache, k_cache.shape)
    require_shape("out", out, q.shape)
    if k_cache.shape[2] == 0 or q.shape[1] % k_cache.shape[2] or k_cache.shape[1] == 0:
        raise Refused(f"k_cache has shape {tuple(k_cache.shape)}: its heads must divide q's {q.shape[1]}")
    for name, tensor in (("q", q), ("k_cache", k_cache), ("v_cache", v_cache), ("out", out)):
        if tensor.stride(-1) != 1:
            raise Refused(f"{name} has strides {tensor.stride()}: its last dimension must be contiguous")


def _require_batch(q: torch.Tensor, block_table: torch.Tensor, seq_lens: torch.Tensor, q_starts: torch.Tensor) -> None:
    if seq_lens.dim() != 1 or (len(seq_lens) == 0 and len(q)):
        raise Refused(f"seq_lens has shape {tuple(seq_lens.shape)}, expected [requests]")
    if block_table.dim() != 2 or len(block_table) != len(seq_lens):
        raise Refused(f"block_table has shape {tuple(block_table.shape)}, expected [{len(seq_lens)}, max pages]")
    require_shape("q_starts", q_starts, (len(seq_lens) + 1,))
    for name, tensor in (("block_table", block_table), ("seq_lens", seq_lens), ("q_starts", q_starts)):
        if tensor.dtype != torch.int32:
            raise Refused(f"{name} has dtype {tensor.dtype}, expected torch.int32")
        if tensor.device != q.device:
            raise Refused(f"{name} is on {tensor.device} but q is on {q.device}")
        if tensor.numel() > 1 and tensor.stride(-1) != 1:
            raise Refused(f"{name} has strides {tensor.stride()}: its last dimension must be contiguous")


@dataclass(frozen=True)
class Request:
    """One request of a case with its pages gathered, for the oracle and for the eager baseline."""

    tokens: slice  # in q and in out
    q: torch.Tensor  # [new, query heads, head_dim]
    k: torch.Tensor  # [keys, query heads, head_dim]: KV heads repeated for their groups
    v: torch.Tensor
    visible: torch.Tensor  # [new, keys]


def requests_of(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    q_starts: torch.Tensor,
    *,
    dtype: torch.dtype,
    at_once: int = 64,
) -> Iterator[Request]:
    """Yield every request with new tokens, ``at_once`` of them at most, converted to ``dtype``."""
    page_size, group = k_cache.shape[1], q.shape[1] // k_cache.shape[2]
    begins = q_starts.tolist()
    for request, keys in enumerate(seq_lens.tolist()):
        pages = block_table[request, : -(-keys // page_size)].long()
        k, v = (cache[pages].flatten(0, 1)[:keys].to(dtype) for cache in (k_cache, v_cache))
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        prefix = keys - (begins[request + 1] - begins[request])
        for begin in range(begins[request], begins[request + 1], at_once):
            end = min(begin + at_once, begins[request + 1])
            position = prefix + torch.arange(begin, end, device=q.device) - begins[request]
            visible = torch.arange(keys, device=q.device)[None, :] <= position[:, None]
            yield Request(slice(begin, end), q[begin:end].to(dtype), k, v, visible)


def eager(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    q_starts: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Return the op from PyTorch's unfused kernels, request by request: the baseline of errors and times."""
    out = torch.empty_like(q)
    for r in requests_of(q, k_cache, v_cache, block_table, seq_lens, q_starts, dtype=q.dtype, at_once=max(len(q), 1)):
        logits = torch.matmul(r.q.transpose(0, 1), r.k.permute(1, 2, 0)) * scale  # [heads, new, keys]
        p = logits.masked_fill(~r.visible, -math.inf).softmax(dim=-1)
        out[r.tokens] = torch.matmul(p, r.v.transpose(0, 1)).transpose(0, 1)
    return out


def _probabilities(r: Request, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits, −∞ where a key is not seen, and their softmax, ``[heads, new, keys]`` float64."""
    logits = torch.matmul(r.q.transpose(0, 1), r.k.permute(1, 2, 0)) * scale
    logits = logits.masked_fill(~r.visible, -math.inf)
    return logits, logits.softmax(dim=-1)


def oracle(case: Case) -> Tensors:
    """Return the float64 ``out``; a sum of zeros is +0."""
    out = torch.empty_like(case.inputs["q"], dtype=torch.float64)
    for r in requests_of(*case.inputs.values(), dtype=torch.float64):
        p = _probabilities(r, case.params["scale"])[1]
        out[r.tokens] = torch.matmul(p, r.v.transpose(0, 1)).transpose(0, 1) + 0.0
    return {"out": out}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed error by the model of the module's docstring."""
    slack = torch.empty_like(expected["out"])
    for r in requests_of(*case.inputs.values(), dtype=torch.float64):
        slack[r.tokens] = _slack(r, expected["out"][r.tokens], case.params["scale"], case.dtype)
    return {"out": output_bound(expected["out"], slack, case.dtype)}


def _slack(r: Request, out: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Return the allowed error before the last rounding, ``[new, heads, head_dim]``."""
    narrow = dtype != torch.float32
    head_dim = r.q.shape[-1]
    logits, p = _probabilities(r, scale)
    magnitude = torch.matmul(r.q.abs().transpose(0, 1), r.k.abs().permute(1, 2, 0)) * scale  # A
    size = logits.abs().masked_fill(~r.visible, 0.0)
    seen = r.visible.sum(-1).double()[:, None]  # [new, 1]
    largest = size.amax(-1, keepdim=True)
    error = gamma(2 * head_dim if narrow else head_dim) * magnitude + 3 * U * (size + largest) + 2 * U * largest
    factor = torch.expm1(error + 4 * U + 6 * U * (seen / 16 + 1))
    v, out = r.v.abs().transpose(0, 1), out.abs().transpose(0, 1)  # [heads, keys or new, head_dim]
    mean = torch.matmul(p, v)  # Σ p|v|
    moved = torch.matmul(p * factor, v) + (p * factor).sum(-1, keepdim=True) * out
    p_rounded = torch.finfo(dtype).eps / 2 * mean * (1 + factor.amax()) if narrow else 0.0
    sums = 1.001 * U * (seen + 4) * (mean + out)
    weight = torch.exp(logits - logits.amax(-1, keepdim=True)).sum(-1, keepdim=True)  # the denominator, ≥ 1
    lost = 2.0**-25 if dtype == torch.float16 else 2.0**-126
    below = torch.matmul(r.visible.double(), v) * lost / weight + (seen + 4) * TINY
    return (moved + p_rounded + sums + below).transpose(0, 1)


def take(case: Case, start: int, stop: int) -> tuple[Case, slice]:
    """Return the case of some requests and where their tokens lie in ``out``; the caches stay whole."""
    inputs = dict(case.inputs)
    begins = inputs["q_starts"][start : stop + 1]
    where = slice(int(begins[0]), int(begins[-1]))
    inputs["q"] = inputs["q"][where]
    inputs["q_starts"] = begins - begins[0]
    for name in ("block_table", "seq_lens"):
        inputs[name] = inputs[name][start:stop]
    return Case(f"{case.label} requests {start}…{stop - 1}", case.dtype, inputs, case.params), where


def visible_keys(case: Case) -> int:
    """Return how many keys all new tokens see together."""
    new = case.inputs["q_starts"].long().diff()
    kv = case.inputs["seq_lens"].long()
    return int((new * (kv - new) + new * (new + 1) // 2).sum())


def config_fits(case: Case, config: Config | HopperConfig) -> bool:
    """Return whether a configuration runs a case, and no other in its place."""
    q, k_cache, v_cache = (case.inputs[name] for name in ("q", "k_cache", "v_cache"))
    return isinstance(config, Config) or hopper.fits(q, k_cache, v_cache)


def bytes_moved(case: Case) -> int:
    """Return the bytes of q, of every request's K and V, and of the result."""
    q, k_cache = case.inputs["q"], case.inputs["k_cache"]
    keys = int(case.inputs["seq_lens"].sum())
    return 2 * q.nbytes + 2 * keys * k_cache.shape[2] * k_cache.shape[3] * k_cache.itemsize


SHAPES: tuple[dict[str, int], ...] = (
    ({"rows": 3, "size": 300, "heads": 8, "kv_heads": 2, "head_dim": 128, "chunk": 70},)
    if INTERPRETED
    else (
        {"rows": 5, "size": 8193, "heads": 32, "kv_heads": 8, "head_dim": 128, "chunk": 2049},
        {"rows": 3, "size": 4097, "heads": 8, "kv_heads": 1, "head_dim": 64, "chunk": 4097},
    )
)
"""Served shapes: heads of Llama models, a chunk of many tiles on a long prefix, and a prompt at once."""


CONTRACT = Op(
    name="extend_attention",
    signature="extend_attention(q, k_cache, v_cache, block_table, seq_lens, q_starts, scale, *, out=None) -> out",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    outs={"out": "out"},
    dtypes=DTYPES,
    row_inputs=("q", "block_table", "seq_lens"),
    tied=("q", "k_cache", "v_cache"),
    kinds=("normal", "small", "scaled", "large", "offset", "denormal", "zeros", "rising", "peaked"),
    variants=(
        {},
        {"heads": 3, "kv_heads": 1, "head_dim": 128, "page_size": 1},
        {"heads": 2, "kv_heads": 2, "head_dim": 64, "page_size": 64},
        {"heads": 4, "kv_heads": 1, "head_dim": 128, "page_size": 16},
    ),
    sizes=Sizes(usual=600, long=2049) if INTERPRETED else Sizes(),  # tiles of 256 keys there
    paged=True,
    configs=CONFIGS,
    fits=config_fits,
    shapes=SHAPES,
    take=take,
    eager=eager,
    kernel=extend_attention,
    bytes_moved=bytes_moved,
    flops=lambda case: 4 * case.inputs["q"].shape[1] * case.inputs["q"].shape[2] * visible_keys(case),
)
