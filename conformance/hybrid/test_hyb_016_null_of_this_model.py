"""HYB-016."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.similarity.calibration import Calibration

WIDTHS = {"bf16": 0.02, "int8-weights": 0.05}  # mean distance of a right variant's positions from fp32
PROMPTS, POSITIONS = 24, 90


@check(
    "HYB-016",
    feature="similarity",
    bound="exact: a digest differs or not. A limit of the tail is at most the first percentile of the gate's "
    "coarsest variant and within 0.1 of it: 2,000 resamples of 24 prompts, the lowest 0.1%",
    sources=("https://github.com/kvcache-ai/ktransformers/issues/1880",),
)
def test_hyb_016(record_property: Callable[[str, object], None]) -> None:
    """A null is used for the model, the prompts and the precision that it was measured on, and for no other

    Right variants of one model lie further from fp32 than faults of another. Look at the digest, and at which variants
    a gate draws its limit from: INT8's must not widen bf16's.
    """
    import numpy as np
    import pytest

    from gaugeblock.conformance.similarity import GATES
    from gaugeblock.fixtures.errors import KitError
    from gaugeblock.fixtures.similarity.calibration import Calibration, first_percentile

    rng = np.random.default_rng(16)
    overlaps = {name: [[1 - rng.gamma(2, width / 2, POSITIONS).clip(0, 1) for _ in range(PROMPTS)]]
                for name, width in WIDTHS.items()}  # fmt: skip
    null = Calibration({"name": "ours", "digest": "a" * 64}, {"digest": "b" * 64}, {}, overlaps)
    null.refuse_stale("a" * 64, "b" * 64)
    for what, digests in {"another model": ("c" * 64, "b" * 64), "other prompts": ("a" * 64, "c" * 64)}.items():
        refused = _refused(null, *digests)
        assert refused, f"a calibration of {what} is accepted"
        assert what in refused, f"a calibration of {what} is refused with {refused!r}"
    seen = {name: first_percentile(np.concatenate(once)) for name, (once,) in overlaps.items()}
    limits = {name: null.tail(GATES[name]) for name in ("bf16", "int8")}
    for gate, variant in {"bf16": "bf16", "int8": "int8-weights"}.items():
        assert seen[variant] - 0.1 < limits[gate] <= seen[variant], (
            f"the gate {gate} has the limit {limits[gate]:.3f}, {variant} a first percentile of {seen[variant]:.3f}"
        )
    assert limits["int8"] < seen["int8-weights"] < limits["bf16"], f"bf16's limit is as wide as INT8's: {limits}"
    lacking = Calibration(null.model, null.prompts, {}, {"bf16": overlaps["bf16"]})
    with pytest.raises(KitError, match="needs a null of"):
        lacking.tail(GATES["int8"])
    record_property("evidence", ", ".join(f"{name}: above {limit:.3f}" for name, limit in limits.items()))


def _refused(null: Calibration, model: str, prompts: str) -> str:
    from gaugeblock.fixtures.errors import KitError

    try:
        null.refuse_stale(model, prompts)
    except KitError as error:
        return str(error)
    return ""
