"""HYB-001."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess


@check(
    "HYB-001",
    feature="int8",
    gate=True,
    bound="exact: finite, normalised to 1e-5, and not equal to fp32",
    sources=("https://github.com/Nerogar/OneTrainer/pull/1063",),
)
def test_hyb_001(inprocess: InProcess, int8: InProcess, record_property: Callable[[str, object], None]) -> None:
    """The INT8 path computes distributions, and computes them in INT8

    Equal to fp32 in every bit means that nothing was quantised, and that every other check of this layer compares fp32
    with itself. NaN comes from a scale of zero.
    """
    import numpy as np

    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("int8", 40)
    wanted, rows = inprocess.one_shot(prompt), int8.one_shot(prompt)
    assert rows.shape == wanted.shape, f"log-probabilities of shape {rows.shape} instead of {wanted.shape}"
    bad = int((~np.isfinite(rows)).any(axis=-1).sum())
    assert not bad, f"{bad} of {len(rows)} positions have log-probabilities that are not finite"
    off = float(np.abs(np.exp(rows).sum(axis=-1) - 1).max())
    assert off < 1e-5, f"probabilities sum up to 1 ± {off:.1e}"
    difference = float(np.abs(rows - wanted).max())
    assert difference > 0, "the INT8 path is equal to fp32 in every bit: nothing was quantised"
    record_property("evidence", f"largest difference from fp32 {difference:.2g} nats over {len(rows)} positions")
