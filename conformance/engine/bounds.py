"""How far two right answers may lie apart, by the target's dtype, and why."""

from __future__ import annotations

from dataclasses import dataclass

from gaugeblock.fixtures.targets.engine import EngineTarget


@dataclass(frozen=True)
class Bound:
    """Largest difference of one token's logprob and of the mean over an answer, in nats."""

    dtype: str
    each: float
    mean: float


BOUNDS = {
    "float32": Bound("float32", each=1e-3, mean=2e-4),
    "float16": Bound("float16", each=0.1, mean=0.02),
    "bfloat16": Bound("bfloat16", each=0.75, mean=0.08),
}

WHY = (
    "logprob of each token within 1e-3 nats (mean 2e-4) in fp32: right engines were measured at most 5e-5 apart over "
    "chunking, caching, batching and two servers, the mildest structural fault above 1e-2; fp16 0.1 (0.02) and "
    "bf16 0.75 (0.08): rounding of a right engine reaches a third to a half of that. A different greedy token passes "
    "only where the two best lie closer than twice the bound"
)
"""The tolerance of every check that compares logprobs."""

_NAMES = {"float32": "float32", "float": "float32", "float16": "float16", "half": "float16", "bfloat16": "bfloat16"}


def bound_of(target: EngineTarget) -> Bound:
    """Return the bound for the dtype that the target tells, or bf16's when it tells none."""
    told = str(target.info.get("dtype", "")).removeprefix("torch.")
    if told in ("", "auto") and target.folder is not None:
        config = target.folder_config
        told = str(config.get("dtype") or config.get("torch_dtype") or "")
    return BOUNDS[_NAMES.get(told, "bfloat16")]
