"""What a copy between the two places costs, measured: a latency and a bandwidth for each direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

from gaugeblock.reference.hybrid.placement import DEVICE, HOST
from gaugeblock.reference.hybrid.profile import Link

SIZES = (2**10, 2**14, 2**18, 2**20, 2**22)  # bytes: from one token's hidden state to a long prompt's
WARMUP = 2
REPEATS = 7
BOUNDLESS = 1e15  # bytes a second, where a copy takes no longer for more bytes: JSON has no infinity
Copy = Callable[[Tensor], Tensor]


def copies_between(devices: Mapping[str, str]) -> tuple[Copy, Copy]:
    """Return what copies to the device and to the host; pretended devices share no memory either."""
    return (
        lambda tensor: tensor.to(devices[DEVICE], copy=True),
        lambda tensor: tensor.to(devices[HOST], copy=True),
    )


def measure_links(
    devices: Mapping[str, str],
    clock: Callable[[], float],
    synchronize: Callable[[str], None],
    put: Copy,
    fetch: Copy,
) -> tuple[Link, Link]:
    """Return the links host → device (by ``put``) and device → host (by ``fetch``).

    A copy starts right behind the work that makes its tensor, as in a pass, and waits for it. What clock and waiting
    take without a copy is taken out.
    """

    def seconds(copy: Copy, source: Tensor) -> float:
        taken = []
        for number in range(WARMUP + REPEATS):
            synchronize(devices[DEVICE])
            tensor = source * 1
            start = clock()
            copy(tensor)
            synchronize(devices[DEVICE])
            if number >= WARMUP:
                taken.append(clock() - start)
        return median(taken)

    there, back = [], []
    for size in SIZES:
        tensor = torch.zeros(size // 4, device=devices[HOST])
        nothing = seconds(lambda tensor: tensor, tensor)
        there.append((size, seconds(put, tensor) - nothing))
        back.append((size, seconds(fetch, put(tensor)) - nothing))
    return fit_link(there), fit_link(back)


def fit_link(measured: list[tuple[int, float]]) -> Link:
    """Fit ``latency + bytes / bandwidth`` to (bytes, seconds) by least squares of the relative error.

    Relative, since most copies of a pass are small: the largest one may not decide alone. Neither part is negative.
    """
    if all(seconds <= 0 for _, seconds in measured):
        return Link(0.0, BOUNDLESS)
    points = [(size, max(seconds, 1e-9)) for size, seconds in measured]
    # minimise Σ (latency / t + size · slope / t − 1)²
    a = sum(1 / t**2 for _, t in points)
    b = sum(size / t**2 for size, t in points)
    c = sum(size**2 / t**2 for size, t in points)
    d = sum(1 / t for _, t in points)
    e = sum(size / t for size, t in points)
    determinant = a * c - b * b
    latency, slope = (d * c - b * e) / determinant, (a * e - b * d) / determinant
    if latency < 0:
        latency, slope = 0.0, e / c
    elif slope <= 0:
        latency, slope = d / a, 0.0
    return Link(latency, 1 / slope if slope else BOUNDLESS)
