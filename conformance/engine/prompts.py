"""Prompts that every check makes for itself, so that no check warms the cache of another."""

from __future__ import annotations

import random
from functools import cache

from gaugeblock.fixtures.targets.engine import EngineTarget

_TEXT = (
    "the river ran past an old mill where a child kept her boat and each spring the water rose over its stones "
    "while people from town came to watch how light moved across that field before rain then left with bread "
    "salt or honey because winter had been long so nobody could say when roads would open again though most of "
    "them hoped for May"
)
_WORDS = _TEXT.split()


def prose(seed: str, words: int) -> str:
    """English-looking text of ``words`` words; another ``seed`` differs from the first word on."""
    rng = random.Random(seed)
    picked = [seed, *(rng.choice(_WORDS) for _ in range(words))]
    for i in range(7, len(picked), 11):
        picked[i] += "."
    return " ".join(picked)


@cache
def prose_ids(engine: EngineTarget, seed: str, count: int) -> tuple[int, ...]:
    """Token ids of such a text, exactly ``count`` of them, by the target's own tokenizer."""
    ids: tuple[int, ...] = ()
    words = count // 4 + 8
    while len(ids) < count:
        ids = text_ids(engine, prose(seed, words))
        words *= 2
    return ids[:count]


def text_ids(engine: EngineTarget, text: str) -> tuple[int, ...]:
    """Token ids of ``text`` by ``/tokenize``, or by what a generation says about its prompt."""
    if "tokenize" in engine.features:
        return engine.tokenize(text)
    answer = engine.generate(text=text, sampling={"max_new_tokens": 1}, return_logprob=True, logprob_start_len=0)
    return tuple(token.token_id for token in answer.input_logprobs or ())
