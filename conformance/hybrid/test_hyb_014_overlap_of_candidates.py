"""HYB-014."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

TOPS = (1, 5, 20)
SLACK = 1e-6  # float32 log-probabilities summed in float64
NOISES = (0.0, 0.5)


@check(
    "HYB-014",
    feature="similarity",
    bound="low <= overlap <= high at every position, to 1e-6; both meet where the candidates are the whole vocabulary, "
    "and high - low is at most the mass that both leave out, r_p + r_q",
    sources=("https://github.com/vllm-project/vllm/issues/9490",),
)
def test_hyb_014(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """The bounds from top candidates hold the overlap of the whole distributions

    Engines tell 5 to 128 candidates a position. What they leave out can agree or not: an overlap of candidates alone,
    or one normalised over them, is a number that nobody measured. Look at the mass outside the list.
    """
    import numpy as np

    from gaugeblock.conformance.hybrid.instruments import held_out_rows, noisy
    from gaugeblock.conformance.similarity import known_rows, positions, truncated

    rows = held_out_rows(inprocess, prompts=2)
    vocab = rows[0].shape[-1]
    widest: dict[int, float] = {}
    for top in (*TOPS, vocab):
        for sigma in NOISES:
            for row, other in zip(rows, noisy(rows, sigma), strict=True):
                other = other - np.log(np.exp(other).sum(axis=-1, keepdims=True))
                truth = positions(row, other)
                p, q = known_rows(row, top), known_rows(other, top)
                bounds = truncated(p, q)
                for i, value in enumerate(truth.low):
                    low, high = float(bounds.low[i]), float(bounds.high[i])
                    assert low - SLACK <= value <= high + SLACK, (
                        f"top {top}, noise {sigma}, position {i}: the overlap is {value:.6f}, outside of the bounds "
                        f"{low:.6f} and {high:.6f}; the candidates hold {p[i].mass:.3f} and {q[i].mass:.3f}"
                    )
                    allowed = p[i].rest + q[i].rest
                    assert high - low <= allowed + SLACK, (
                        f"top {top}, position {i}: bounds {high - low:.4f} apart, {allowed:.4f} is left out"
                    )
                    assert bounds.kl[i] <= truth.kl[i] + SLACK, (
                        f"top {top}, position {i}: KL is at least {bounds.kl[i]:.6f}, but is {truth.kl[i]:.6f}"
                    )
                widest[top] = max(widest.get(top, 0.0), float((bounds.high - bounds.low).max()))
    assert widest[vocab] <= SLACK, f"whole distributions leave {widest[vocab]:.2e} open"
    assert widest[TOPS[0]] > 0.1, "one candidate leaves nothing open: nothing was checked"
    record_property("evidence", "widest bounds: " + ", ".join(f"top {k} {v:.3f}" for k, v in widest.items()))
