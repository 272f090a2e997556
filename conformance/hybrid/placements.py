"""What the checks on placements share: placements that cross at every kind of edge, and runs to compare."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import Lab

PAGE = 16
POOL = 10 * PAGE  # tokens of KV: what the two requests below need, and no more than that is compared
EXACT = "exact: every operator computes the same bits on the host and on the pretend device, and copies change none"


def drawn_placement(operators: Sequence[str], seed: int) -> dict[str, str]:
    """Return a placement drawn by ``seed``: about half of the operators on either device, so many edges cross."""
    draw = random.Random(seed)
    return {name: draw.choice(("host", "device")) for name in operators}


def run_two(lab: Lab, budgets: Sequence[int]) -> dict[str, object]:
    """Run two requests, the second one step behind the first, so that chunks and decodes share steps.

    Returns all log-probabilities of each by name, and the bytes of all pages.
    """
    import torch

    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    lab.add("first", mixed_prompt("placed", 45), new=3)
    lab.step(budgets[0])
    lab.add("second", mixed_prompt("placed too", 30), new=3)
    answers = lab.run(budgets[1:])
    storage = lab.scheduler.kv.storage
    pages = torch.stack([storage.read_page(page) for page in range(POOL // PAGE)])
    return {**{name: answer.rows(lab.vocab) for name, answer in answers.items()}, "the pages": pages.numpy()}


def difference(one: Mapping[str, object], other: Mapping[str, object]) -> str | None:
    """Return what differs between two runs of :func:`run_two`, None if nothing does, down to the last bit."""
    import numpy as np

    for name, rows in one.items():
        wanted, got = np.asarray(rows), np.asarray(other[name])
        if wanted.shape != got.shape:
            return f"{name}: {got.shape} instead of {wanted.shape}"
        if not np.array_equal(wanted, got, equal_nan=True):
            where = np.argwhere((wanted != got) & ~(np.isnan(wanted) & np.isnan(got)))[0].tolist()
            return f"{name}, first at {where}, by up to {float(np.nanmax(np.abs(wanted - got))):.2g}"
    return None
