"""The two kernels of :mod:`gaugeblock.kernels.sampling`: maxima of groups, then one program a row that draws.

Probabilities are compared by their bits (for p > 0 the order of fp32 is the order of its bit patterns as integers) and
summed as integers: ``p·2ˢ`` with 2ˢ·max in [2⁴², 2⁴³). Integer sums are the same in every order, so that kept set and
token depend on no tile, split or batch size.

``_maxima_kernel`` splits each row over programs and keeps the largest value of each *group* of ``DEPTH`` tokens. The
threshold of the maxima alone is at most that of the row, since removing tokens only removes mass and rank above. So the
groups whose maximum reaches it hold every kept token, and for the usual narrow kept set those are few:
``_draw_kernel`` gathers them, and only where they are more than ``SLOTS`` it searches the whole row.
"""

from __future__ import annotations

from functools import partial

from gaugeblock.kernels.runtime import add, inline, jit, maximum, tl

launchable = partial(jit, do_not_specialize=("rows",))  # type: ignore[call-arg] # of triton.jit: one binary for any batch


@inline
def _bits(probs_ptr: tl.tensor, row: tl.tensor, stride: tl.tensor, col: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """Return probabilities as ordered integers; 0 for what is outside, ≤ 0, infinite or NaN."""
    bits = tl.load(probs_ptr + row * stride + col, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    return tl.where((bits > 0) & (bits < 0x7F800000), bits, 0)


@inline
def _mass(bits: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """Return probabilities in integer units."""
    return (bits.to(tl.float32, bitcast=True) * scale).to(tl.int64)


@launchable
def _maxima_kernel(
    probs_ptr: tl.tensor,
    maxima_ptr: tl.tensor,
    rows: tl.tensor,
    vocab: tl.tensor,
    stride: tl.tensor,
    scratch: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # the same
    LANES: tl.constexpr,  # noqa: N803 # the same
    DEPTH: tl.constexpr,  # noqa: N803 # the same
) -> None:
    split = tl.program_id(1)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]  # [ROWS, 1]
    lane = tl.arange(0, LANES)[None, :]  # [1, LANES]
    best = tl.zeros((ROWS, LANES), tl.int32)
    for step in tl.static_range(DEPTH):
        col = (split * DEPTH + step) * LANES + lane
        best = tl.maximum(best, _bits(probs_ptr, row, stride, col, (row < rows) & (col < vocab)))
    tl.store(maxima_ptr + row * scratch + split * LANES + lane, best, mask=row < rows)


@inline
def _threshold(
    bits: tl.tensor,
    mass: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    top_k: tl.tensor,
    limit: tl.tensor,
    SPREAD: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
) -> tl.tensor:
    """Return the smallest value in [low, high] that top-k and top-p keep among ``bits``, or else ``high``.

    ``bits`` int32, ``mass`` int64 ``[ROWS, N]``; the others ``[ROWS]``. The result may be too low by ``SPREAD``.
    """
    while tl.reduce(high - low, 0, maximum) > SPREAD:
        middle = low + (high - low) // 2
        above = bits > middle[:, None]
        rank = tl.reduce(above.to(tl.int32), 1, add)
        over = tl.reduce(tl.where(above, mass, 0), 1, add)
        keeps = (rank < top_k) & (over.to(tl.float64) < limit)
        low = tl.where(keeps | (low == high), low, middle + 1)
        high = tl.where(keeps, middle, high)
    return low


@inline
def _row_threshold(
    probs_ptr: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    vocab: tl.tensor,
    stride: tl.tensor,
    scale: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    top_k: tl.tensor,
    limit: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # the same
    BLOCK: tl.constexpr,  # noqa: N803 # the same
    PIVOTS: tl.constexpr,  # noqa: N803 # the same
) -> tl.tensor:
    """Return a value that parts the tokens of whole rows as :func:`_threshold` does.

    Every pass over the rows tries ``PIVOTS`` values. One last token in the interval is kept: all above it is also above
    ``high``, which passes.
    """
    place = tl.arange(0, PIVOTS)[None, :].to(tl.int64) + 1
    above_low = tl.zeros_like(low) + vocab  # tokens ≥ low, at most
    above_high = tl.zeros_like(low)  # tokens > high
    while tl.reduce(tl.where(above_low - above_high > 1, high - low, 0), 0, maximum) > 0:
        width = (high - low)[:, None]
        pivot = low[:, None] + (width * place // (PIVOTS + 1)).to(tl.int32)  # [ROWS, PIVOTS], in [low, high)
        ranks = tl.zeros((ROWS, BLOCK, PIVOTS), tl.int32)
        masses = tl.zeros((ROWS, BLOCK, PIVOTS), tl.int64)
        for start in range(0, vocab, BLOCK):
            col = start + tl.arange(0, BLOCK)[None, :]
            bits = _bits(probs_ptr, row, stride, col, (row < rows) & (col < vocab))
            above = bits[:, :, None] > pivot[:, None, :]
            ranks += above.to(tl.int32)
            masses += tl.where(above, _mass(bits, scale)[:, :, None], 0)
        rank = tl.reduce(ranks, 1, add)  # [ROWS, PIVOTS]
        passes = (rank < top_k[:, None]) & (tl.reduce(masses, 1, add).to(tl.float64) < limit[:, None])
        lower = (passes == 0) & (width > 0)
        upper = passes & (width > 0)
        low = tl.reduce(tl.where(lower, pivot + 1, low[:, None]), 1, maximum)
        high = -tl.reduce(tl.where(upper, -pivot, -high[:, None]), 1, maximum)
        above_low = -tl.reduce(tl.where(lower, -rank, -above_low[:, None]), 1, maximum)
        above_high = tl.reduce(tl.where(upper, rank, above_high[:, None]), 1, maximum)
    return low


@inline
def _target(uniform: tl.tensor, total: tl.tensor) -> tl.tensor:
    """Return the mass that the cumulative mass up to the drawn token must exceed, ``[ROWS]``."""
    target = (uniform.to(tl.float64) * total.to(tl.float64)).to(tl.int64)
    return tl.minimum(tl.maximum(target, 0), total - 1)  # −1, and so token 0, where nothing has any mass


@inline
def _token(ids: tl.tensor, kept: tl.tensor, target: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Return the smallest id in [low, high] up to which the mass ``kept`` exceeds ``target``; ids in any order."""
    while tl.reduce(high - low, 0, maximum) > 0:
        middle = low + (high - low) // 2
        reached = tl.reduce(tl.where(ids <= middle[:, None], kept, 0), 1, add) > target
        low = tl.where(reached | (low == high), low, middle + 1)
        high = tl.where(reached, middle, high)
    return high


@inline
def _token_in_row(
    probs_ptr: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    vocab: tl.tensor,
    stride: tl.tensor,
    scale: tl.tensor,
    threshold: tl.tensor,
    uniform: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803 # the same
    BLOCKS: tl.constexpr,  # noqa: N803 # the same
) -> tl.tensor:
    """Return the token drawn from whole rows: first its block, from the kept mass of each, then its place there."""
    block = tl.arange(0, BLOCKS)[None, :]
    masses = tl.zeros_like(row) + tl.zeros((1, BLOCKS), tl.int64)  # [ROWS, BLOCKS]
    for start in range(0, vocab, BLOCK):
        col = start + tl.arange(0, BLOCK)[None, :]
        bits = _bits(probs_ptr, row, stride, col, (row < rows) & (col < vocab))
        kept = tl.where(bits >= threshold[:, None], _mass(bits, scale), 0)
        masses = tl.where(block == start // BLOCK, tl.reduce(kept, 1, add)[:, None], masses)
    upto = tl.associative_scan(masses, 1, add)
    target = _target(uniform, tl.reduce(masses, 1, add))
    passed = upto <= target[:, None]
    first = tl.minimum(tl.reduce(passed.to(tl.int32), 1, add), BLOCKS - 1) * BLOCK  # [ROWS]
    rest = target - tl.reduce(tl.where(passed, masses, 0), 1, add)
    col = first[:, None] + tl.arange(0, BLOCK)[None, :]
    bits = _bits(probs_ptr, row, stride, col, (row < rows) & (col < vocab))
    kept = tl.where(bits >= threshold[:, None], _mass(bits, scale), 0)
    return _token(col, kept, rest, first, tl.minimum(first + BLOCK, vocab) - 1)


@inline
def _gathered(
    maxima: tl.tensor,
    low: tl.tensor,
    slots_ptr: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    LANES: tl.constexpr,  # noqa: N803 # the same
    DEPTH: tl.constexpr,  # noqa: N803 # the same
    GROUPS: tl.constexpr,  # noqa: N803 # the same
    SLOTS: tl.constexpr,  # noqa: N803 # the same
) -> tl.tensor:
    """Return the ids of all tokens of the groups whose maximum is at least ``low``, int32 ``[ROWS, SLOTS·DEPTH]``.

    Places that are left over hold 2³⁰, outside every vocabulary.
    """
    group = tl.arange(0, GROUPS)[None, :]
    chosen = (maxima >= low[:, None]) & (row < rows)
    slot = tl.associative_scan(chosen.to(tl.int32), 1, add) - 1
    tl.store(slots_ptr + slot, group + tl.zeros_like(slot), mask=chosen & (slot < SLOTS))
    tl.debug_barrier()  # other threads read what was stored
    place = tl.arange(0, SLOTS * DEPTH)[None, :]
    filled = place // DEPTH < tl.reduce(chosen.to(tl.int32), 1, add)[:, None]
    at = tl.load(slots_ptr + place // DEPTH, mask=filled, other=0)
    ids = (at // LANES * DEPTH + place % DEPTH) * LANES + at % LANES
    return tl.where(filled, ids, 1 << 30)


@launchable
def _draw_kernel(
    probs_ptr: tl.tensor,
    top_k_ptr: tl.tensor,
    top_p_ptr: tl.tensor,
    min_p_ptr: tl.tensor,
    uniform_ptr: tl.tensor,
    out_ptr: tl.tensor,
    maxima_ptr: tl.tensor,
    rows: tl.tensor,
    vocab: tl.tensor,
    stride: tl.tensor,
    scratch: tl.tensor,
    groups: tl.tensor,
    out_stride: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # the same
    LANES: tl.constexpr,  # noqa: N803 # the same
    DEPTH: tl.constexpr,  # noqa: N803 # the same
    GROUPS: tl.constexpr,  # noqa: N803 # the same
    SLOTS: tl.constexpr,  # noqa: N803 # the same
    SPREAD: tl.constexpr,  # noqa: N803 # the same
    BLOCK: tl.constexpr,  # noqa: N803 # the same
    BLOCKS: tl.constexpr,  # noqa: N803 # the same
    PIVOTS: tl.constexpr,  # noqa: N803 # the same
) -> None:
    index = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    exists = index < rows
    row = index.to(tl.int64)[:, None]  # [ROWS, 1]
    top_k = tl.load(top_k_ptr + index, mask=exists, other=1)
    top_p = tl.load(top_p_ptr + index, mask=exists, other=1.0)
    min_p = tl.load(min_p_ptr + index, mask=exists, other=0.0)
    uniform = tl.load(uniform_ptr + index, mask=exists, other=0.0)

    group = tl.arange(0, GROUPS)[None, :]
    maxima = tl.load(maxima_ptr + row * scratch + group, mask=(row < rows) & (group < groups), other=0)
    high = tl.reduce(maxima, 1, maximum)  # the largest probability, always kept
    least = (tl.where(min_p > 0.0, min_p, 0.0) * high.to(tl.float32, bitcast=True)).to(tl.int32, bitcast=True)
    low = tl.minimum(tl.maximum(least, 1), high)
    scale = (tl.minimum(296 - (high >> 23), 254) << 23).to(tl.float32, bitcast=True)[:, None]  # a power of two
    ranked = (top_k > 0) & (top_k < vocab)
    top_k = tl.where(ranked, top_k, vocab)
    summed = (top_p >= 1.0) == 0  # NaN too
    limit = tl.where(summed, top_p.to(tl.float64) * tl.reduce(scale, 1, maximum).to(tl.float64), 1e30)
    high = tl.where(ranked | summed, high, low)  # without both, nothing is to be searched for

    low = _threshold(maxima, _mass(maxima, scale), low, high, top_k, limit, SPREAD)
    wanted = tl.reduce((maxima >= low[:, None]).to(tl.int32), 1, add)
    if tl.reduce(tl.where(exists, wanted, 0), 0, maximum) <= SLOTS:
        slots_ptr = maxima_ptr + row * scratch + groups
        ids = _gathered(maxima, low, slots_ptr, row, rows, LANES, DEPTH, GROUPS, SLOTS)
        bits = _bits(probs_ptr, row, stride, ids, (row < rows) & (ids < vocab))
        mass = _mass(bits, scale)
        threshold = _threshold(bits, mass, low, high, top_k, limit, 0)
        kept = tl.where(bits >= threshold[:, None], mass, 0)
        target = _target(uniform, tl.reduce(kept, 1, add))
        token = _token(ids, kept, target, tl.zeros_like(low), tl.zeros_like(low) + vocab - 1)
    else:
        threshold = _row_threshold(
            probs_ptr, row, rows, vocab, stride, scale, low, high, top_k, limit, ROWS, BLOCK, PIVOTS
        )
        token = _token_in_row(probs_ptr, row, rows, vocab, stride, scale, threshold, uniform, BLOCK, BLOCKS)
    tl.store(out_ptr + index * out_stride, token.to(tl.int64), mask=exists)
