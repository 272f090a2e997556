"""What a worker or a lane computes in, as a quality that a request can ask a floor of. No torch, no HTTP."""

from __future__ import annotations

QUALITIES = ("int4", "int8", "fp8", "bf16", "fp16", "fp32")
"""From the coarsest on. INT8 of weights and activations loses a little, FP8 hardly anything (arXiv 2411.02355); fp16 is
above bf16 for its precision, although its range is smaller."""


def reaches(quality: str | None, floor: str | None) -> bool:
    """Whether ``quality`` is at or above ``floor``; what declares no quality reaches no floor, but none is needed."""
    if floor is None:
        return True
    return quality is not None and QUALITIES.index(quality) >= QUALITIES.index(floor)
