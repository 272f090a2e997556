"""The one request that is profiled; whoever only sends it needs no torch."""

from __future__ import annotations

from gaugeblock.fixtures.errors import EnvironmentFault, TargetFault
from gaugeblock.fixtures.targets.engine import EngineTarget

TOKENS = 97
"""Prompts are token ids below it: every vocabulary has them, and no tokenizer is needed."""


def send(target: EngineTarget, prompt: int, decode: int, *, distinct: bool = False) -> None:
    """Generate; ``distinct`` so that no prefix of the warm-up is found in the cache.

    Raises:
        EnvironmentFault: it is not answered.
    """
    first = 1 if distinct else 2
    ids = [first, *((7 * i + first) % TOKENS for i in range(prompt - 1))]
    try:
        if "native-generate" in target.features:
            target.generate(input_ids=ids, sampling={"max_new_tokens": decode, "temperature": 0, "ignore_eos": True})
        else:
            target.completion(ids, max_tokens=decode)
    except TargetFault as error:
        raise EnvironmentFault(f"the engine did not answer the request to profile: {error}") from None
