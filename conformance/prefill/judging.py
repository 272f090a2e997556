"""When two fp32 computations of the same prompt are the same, and how a difference is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import Rows

FP32_BOUND = 5e-4  # nats
WHY = (
    "logprobs of every token within 5e-4 nats: fp32 sums in another order differ by up to 6.2e-5 on the tiny model "
    "(83 tokens, 11 compositions); the mildest structural fault moves a logprob by more than 0.01"
)


def require_same(label: str, rows: Rows, wanted: Rows, chunks: Sequence[int] = ()) -> float:
    """Hold [positions, vocab] log-probabilities to the wanted ones and return the largest difference in nats.

    Raises:
        AssertionError: naming the first position that differs, and the chunk that it lies in.
    """
    assert rows.shape == wanted.shape, f"{label}: {rows.shape[0]} positions have logprobs, {wanted.shape[0]} should"
    per_position = np.abs(rows - wanted).max(axis=-1)  # NaN stays NaN, and fails
    wrong = np.flatnonzero(~(per_position <= FP32_BOUND))
    if len(wrong):
        where = f"position {wrong[0]}"
        if chunks:
            ends = list(accumulate(chunks))
            number = int(np.searchsorted(ends, wrong[0], side="right"))
            where += f", in chunk {number + 1} of {len(chunks)} ({', '.join(map(str, chunks[:12]))} tokens)"
        raise AssertionError(
            f"{label}: logprobs differ from one shot by {np.nanmax(per_position):.3g} nats at most, "
            f"first at {where}; {len(wrong)} of {len(per_position)} positions are off"
        )
    return float(per_position.max())
