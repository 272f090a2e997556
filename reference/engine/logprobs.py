"""Log-probabilities of the raw logits: no temperature, no penalties, no filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from gaugeblock.reference.engine.types import TokenLogprob


@dataclass
class PromptLogprobs:
    """Logprobs of the prompt from position ``start`` on, collected chunk by chunk.

    The first entry is None: as SGLang does, computing begins at ``start``, so nothing predicts that token.
    """

    start: int
    top_num: int
    tokens: list[TokenLogprob] = field(default_factory=list)
    top: list[list[TokenLogprob] | None] = field(default_factory=list)

    def begin(self, first_token: int) -> None:
        """Forget what was collected and enter the token at ``start``."""
        self.tokens = [(None, first_token)]
        self.top = [None]

    def extend(self, logits: Tensor, next_tokens: Sequence[int]) -> None:
        """Enter ``next_tokens``, each predicted by its row of ``logits`` [rows, vocab]."""
        values, top = token_logprobs(logits, next_tokens, self.top_num)
        self.tokens += zip(values, next_tokens, strict=True)
        self.top += top


def token_logprobs(logits: Tensor, tokens: Sequence[int], top_num: int) -> tuple[list[float], list[list[TokenLogprob]]]:
    """Return the logprob (nats) of one token per row of ``logits`` [rows, vocab], and the ``top_num`` best per row."""
    logprobs = logits.log_softmax(-1)
    values = [float(logprobs[row, token]) for row, token in enumerate(tokens)]
    if not top_num:
        return values, [[] for _ in tokens]
    best = logprobs.topk(min(top_num, logprobs.shape[-1]))
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return values, [list(zip(row_values, row_ids, strict=True)) for row_values, row_ids in rows]
