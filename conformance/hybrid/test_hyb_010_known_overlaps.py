"""HYB-010."""

from __future__ import annotations

import math
from collections.abc import Callable

from gaugeblock.conformance.check import check

CASES = (
    # (p, q): as probabilities; overlap and KL are computed here, term by term, without numpy
    ((0.5, 0.25, 0.25), (0.25, 0.5, 0.25)),
    ((0.7, 0.2, 0.1), (0.7, 0.2, 0.1)),
    ((1.0, 0.0, 0.0), (0.0, 0.5, 0.5)),
    ((0.9, 0.1, 0.0), (0.9, 0.05, 0.05)),
    ((1 - 2e-9, 1e-9, 1e-9), (1 - 3e-9, 2e-9, 1e-9)),
)
OFFSETS = (0.0, 700.0, -3e4)  # added to the logits: changes no distribution, and overflows a naive exp
TOLERANCE = 1e-9


@check(
    "HYB-010",
    feature="similarity",
    bound="1e-9: float64 sums of three terms, after an offset of 3e4 that costs 4e-12 of each",
    sources=("https://github.com/vllm-project/vllm/issues/9490",),
)
def test_hyb_010(record_property: Callable[[str, object], None]) -> None:
    """Overlap and KL of known distributions are known

    The measure takes logits, which no engine normalises, and answers for their softmax. Look at the softmax, at masked
    tokens (probability zero) and at offsets that overflow.
    """
    import numpy as np

    from gaugeblock.conformance.similarity import kl, overlap

    worst = 0.0
    for p, q in CASES:
        wanted = (math.fsum(map(min, p, q)), _kl(p, q))
        with np.errstate(divide="ignore"):
            logits = [np.log(np.array([row])) for row in (p, q)]
        for offset in OFFSETS:
            found = (float(overlap(logits[0] + offset, logits[1])[0]), float(kl(logits[0] + offset, logits[1])[0]))
            for name, value, want in zip(("overlap", "KL"), found, wanted, strict=True):
                off = 0.0 if value == want else abs(value - want)
                assert off <= TOLERANCE, f"{name} of {p} and {q}, logits offset by {offset:g}: {value} is not {want}"
                worst = max(worst, off)
    record_property("evidence", f"{len(CASES) * len(OFFSETS)} pairs, at most {worst:.1e} off")


def _kl(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    pairs = [(a, b) for a, b in zip(p, q, strict=True) if a > 0]
    return math.inf if any(b == 0 for _, b in pairs) else math.fsum(a * math.log(a / b) for a, b in pairs)
