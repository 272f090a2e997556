"""Paged decode attention: one query token of each request attends to the whole context of that request.

For each request and query head, ``out = Σⱼ pⱼ vⱼ`` with ``p = softmax(scale · q·k)`` over the tokens j < seq_len. A
query head h reads the KV head ``h // (query heads / KV heads)`` (grouped queries). Token j of request r lies in slot
``j % page_size`` of page ``block_table[r, j // page_size]``; a page holds all heads of its tokens,
``[pages, page_size, KV heads, head_dim]`` (SGLang's and flashinfer's NHD). Nothing else is read: table entries beyond
the last page, slots beyond the last token and pages of nobody may hold anything, NaN too. An empty context gives zeros.

Each byte of K and V is used for a handful of products, so the time is that of reading them. One program takes one KV
head and up to ``split`` tokens of one request, with all query heads of the group as the rows of one small product, so
that K and V are read once. It keeps a running maximum m, Σ exp(s − m) and Σ exp(s − m) v (online softmax: Milakov &
Gimelshein 2018, arXiv:1805.02867). Where a context has more than one split, a second kernel weighs the parts by
exp(mᵢ − max m) (Flash-Decoding: Dao et al. 2023). The number of tokens a split depends on the request's own length
alone, hence so do the bits of its result, and no length is read on the host: a CUDA graph replays with new lengths.

Error model (u = 2⁻²⁴, γ(k) = k·u/(1 − k·u), A = Σ p|v|, S = max |s|; products of 16-bit numbers are exact in fp32).

- A score is a sum of D products: γ(D) Σ|q||k|·scale, twice that for 16-bit inputs, as tensor cores truncate where fp32
  units round. The rounded scale and the product with it: 2u|s|. exp(s − m) is 2^((s − m)·log₂e): the subtraction, the
  rounded constant and the product add 3u(|s| + S), the hardware's exp2 4u; each later rescaling by exp(m − m′) adds 4u,
  and the arguments of all of them 3u·2S. So an exponent is off by e, and a weight, in numerator and denominator, by a
  factor of exp(±e): Σ p(exp(e) − 1)|v − out| · exp(max e).
- P is rounded to the storage dtype for its product with V: u_dtype·A, and half of the dtype's smallest number times
  Σ|v|, as small weights become subnormal. In fp32 nothing is rounded here.
- The sums over tokens are made in blocks of up to 128 tokens, then over blocks, with one product by the rescaling each:
  γ(128 + 3·blocks) of A, once for Σ p·v (twice for 16-bit) and once for Σ p. The division adds 4u, the merge 3u.
- Below 2⁻¹²⁶ exp2 gives zero, and fp32 products lose TINY each: n·(2⁻¹²⁶ max|v| + TINY).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gaugeblock.kernels._decode_attention_kernels import _merge_kernel, _split_kernel
from gaugeblock.kernels.arguments import DTYPES, Refused, require_like, require_shape
from gaugeblock.kernels.bounds import TINY, U, gamma, output_bound
from gaugeblock.kernels.cases import fill, normal
from gaugeblock.kernels.contract import Case, Op, Sizes, Tensors
from gaugeblock.kernels.runtime import INTERPRETED, next_power_of_two, quiet

MAX_HEAD_DIM = 256
MAX_GROUP = 128  # query heads a KV head
MAX_SPLITS = 64  # of one context; longer contexts get longer splits


@dataclass(frozen=True)
class Config:
    """``tile_bytes`` of K a step, tokens a split (a multiple of any tile), warps, and stages of the load pipeline."""

    tile_bytes: int
    split: int
    warps: int
    stages: int

    def tile(self, row_bytes: int) -> int:
        """Return the tokens a step for heads of ``row_bytes``, padded to a power of two."""
        return max(32, min(self.split, self.tile_bytes // row_bytes))


CONFIGS = (
    Config(16384, 1024, 4, 3),
    Config(16384, 1024, 8, 2),
    Config(8192, 512, 4, 4),
    Config(32768, 1024, 8, 2),
)
FEWEST_STEPS = Config(1 << 20, 256, 4, 2)  # for the interpreter


def config_for(dtype: torch.dtype) -> Config:
    """Return the configuration for a dtype: never by the batch, whose size must not show.

    The split is the choice: short ones keep all of a GPU busy with one request, long ones spare the parts' way through
    memory. On an H100, bf16, 32/8 heads × 128, with 256, 512, 1024 and 2048 tokens: 64 requests of 8192 run at .94,
    .967, .983 and .988 of a copy's rate, one request of 8192 takes 22, 21, 26 and 43 µs. Tiles, warps and stages hardly
    matter. Merging in the last program of a context, found by a counter, was no faster than the second kernel.
    """
    if INTERPRETED:
        return FEWEST_STEPS
    return CONFIGS[1 if dtype == torch.float32 else 0]  # exact fp32 products take many registers


def decode_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    *,
    out: torch.Tensor | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """Return attention of one query token a request, ``[requests, query heads, head_dim]`` of the dtype of ``q``.

    ``q``: ``[requests, query heads, head_dim ≤ 256]``, fp32, fp16 or bf16. ``k_cache``, ``v_cache``: ``[pages,
    page_size, KV heads, head_dim]`` of that dtype, each with a contiguous last dimension. ``block_table``: int32
    ``[requests, width]``, of which row r's first ⌈seq_lens[r] / page_size⌉ entries must be pages. ``seq_lens``: int32
    ``[requests]``, 0 … width · page_size. ``scale``: what scores are multiplied by. ``out`` takes the result.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    _require(q, k_cache, v_cache, block_table, seq_lens, out)
    if q.numel():
        chosen = config or config_for(q.dtype)
        _launch(_inner(q), k_cache, v_cache, block_table, seq_lens.contiguous(), scale, out, chosen)
    return out


def _require(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
) -> None:
    if q.dim() != 3 or not 1 <= q.shape[2] <= MAX_HEAD_DIM:
        raise Refused(f"q has shape {tuple(q.shape)}, expected [requests, query heads, head_dim ≤ {MAX_HEAD_DIM}]")
    requests, heads, dim = q.shape
    require_like("q", {"q": q, "k_cache": k_cache, "v_cache": v_cache, "out": out})
    if k_cache.dim() != 4 or k_cache.shape[1] < 1 or k_cache.shape[3] != dim:
        raise Refused(f"k_cache has shape {tuple(k_cache.shape)}, expected [pages, page_size, KV heads, {dim}]")
    kv_heads = k_cache.shape[2]
    if kv_heads < 1 or heads % kv_heads or heads // kv_heads > MAX_GROUP:
        raise Refused(f"q has {heads} heads, no multiple (up to {MAX_GROUP}) of k_cache's {kv_heads}")
    require_shape("v_cache", v_cache, k_cache.shape)
    require_shape("out", out, q.shape)
    require_shape("seq_lens", seq_lens, (requests,))
    if block_table.dim() != 2 or block_table.shape[0] != requests:
        raise Refused(f"block_table has shape {tuple(block_table.shape)}, expected [{requests}, width]")
    for name, tensor in (("block_table", block_table), ("seq_lens", seq_lens)):
        if tensor.dtype != torch.int32 or tensor.device != q.device:
            raise Refused(f"{name} is {tensor.dtype} on {tensor.device}, expected torch.int32 on {q.device}")
    for name, tensor in (("k_cache", k_cache), ("v_cache", v_cache), ("out", out)):
        if dim > 1 and tensor.stride(-1) != 1:
            raise Refused(f"{name} has strides {tensor.stride()}: its last dimension must be contiguous")


def _inner(tensor: torch.Tensor) -> torch.Tensor:
    """Return a small input with a contiguous last dimension, copied where it has another."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _launch(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    out: torch.Tensor,
    config: Config,
) -> None:
    requests, heads, dim = q.shape
    page_size, kv_heads = k_cache.shape[1:3]
    table = _inner(block_table) if block_table.numel() else block_table.new_zeros((requests, 1))
    splits = min(MAX_SPLITS, max(1, -(-table.shape[1] * page_size // config.split)))
    parts = requests * splits * heads if splits > 1 else 0
    sums = torch.empty((parts, dim), dtype=torch.float32, device=q.device)
    stats = torch.empty((parts, 2), dtype=torch.float32, device=q.device)
    cols = next_power_of_two(max(dim, 16))
    shared = {"DIM": dim, "COLS": cols, "SPLIT": config.split, "MAX_SPLITS": MAX_SPLITS}
    with quiet():
        _split_kernel[(requests * splits * kv_heads,)](
            q,
            k_cache,
            v_cache,
            table,
            seq_lens,
            out,
            sums,
            stats,
            scale,
            *q.stride()[:2],
            *k_cache.stride()[:3],
            *v_cache.stride()[:3],
            table.stride(0),
            *out.stride()[:2],
            kv_heads,
            splits,
            GROUP=heads // kv_heads,
            ROWS=max(16, next_power_of_two(heads // kv_heads)),
            PAGE=page_size,
            ALIKE=k_cache.stride() == v_cache.stride(),
            TILE=config.tile(cols * q.element_size()),
            num_warps=config.warps,
            num_stages=config.stages,
            **shared,
        )
        if splits > 1:
            block = next_power_of_two(heads) if INTERPRETED else 1
            _merge_kernel[(requests * -(-heads // block),)](
                seq_lens,
                out,
                sums,
                stats,
                *out.stride()[:2],
                heads,
                splits,
                HEADS=block,
                STEP=4,
                num_warps=1,
                **shared,
            )


def eager(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Return the op from PyTorch's own kernels, the baseline of errors and times: gather, then attention in steps.

    Scores and softmax are fp32, P is rounded to the dtype of V, as in the models of transformers.
    """
    requests, heads, dim = q.shape
    kv_heads = k_cache.shape[2]
    tokens = torch.arange(block_table.shape[1] * k_cache.shape[1], device=q.device)
    outside = tokens[None, :] >= seq_lens[:, None]  # [requests, tokens]
    shape = (requests, -1, kv_heads, dim)
    k = k_cache[block_table].view(shape).masked_fill(outside[:, :, None, None], 0).transpose(1, 2)
    v = v_cache[block_table].view(shape).masked_fill(outside[:, :, None, None], 0).transpose(1, 2)
    grouped = q.reshape(requests, kv_heads, heads // kv_heads, dim)
    scores = grouped.float() @ k.float().transpose(2, 3) * scale  # [requests, KV heads, group, tokens]
    scores = scores.masked_fill(outside[:, None, None, :], -math.inf)
    p = torch.softmax(scores, dim=-1).masked_fill(outside[:, None, None, :], 0)  # an empty context has NaN
    return (p.to(v.dtype) @ v).reshape(q.shape)


def make(
    rows: int,
    size: int,
    dtype: torch.dtype,
    seed: int = 0,
    kind: str = "normal",
    *,
    heads: tuple[int, int] = (8, 2),
    head_dim: int = 64,
    page_size: int = 16,
) -> Case:
    """Return ``rows`` requests, the first with ``size`` tokens, the others with 1 … ``size``.

    Their pages are shuffled among each other; every slot of no request, and three whole pages, are NaN, and the spare
    entries of the table point at those. Scores have a deviation of 3, so that no mean of V passes. ``large`` has
    scores beyond ±88, where exp overflows, ``negative`` all below −50000; ``small`` has equal weights; ``scaled``,
    ``offset``, ``denormal`` and ``zeros`` are values of V. ``empty``: every second context is empty.
    """
    query_heads, kv_heads = heads
    generator = torch.Generator().manual_seed(seed)
    lens = torch.randint(1, size + 1, (rows,), generator=generator)
    lens[:1] = size
    if kind == "empty":
        lens[::2] = 0
    table, at, pages = _place(lens, size, page_size, generator)
    tokens = int(lens.sum())
    spread = {"large": 60.0, "small": 1e-3}.get(kind, 3.0)
    q = spread * normal(rows * query_heads, head_dim, 3 * seed)
    k = normal(tokens, kv_heads * head_dim, 3 * seed + 1)
    if kind == "negative":
        q, k = q + 30, k - 300
    v = _values(kind, lens, kv_heads * head_dim, dtype, 3 * seed + 2)
    shape = (pages, page_size, kv_heads, head_dim)
    inputs = {
        "q": q.to(dtype).view(rows, query_heads, head_dim),
        "k_cache": _scatter(k.to(dtype), at, shape),
        "v_cache": _scatter(v, at, shape),
        "block_table": table,
        "seq_lens": lens.to(torch.int32),
    }
    form = f"heads {query_heads}/{kv_heads} × {head_dim}, pages of {page_size}"
    label = f"decode_attention {rows} × {size} tokens, {form}, {dtype} {kind} seed {seed}"
    return Case(label, dtype, inputs, {"scale": head_dim**-0.5})


def _place(
    lens: torch.Tensor, size: int, page_size: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return the block table, the flat slot of each token (requests one after the other), and the number of pages."""
    needed = (lens + page_size - 1) // page_size
    spare = 3
    pages = int(needed.sum()) + spare
    order = torch.randperm(pages, generator=generator)
    width = -(-size // page_size) + 2
    table = order[torch.randint(0, spare, (len(lens), width), generator=generator)]
    used = torch.arange(width)[None, :] < needed[:, None]
    table[used] = order[spare:]
    request = torch.repeat_interleave(torch.arange(len(lens)), lens)
    position = torch.arange(len(request)) - (lens.cumsum(0) - lens)[request]
    at = table[request, position // page_size] * page_size + position % page_size
    return table.to(torch.int32), at, pages


def _values(kind: str, lens: torch.Tensor, columns: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return V's ``[tokens, columns]``; ``scaled`` has one power of two a request."""
    tokens = int(lens.sum())
    if kind != "scaled":
        return fill(
            kind if kind in ("small", "offset", "denormal", "zeros") else "normal", tokens, columns, dtype, seed
        )
    scales = fill("scaled", len(lens), 1, dtype, seed).double().abs().log2().round().exp2()
    return (normal(tokens, columns, seed) * torch.repeat_interleave(scales[:, 0], lens)[:, None]).to(dtype)


def _scatter(values: torch.Tensor, at: torch.Tensor, shape: tuple[int, int, int, int]) -> torch.Tensor:
    """Return a cache of NaN that holds ``values`` in the slots ``at``."""
    cache = torch.full((shape[0] * shape[1], shape[2] * shape[3]), math.nan, dtype=values.dtype)
    cache[at] = values
    return cache.view(shape)


def workload(
    device: str,
    dtype: torch.dtype,
    *,
    rows: int = 64,
    size: int = 8192,
    heads: tuple[int, int] = (32, 8),
    head_dim: int = 128,
    page_size: int = 16,
) -> Case:
    """Return ``rows`` requests of ``size`` tokens each, in pages shuffled over the whole cache, made on the device."""
    query_heads, kv_heads = heads
    width = -(-size // page_size)
    shape = (rows * width, page_size, kv_heads, head_dim)
    inputs = {
        "q": torch.randn(rows, query_heads, head_dim, device=device).to(dtype),
        "k_cache": torch.empty(shape, dtype=dtype, device=device).normal_(),
        "v_cache": torch.empty(shape, dtype=dtype, device=device).normal_(),
        "block_table": torch.randperm(rows * width, device=device).view(rows, width).to(torch.int32),
        "seq_lens": torch.full((rows,), size, dtype=torch.int32, device=device),
    }
    form = f"heads {query_heads}/{kv_heads} × {head_dim}, pages of {page_size}"
    return Case(f"{rows} × {size} tokens, {form}", dtype, inputs, {"scale": head_dim**-0.5})


@dataclass(frozen=True)
class _Attended:
    """One request in float64; ``q`` ``[KV heads, group, D]``, ``k`` and ``v`` ``[KV heads, n, D]``."""

    request: int
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scores: torch.Tensor  # [KV heads, group, n]

    @property
    def p(self) -> torch.Tensor:
        """The weights, ``[KV heads, group, n]``."""
        return torch.softmax(self.scores, dim=-1)


def _attended(case: Case) -> Iterator[_Attended]:
    """Yield the requests that have a context."""
    q, k_cache, v_cache, table, lens = case.inputs.values()
    page_size, kv_heads = k_cache.shape[1:3]
    for request, n in enumerate(lens.tolist()):
        if n == 0:
            continue
        pages = table[request, : -(-n // page_size)].long()
        k, v = (cache[pages].flatten(0, 1)[:n].double().transpose(0, 1) for cache in (k_cache, v_cache))
        grouped = q[request].double().reshape(kv_heads, -1, q.shape[2])
        yield _Attended(request, grouped, k, v, grouped @ k.transpose(1, 2) * case.params["scale"])


def oracle(case: Case) -> Tensors:
    """Return the float64 ``out``. An exact zero is +0."""
    out = torch.zeros(case.inputs["q"].shape, dtype=torch.float64, device=case.inputs["q"].device)
    for one in _attended(case):
        out[one.request] = (one.p @ one.v).flatten(0, 1)
    return {"out": out + 0.0}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return the allowed error by the model of the module's docstring."""
    slack = torch.zeros_like(expected["out"])
    for one in _attended(case):
        out = expected["out"][one.request].view(one.q.shape)
        slack[one.request] = _slack(one, out, case.dtype, abs(case.params["scale"])).flatten(0, 1)
    return {"out": output_bound(expected["out"], slack, case.dtype)}


def _slack(one: _Attended, out: torch.Tensor, dtype: torch.dtype, scale: float) -> torch.Tensor:
    """Return how far ``out`` ``[KV heads, group, D]`` may be off before its rounding."""
    tokens, dim = one.k.shape[1:]
    narrow = dtype != torch.float32
    blocks = -(-tokens // 32)
    largest = one.scores.abs().amax(dim=-1, keepdim=True)  # [KV heads, group, 1]
    products = one.q.abs() @ one.k.abs().transpose(1, 2) * scale  # [KV heads, group, n]
    exponent = gamma((2 if narrow else 1) * dim) * products + U * (5 * one.scores.abs() + 9 * largest + 4 + 4 * blocks)
    wrong = one.p * torch.expm1(exponent) * exponent.amax(-1, keepdim=True).exp()
    distance = (one.v[:, None] - out[:, :, None]).abs()  # [KV heads, group, n, D]
    slack = (wrong[:, :, None] @ distance)[:, :, 0]
    absolute = one.p @ one.v.abs()  # A
    if narrow:
        info = torch.finfo(dtype)
        slack += info.eps / 2 * absolute + info.smallest_normal * info.eps / 2 * one.v.abs().sum(1)[:, None, :]
    chain = min(tokens, 128) + 3 * blocks
    slack += (gamma((2 if narrow else 1) * chain) + gamma(chain) + 7 * U) * absolute
    return slack + tokens * (2.0**-126 * one.v.abs().amax(dim=1)[:, None, :] + TINY)


def bytes_moved(case: Case) -> int:
    """Return the bytes of all contexts' K and V, of q, the used entries of the table, the lengths and the output."""
    q, k_cache, _, _, lens = case.inputs.values()
    tokens = int(lens.sum())
    entries = int(((lens + k_cache.shape[1] - 1) // k_cache.shape[1]).sum())
    kv = 2 * tokens * k_cache.shape[2] * k_cache.shape[3] * k_cache.element_size()
    return kv + 2 * q.numel() * q.element_size() + 4 * (entries + len(lens))


def flops(case: Case) -> int:
    """Return the products and additions of both products, and five a score for the softmax."""
    q = case.inputs["q"]
    return int(case.inputs["seq_lens"].sum()) * q.shape[1] * (4 * q.shape[2] + 5)


SHAPES: tuple[dict[str, Any], ...] = (
    ({"rows": 1, "size": 16500, "heads": (2, 1), "head_dim": 16, "page_size": 64},)  # more than 64 splits of 256
    if INTERPRETED
    else (
        {"rows": 9, "size": 8193, "heads": (32, 8), "head_dim": 128},
        {"rows": 129, "size": 300, "heads": (32, 8), "head_dim": 128},
        {"rows": 1, "size": 70001, "heads": (8, 1), "head_dim": 128},  # more than 64 splits of 1024
    )
)
"""Served shapes: heads of Llama models, many contexts, long ones, and one that gets longer splits."""


CONTRACT = Op(
    name="decode_attention",
    signature="decode_attention(q, k_cache, v_cache, block_table, seq_lens, scale, *, out=None, config=None) -> out",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    outs={"out": "out"},
    dtypes=DTYPES,
    row_inputs=("q", "block_table", "seq_lens"),
    eager=eager,
    kernel=decode_attention,
    bytes_moved=bytes_moved,
    flops=flops,
    kinds=("normal", "small", "scaled", "offset", "denormal", "large", "zeros", "negative", "empty"),
    variants=(
        {},
        {"heads": (2, 2), "head_dim": 80, "page_size": 1},
        {"heads": (3, 1), "head_dim": 128, "page_size": 64},
    ),
    sizes=Sizes(small=32, odd=63, usual=200, long=513 if INTERPRETED else 2049),  # several splits
    tied=("k_cache", "v_cache"),
    invariance="rows",
    paged=True,
    shapes=SHAPES,
    configs=(*CONFIGS, FEWEST_STEPS) if INTERPRETED else CONFIGS,
)
