"""The two kernels of :mod:`gaugeblock.kernels.sampling`: maxima of groups, then one program a row that draws.

Probabilities are compared by their bits (for p > 0 the order of fp32 is the order of its bit patterns as integers) and
summed as integers: ``p·2ˢ`` with 2ˢ·max in [2⁴², 2⁴³). Integer sums are the same in every order, so that kept set and
token depend on no tile, split or batch size.

``_maxima_kernel`` splits each row over programs and keeps the largest value of each *group* of ``DEPTH`` tokens. The
threshold of the maxima alone is at most that of the row, since removing tokens only removes mass and rank above. So the
groups whose maximum reaches it hold every kept token, and for the usual narrow kept set those are few:
``_draw_kernel`` gathers them, and only where they are more than ``4·SLOTS`` it searches the whole row: with fp32 sums
until few tokens are in doubt, then exactly among those.
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
    ROWS: tl.constexpr,  # noqa: N803 # Triton's constants are written in capitals
    LANES: tl.constexpr,  # noqa: N803 # the same
    DEPTH: tl.constexpr,  # noqa: N803 # the same
) -> None:
    split = tl.program_id(1)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]  # [ROWS, 1]
    lane = tl.arange(0, LANES)[None, :]  # [1, LANES]
    best = tl.full((ROWS, LANES), 0, tl.int32)
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
    SPREAD: tl.constexpr,  # noqa: N803 # the same
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
def _narrowed(
    probs_ptr: tl.tensor,
    packed_ptr: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    vocab: tl.tensor,
    stride: tl.tensor,
    scale: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    rank_low: tl.tensor,
    rank_high: tl.tensor,
    mass_high: tl.tensor,
    counts: tl.tensor,
    top_k: tl.tensor,
    limit: tl.tensor,
    ROWS: tl.constexpr,  # noqa: N803 # the same
    BLOCK: tl.constexpr,  # noqa: N803 # the same
    PIVOTS: tl.constexpr,  # noqa: N803 # the same
    STAGES: tl.constexpr,  # noqa: N803 # the same
    PACKED: tl.constexpr,  # noqa: N803 # the same
    ENOUGH: tl.constexpr,  # noqa: N803 # the same
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return a smaller interval [low, high] for the threshold, at best with ``ENOUGH`` tokens in it, and their ranks.

    ``rank_low`` tokens at most are ≥ low, ``rank_high`` of mass ``mass_high`` are > high. Every pass tries ``PIVOTS``
    values on whole rows, or on what is packed of them: in each lane the first ``counts`` are tokens of the interval.
    With ``ENOUGH`` above 1 the sums are fp32, and where their error could decide the interval stays as it is.
    """
    exact: tl.constexpr = ENOUGH == 1
    lane = tl.arange(0, BLOCK)[None, :]
    place = tl.arange(0, PIVOTS)[None, :].to(tl.int64) + 1
    base_rank, base_mass, top = rank_high[:, None], mass_high[:, None], high[:, None]
    end = tl.reduce(tl.reduce(counts, 1, maximum), 0, maximum) * BLOCK if PACKED else vocab
    going = tl.where(rank_low - rank_high > ENOUGH, high - low, 0)
    while tl.reduce(going, 0, maximum) > 0:
        width = going[:, None]
        pivot = low[:, None] + (width * place // (PIVOTS + 1)).to(tl.int32)  # [ROWS, PIVOTS], in [low, high)
        ranks = tl.full((ROWS, BLOCK, PIVOTS), 0, tl.int32)
        masses = tl.full((ROWS, BLOCK, PIVOTS), 0, tl.int64 if exact else tl.float32)
        for start in tl.range(0, end, BLOCK, num_stages=STAGES):
            if PACKED:
                bits = tl.load(packed_ptr + start + lane, mask=start // BLOCK < counts, other=0)
            else:
                bits = _bits(probs_ptr, row, stride, start + lane, (row < rows) & (start + lane < vocab))
                bits = tl.where(bits > top, 0, bits)  # in base_rank and base_mass
            mass = _mass(bits, scale) if exact else bits.to(tl.float32, bitcast=True) * scale
            above = bits[:, :, None] > pivot[:, None, :]
            ranks += above.to(tl.int32)
            masses += tl.where(above, mass[:, :, None], 0)
        rank = base_rank + tl.reduce(ranks, 1, add)  # [ROWS, PIVOTS]
        mass = (base_mass + tl.reduce(masses, 1, add)).to(tl.float64)
        fuzz: tl.constexpr = 0.0 if exact else 2.0**-14  # γ of 2⁸ terms a lane and 2¹² lanes is a quarter of that
        lower = ((rank >= top_k[:, None]) | (mass * (1.0 - fuzz) >= limit[:, None])) & (width > 0)
        upper = (rank < top_k[:, None]) & (mass * (1.0 + fuzz) < limit[:, None]) & (width > 0)
        low = tl.reduce(tl.where(lower, pivot + 1, low[:, None]), 1, maximum)
        high = -tl.reduce(tl.where(upper, -pivot, -high[:, None]), 1, maximum)
        rank_low = -tl.reduce(tl.where(lower, -rank, -rank_low[:, None]), 1, maximum)
        rank_high = tl.reduce(tl.where(upper, rank, rank_high[:, None]), 1, maximum)
        moved = high - low < going  # else all that is left is in doubt
        going = tl.where(moved & (rank_low - rank_high > ENOUGH), high - low, 0)
    return low, high, rank_low, rank_high


@inline
def _row_threshold(
    probs_ptr: tl.tensor,
    packed_ptr: tl.tensor,
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
    STAGES: tl.constexpr,  # noqa: N803 # the same
    PLACES: tl.constexpr,  # noqa: N803 # the same
) -> tl.tensor:
    """Return a value that parts the tokens of whole rows as :func:`_threshold` does.

    Once few tokens are left in the interval, they are packed: each lane writes its own behind one another, so that no
    lane has to know of another; where one has no place left, the whole rows are searched to the end. One last token in
    the interval is kept: all above it is also above ``high``.
    """
    lane = tl.arange(0, BLOCK)[None, :]
    zero = low * 0
    counts = tl.full((ROWS, BLOCK), 0, tl.int32)
    low, high, rank_low, rank_high = _narrowed(
        probs_ptr, packed_ptr, row, rows, vocab, stride, scale, low, high, zero + vocab, zero, zero.to(tl.int64),
        counts, top_k, limit, ROWS, BLOCK, PIVOTS, STAGES, False, BLOCK * PLACES // 8,
    )  # fmt: skip # one argument a line says no more
    pending = (high > low) & (rank_low - rank_high > 1)
    masses = tl.full((ROWS, BLOCK), 0, tl.int64)
    for start in tl.range(0, vocab, BLOCK, num_stages=STAGES):
        bits = _bits(probs_ptr, row, stride, start + lane, (row < rows) & (start + lane < vocab))
        masses += tl.where(bits > high[:, None], _mass(bits, scale), 0)
        within = (bits >= low[:, None]) & (bits <= high[:, None]) & pending[:, None]
        tl.store(packed_ptr + counts * BLOCK + lane, bits, mask=within & (counts < PLACES))
        counts += within.to(tl.int32)
    tl.debug_barrier()  # other threads read what was stored
    mass_high = tl.reduce(masses, 1, add)
    if tl.reduce(tl.reduce(counts, 1, maximum), 0, maximum) <= PLACES:
        low, high, rank_low, rank_high = _narrowed(
            probs_ptr, packed_ptr, row, rows, vocab, stride, scale, low, high, rank_low, rank_high, mass_high,
            counts, top_k, limit, ROWS, BLOCK, PIVOTS, STAGES, True, 1,
        )  # fmt: skip # the same
    else:
        low, high, rank_low, rank_high = _narrowed(
            probs_ptr, packed_ptr, row, rows, vocab, stride, scale, low, high, rank_low, rank_high, mass_high,
            counts, top_k, limit, ROWS, BLOCK, PIVOTS, STAGES, False, 1,
        )  # fmt: skip # the same
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
    STAGES: tl.constexpr,  # noqa: N803 # the same
) -> tl.tensor:
    """Return the token drawn from whole rows: first its block, from the kept mass of each, then its place there."""
    block = tl.arange(0, BLOCKS)[None, :]
    masses = row * 0 + tl.full((1, BLOCKS), 0, tl.int64)  # [ROWS, BLOCKS]
    for start in tl.range(0, vocab, BLOCK, num_stages=STAGES):
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
    tl.store(slots_ptr + slot, group + slot * 0, mask=chosen & (slot < SLOTS))
    tl.debug_barrier()  # other threads read what was stored
    place = tl.arange(0, SLOTS * DEPTH)[None, :]
    filled = place // DEPTH < tl.reduce(chosen.to(tl.int32), 1, add)[:, None]
    at = tl.load(slots_ptr + place // DEPTH, mask=filled, other=0)
    ids = (at // LANES * DEPTH + place % DEPTH) * LANES + at % LANES
    return tl.where(filled, ids, 1 << 30)


@inline
def _token_in_groups(
    probs_ptr: tl.tensor,
    slots_ptr: tl.tensor,
    maxima: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    vocab: tl.tensor,
    stride: tl.tensor,
    scale: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    top_k: tl.tensor,
    limit: tl.tensor,
    uniform: tl.tensor,
    LANES: tl.constexpr,  # noqa: N803 # the same
    DEPTH: tl.constexpr,  # noqa: N803 # the same
    GROUPS: tl.constexpr,  # noqa: N803 # the same
    SLOTS: tl.constexpr,  # noqa: N803 # the same
) -> tl.tensor:
    """Return the token drawn from at most ``SLOTS`` groups, those whose maximum is at least ``low``."""
    ids = _gathered(maxima, low, slots_ptr, row, rows, LANES, DEPTH, GROUPS, SLOTS)
    bits = _bits(probs_ptr, row, stride, ids, (row < rows) & (ids < vocab))
    mass = _mass(bits, scale)
    threshold = _threshold(bits, mass, low, high, top_k, limit, 0)
    kept = tl.where(bits >= threshold[:, None], mass, 0)
    target = _target(uniform, tl.reduce(kept, 1, add))
    return _token(ids, kept, target, low * 0, low * 0 + vocab - 1)


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
    STAGES: tl.constexpr,  # noqa: N803 # the same
    PLACES: tl.constexpr,  # noqa: N803 # the same
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
    most = tl.reduce(tl.where(exists, wanted, 0), 0, maximum)
    slots_ptr = maxima_ptr + row * scratch + groups
    if most <= SLOTS:
        token = _token_in_groups(
            probs_ptr, slots_ptr, maxima, row, rows, vocab, stride, scale, low, high, top_k, limit, uniform,
            LANES, DEPTH, GROUPS, SLOTS,
        )  # fmt: skip # one argument a line says no more
    elif most <= SLOTS * 4:  # the same with more registers
        token = _token_in_groups(
            probs_ptr, slots_ptr, maxima, row, rows, vocab, stride, scale, low, high, top_k, limit, uniform,
            LANES, DEPTH, GROUPS, SLOTS * 4,
        )  # fmt: skip # the same
    else:
        packed_ptr = slots_ptr + (SLOTS * 4 + 15) // 16 * 16
        threshold = low
        if tl.reduce(high - low, 0, maximum) > 0:
            threshold = _row_threshold(
                probs_ptr, packed_ptr, row, rows, vocab, stride, scale, low, high, top_k, limit,
                ROWS, BLOCK, PIVOTS, STAGES, PLACES,
            )  # fmt: skip # the same
        token = _token_in_row(probs_ptr, row, rows, vocab, stride, scale, threshold, uniform, BLOCK, BLOCKS, STAGES)
    tl.store(out_ptr + index * out_stride, token.to(tl.int64), mask=exists)
