"""How far two right answers may lie apart, by the target's dtype, and why."""

from __future__ import annotations

from dataclasses import dataclass

from gaugeblock.fixtures.targets.engine import EngineTarget


@dataclass(frozen=True)
class Bound:
    """In nats: largest difference of one token's logprob, of the mean of 16 and more, and the lead that is a tie."""

    dtype: str
    each: float
    mean: float
    tie: float


BOUNDS = {
    "float32": Bound("float32", each=1e-3, mean=2e-4, tie=2e-3),
    "float16": Bound("float16", each=0.3, mean=0.03, tie=0.3),
    "bfloat16": Bound("bfloat16", each=1.5, mean=0.15, tie=1.0),
}

WHY = (
    "a token's logprob within 1e-3 nats in fp32 (mean of 16 and more: 2e-4): over chunking, caching, batching, "
    "decoding and against the fp32 oracle right engines were at most 5e-5 apart (vLLM; SGLang 1.3e-5, the reference "
    "2.3e-5), the mildest planted fault 4e-3. fp16 0.3 (0.03) and bf16 1.5 (0.15): right models were at most 0.11 "
    "(0.008) and 0.68 (0.054) from fp32. Another greedy token passes only as a tie: a lead below 2e-3, 0.3, 1.0 nats, "
    "which no right model flips"
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
