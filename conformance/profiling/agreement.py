"""Whether a model with fused ops still computes the same: overlap of next-token distributions, position by position.

Judged twice. In the model's own dtype, where the difference is what a user will see; and in fp32, where rounding is so
small that a replacement which computes something else cannot hide behind it.

The limits are not picked by hand. The unfused model differs from the same weights in the next wider dtype by its own
rounding: that is the null. A right replacement rounds at other places and not more often, so it stays within a small
multiple of the null. The overlap is linear in small errors, so the null of a 16-bit model in fp32 is its null times the
ratio of the two units of rounding; and since the 16-bit model accumulates its products in fp32 and rounds them once,
while in fp32 each of their terms is rounded, times the root of their longest sum.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gaugeblock.conformance.profiling.patching import Fusion, fused
from gaugeblock.conformance.profiling.workload import Workload, run
from gaugeblock.conformance.similarity import log_probabilities, overlap

Floats = NDArray[np.float64]

POSITIONS = 64
"""Positions of the prompt that are compared, evenly spread; all decode steps always are."""
FACTOR = 4.0
"""Two roundings of one size differ by up to twice it; twice that again for the largest of few positions."""
FLOOR = 1e-6
"""Where the null is smaller still, it is a matter of luck: sixteen units of fp32, a softmax's own error."""


@dataclass(frozen=True)
class Loss:
    """``value``: the largest 1 − overlap, at ``position``; ``limit``: what rounding explains."""

    value: float
    position: int
    limit: float

    @property
    def right(self) -> bool:
        """Whether rounding explains it."""
        return self.value <= self.limit

    def describe(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {"overlap_loss": self.value, "position": self.position, "limit": self.limit, "right": self.right}


@dataclass(frozen=True)
class Agreement:
    """The loss in the model's dtype, and in fp32 (the same where the model is fp32)."""

    own: Loss
    fp32: Loss

    @property
    def right(self) -> bool:
        """Whether the replacement computes the same."""
        return self.own.right and self.fp32.right

    @property
    def worst(self) -> Loss:
        """The one that exceeds its limit the most."""
        return max((self.own, self.fp32), key=lambda loss: loss.value / loss.limit)

    def describe(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {"right": self.right, "own_dtype": self.own.describe(), "fp32": self.fp32.describe()}


class Judge:
    """Holds the unfused model's answers, the same weights in fp32, and the null.

    Raises:
        torch.OutOfMemoryError: the copy in the wider dtype does not fit.
    """

    def __init__(self, model: Any, work: Workload) -> None:
        self.work = work
        self.model = model
        self._rows = _positions(work)
        self._base = self._answers(model)
        self._wide = copy.deepcopy(model).to(torch.float32 if model.dtype.itemsize == 2 else torch.float64)
        wide = self._answers(self._wide)
        self.null = float((1 - overlap(wide, self._base)).max())
        self._wide_base = wide
        if model.dtype.itemsize != 2:  # the fp32 model is the one to judge, fp64 gave its null
            del self._wide
            self._wide, self._wide_base = model, self._base

    def judge(self, calls: dict[Fusion, Callable[..., Any]]) -> Agreement:
        """Compare the model with ``calls`` in place with the unfused one."""
        limit = FACTOR * self.null + FLOOR
        own = self._loss(self.model, self._base, calls, limit)
        if self._wide is self.model:
            return Agreement(own, own)
        ratio = torch.finfo(torch.float32).eps / torch.finfo(self.model.dtype).eps * _longest_sum(self.model) ** 0.5
        return Agreement(own, self._loss(self._wide, self._wide_base, calls, FACTOR * self.null * ratio + FLOOR))

    def _loss(self, model: Any, base: Floats, calls: dict[Fusion, Callable[..., Any]], limit: float) -> Loss:
        with fused(model, calls):
            lost = 1 - overlap(base, self._answers(model))
        worst = int(lost.argmax())
        return Loss(float(lost[worst]), int(self._rows[worst]), limit)

    def _answers(self, model: Any) -> Floats:
        """Return log-probabilities ``[positions, vocab]`` of the compared positions."""
        _, steps = run(model, self.work, every_position=True)
        logits = torch.cat([step[0] for step in steps])[self._rows.to(steps[0].device)]  # [positions, vocab]
        return log_probabilities(logits.double().cpu().numpy())


def _positions(work: Workload) -> torch.Tensor:
    prompt = torch.linspace(0, work.prompt - 1, min(POSITIONS, work.prompt)).round().long()
    return torch.cat([torch.tensor(sorted(set(prompt.tolist()))), torch.arange(work.prompt, work.prompt + work.decode)])


def _longest_sum(model: Any) -> int:
    """Return the most terms that a product of the model adds up (``nx``: GPT-2's Conv1D)."""
    return max(getattr(m, "in_features", None) or getattr(m, "nx", None) or 1 for m in model.modules())
