"""The two Triton kernels of :mod:`gaugeblock.kernels.decode_attention`: one split of a context, and the merge."""

from __future__ import annotations

from functools import partial

from gaugeblock.kernels.rounding import rounded, widened
from gaugeblock.kernels.runtime import INTERPRETED, add, inline, jit, maximum, tl
from gaugeblock.kernels.special import exp_of as _exp

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global

_ONCE = (  # read or written once a program: no wide access is worth another compilation
    "q_ptr", "table_ptr", "lens_ptr", "out_ptr", "q_request", "q_head", "table_request", "out_request", "out_head",
    "kv_heads", "query_heads", "splits",
)  # fmt: skip
_jit = partial(jit, do_not_specialize=_ONCE)  # type: ignore[call-arg] # triton.jit's own: one binary for all of them


@inline
def _product(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return ``a @ b`` in fp32 (the interpreter multiplies the bit patterns of bf16)."""
    if _INTERPRETED:
        return tl.dot(widened(a), widened(b), input_precision="ieee")
    else:  # noqa: RET505 # Triton compiles both branches of what does not end in else
        return tl.dot(a, b, input_precision="ieee")


@inline
def _scores(q: tl.tensor, keys: tl.tensor, col: tl.tensor, COLS: tl.constexpr) -> tl.tensor:  # noqa: N803 # Triton's constants are written in capitals
    """Return ``q @ keys`` in fp32.

    Of fp32 in two halves of the head: a product of fp32 adds one column after the other, and the error of a score grows
    with the number of columns in a row (fused multiply-adds of the other half's zeros do not round).
    """
    if q.dtype == tl.float32 and not _INTERPRETED:
        first = _product(tl.where((col < COLS // 2)[None, :], q, 0.0), keys)
        second = _product(tl.where((col < COLS // 2)[None, :], 0.0, q), keys)
        one = tl.full(first.shape, 1.0, tl.float32)  # a plain sum would be folded into one chain again
        return tl.fma(first, one, second)
    else:  # noqa: RET505 # Triton compiles both branches of what does not end in else
        return _product(q, keys)


@inline
def _rescaled_plus(sums: tl.tensor, factor: tl.tensor, product: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Return ``sums * factor + product``.

    Of fp32 by an FMA: Triton folds a plain sum into the product, which then adds one token after the other over the
    whole split, with twice the error of a blocked sum.
    """
    if dtype == tl.float32 and not _INTERPRETED:
        return tl.fma(sums, tl.broadcast_to(factor, sums.shape), product)
    else:  # noqa: RET505 # Triton compiles both branches of what does not end in else
        return sums * factor + product


@inline
def _tokens_per_split(length: tl.tensor, SPLIT: tl.constexpr, MAX_SPLITS: tl.constexpr) -> tl.tensor:  # noqa: N803 # Triton's constants are written in capitals
    """Return how many tokens of a context one program takes: a multiple of SPLIT that depends on nothing else."""
    return tl.maximum((length + SPLIT * MAX_SPLITS - 1) // (SPLIT * MAX_SPLITS), 1) * SPLIT


@_jit
def _split_kernel(
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    table_ptr: tl.tensor,
    lens_ptr: tl.tensor,
    out_ptr: tl.tensor,
    sums_ptr: tl.tensor,  # [requests, splits, query heads, DIM]: Σ p·v, not divided yet
    stats_ptr: tl.tensor,  # [requests, splits, query heads, 2]: the largest score and Σ p
    scale: tl.tensor,
    q_request: tl.tensor,  # strides, in elements
    q_head: tl.tensor,
    k_page: tl.tensor,
    k_slot: tl.tensor,
    k_head: tl.tensor,
    v_page: tl.tensor,
    v_slot: tl.tensor,
    v_head: tl.tensor,
    table_request: tl.tensor,
    out_request: tl.tensor,
    out_head: tl.tensor,
    kv_heads: tl.tensor,
    splits: tl.tensor,
    GROUP: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    ROWS: tl.constexpr,  # noqa: N803 # the same
    DIM: tl.constexpr,  # noqa: N803 # the same
    COLS: tl.constexpr,  # noqa: N803 # the same
    PAGE: tl.constexpr,  # noqa: N803 # the same
    ALIKE: tl.constexpr,  # noqa: N803 # the same; whether K and V have the same strides
    TILE: tl.constexpr,  # noqa: N803 # the same
    SPLIT: tl.constexpr,  # noqa: N803 # the same
    MAX_SPLITS: tl.constexpr,  # noqa: N803 # the same
) -> None:
    program = tl.program_id(0)  # neighbours share tokens, so that all heads of a page are read together
    kv_head = program % kv_heads
    split = program // kv_heads % splits
    request = (program // kv_heads // splits).to(tl.int64)
    length = tl.load(lens_ptr + request)
    span = _tokens_per_split(length, SPLIT, MAX_SPLITS)
    begin = split * span
    if (begin >= length) & (split > 0):  # an empty context still gets its zeros from split 0
        return
    end = tl.minimum(begin + span, length)

    row = tl.arange(0, ROWS)  # the query heads of this KV head, padded to what a tensor core takes
    col = tl.arange(0, COLS)
    heads = kv_head * GROUP + row
    live = (row < GROUP)[:, None] & (col < DIM)[None, :]  # [ROWS, COLS]
    q_at = q_ptr + request * q_request + heads[:, None] * q_head + col[None, :]
    q = tl.load(q_at, mask=live, other=0.0)

    largest = tl.full([ROWS], float("-inf"), tl.float32)
    weights = tl.full([ROWS, TILE], 0.0, tl.float32)  # Σ p of each column; summed over the columns once, at the end
    sums = tl.full([ROWS, COLS], 0.0, tl.float32)
    table_at = table_ptr + request * table_request
    first = begin + tl.arange(0, TILE)
    next_page = tl.load(table_at + first // PAGE, mask=first < end, other=0)
    for start in range(begin, end, TILE):
        token = start + tl.arange(0, TILE)
        inside = token < end
        page = next_page.to(tl.int64)  # loaded one step ahead, so that no load of K or V waits for it
        ahead = token + TILE
        next_page = tl.load(table_at + ahead // PAGE, mask=ahead < end, other=0)
        slot = token % PAGE
        valid = inside[:, None] & (col < DIM)[None, :]  # [TILE, COLS]
        k_at = (page * k_page + slot * k_slot + kv_head * k_head)[:, None] + col[None, :]
        v_at = k_at if ALIKE else (page * v_page + slot * v_slot + kv_head * v_head)[:, None] + col[None, :]
        k = tl.load(k_ptr + k_at, mask=valid, other=0.0)
        scores = _scores(q, tl.trans(k), col, COLS) * scale  # [ROWS, TILE]
        scores = tl.where(inside[None, :], scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.reduce(scores, 1, maximum))
        p = _exp(scores - new_largest[:, None], k_ptr.dtype.element_ty)
        shrink = _exp(largest - new_largest, k_ptr.dtype.element_ty)
        v = tl.load(v_ptr + v_at, mask=valid, other=0.0)  # masked too: a weight of zero times NaN would be NaN
        weights = weights * shrink[:, None] + p
        sums = _rescaled_plus(sums, shrink[:, None], _product(rounded(p, v_ptr.dtype.element_ty), v), v.dtype)
        largest = new_largest
    total = tl.reduce(weights, 1, add)

    if length > span:
        at = (request * splits + split) * (kv_heads * GROUP) + heads  # [ROWS]
        tl.store(sums_ptr + at[:, None] * DIM + col[None, :], sums, mask=live)
        tl.store(stats_ptr + at * 2, largest, mask=row < GROUP)
        tl.store(stats_ptr + at * 2 + 1, total, mask=row < GROUP)
    else:
        result = sums / tl.where(length > 0, total, 1.0)[:, None]
        out_at = out_ptr + request * out_request + heads[:, None] * out_head + col[None, :]
        tl.store(out_at, rounded(result, out_ptr.dtype.element_ty), mask=live)


@_jit
def _merge_kernel(
    lens_ptr: tl.tensor,
    out_ptr: tl.tensor,
    sums_ptr: tl.tensor,
    stats_ptr: tl.tensor,
    out_request: tl.tensor,
    out_head: tl.tensor,
    query_heads: tl.tensor,
    splits: tl.tensor,
    DIM: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    COLS: tl.constexpr,  # noqa: N803 # the same
    SPLIT: tl.constexpr,  # noqa: N803 # the same
    MAX_SPLITS: tl.constexpr,  # noqa: N803 # the same
    HEADS: tl.constexpr,  # noqa: N803 # the same
    STEP: tl.constexpr,  # noqa: N803 # the same
) -> None:
    blocks = (query_heads + HEADS - 1) // HEADS
    request = (tl.program_id(0) // blocks).to(tl.int64)
    length = tl.load(lens_ptr + request)
    span = _tokens_per_split(length, SPLIT, MAX_SPLITS)
    if length <= span:  # one split wrote the result itself
        return
    used = (length + span - 1) // span

    head = tl.program_id(0) % blocks * HEADS + tl.arange(0, HEADS)
    col = tl.arange(0, COLS)
    largest = tl.full([STEP, HEADS], float("-inf"), tl.float32)
    for start in range(0, used, STEP):
        split = start + tl.arange(0, STEP)
        at = ((request * splits + split) * query_heads)[:, None] + head[None, :]  # [STEP, HEADS]
        here = (split < used)[:, None] & (head < query_heads)[None, :]
        largest = tl.maximum(largest, tl.load(stats_ptr + at * 2, mask=here, other=float("-inf")))
    overall = tl.reduce(largest, 0, maximum)  # [HEADS]
    totals = tl.full([STEP, HEADS], 0.0, tl.float32)
    sums = tl.full([STEP, HEADS, COLS], 0.0, tl.float32)
    for start in range(0, used, STEP):
        split = start + tl.arange(0, STEP)
        at = ((request * splits + split) * query_heads)[:, None] + head[None, :]
        here = (split < used)[:, None] & (head < query_heads)[None, :]
        factor = tl.exp(tl.load(stats_ptr + at * 2, mask=here, other=float("-inf")) - overall[None, :])
        totals += factor * tl.load(stats_ptr + at * 2 + 1, mask=here, other=0.0)
        live = here[:, :, None] & (col < DIM)[None, None, :]
        part = tl.load(sums_ptr + at[:, :, None] * DIM + col[None, None, :], mask=live, other=0.0)
        sums += factor[:, :, None] * part  # [STEP, HEADS, COLS]
    result = tl.reduce(sums, 0, add) / tl.reduce(totals, 0, add)[:, None]  # [HEADS, COLS]
    out_at = out_ptr + request * out_request + head[:, None] * out_head + col[None, :]
    live = (head < query_heads)[:, None] & (col < DIM)[None, :]
    tl.store(out_at, rounded(result, out_ptr.dtype.element_ty), mask=live)
