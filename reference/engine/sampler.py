"""Picking tokens: one row of logits and one request at a time, except that plain greedy rows go together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugeblock.reference.engine.types import SamplingParams


@dataclass(frozen=True)
class SampleContext:
    """What a pick depends on besides the logits."""

    params: SamplingParams
    seed: int  # the request's own, or one drawn at submission
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    stop_ids: frozenset[int]  # may not be picked before min_new_tokens


def sample(logits: Tensor, contexts: Sequence[SampleContext]) -> list[int]:
    """Return one token id per row of ``logits`` [rows, vocab] fp32, which stay as they are."""
    picks: list[int] = logits.argmax(-1).tolist()
    for row, context in enumerate(contexts):
        if not _is_plain_greedy(context):
            picks[row] = _pick(adjust(logits[row], context), context)
    return picks


def _is_plain_greedy(context: SampleContext) -> bool:
    p = context.params
    penalised = p.frequency_penalty or p.presence_penalty or p.repetition_penalty != 1.0 or p.logit_bias
    return p.temperature == 0 and not penalised and len(context.output_ids) >= p.min_new_tokens


def _pick(logits: Tensor, context: SampleContext) -> int:
    if context.params.temperature == 0:
        return int(logits.argmax())
    return draw(distribution(logits, context.params), uniform(context.seed, len(context.output_ids)))


def adjust(logits: Tensor, context: SampleContext) -> Tensor:
    """Return a float64 copy of a row [vocab] with penalties, bias and the ban on stopping too early.

    The repetition penalty counts prompt and output (CTRL, arXiv 1909.05858, as in transformers); frequency and presence
    count the output alone (OpenAI's definition).
    """
    p, row = context.params, logits.to(torch.float64, copy=True)
    if p.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*context.prompt_ids, *context.output_ids}))
        values = row[seen]
        row[seen] = torch.where(values > 0, values / p.repetition_penalty, values * p.repetition_penalty)
    if p.frequency_penalty or p.presence_penalty:
        for token, count in Counter(context.output_ids).items():
            row[token] -= p.frequency_penalty * count + p.presence_penalty
    for token, bias in p.logit_bias.items():
        row[token] += bias
    if len(context.output_ids) < p.min_new_tokens:
        row[sorted(context.stop_ids)] = -torch.inf
    return row


def distribution(logits: Tensor, params: SamplingParams) -> Tensor:
    """Return probabilities [vocab] float64 after temperature, top-k, top-p and min-p, in that order.

    Top-p keeps the smallest set that reaches the mass, min-p what is at least that share of the largest. Of equal
    probabilities the lower id comes first.
    """
    probs = ((logits - logits.max()) / params.temperature).softmax(-1)
    if params.top_k < 0 and params.top_p == 1.0 and params.min_p == 0.0:
        return probs
    probs, order = probs.sort(descending=True, stable=True)
    if params.top_k > 0:
        probs = _keep(probs, torch.arange(len(probs)) < params.top_k)
    if params.top_p < 1.0:
        probs = _keep(probs, probs.cumsum(-1) - probs < params.top_p)
    if params.min_p > 0.0:
        probs = _keep(probs, probs >= params.min_p * probs[0])
    return torch.zeros_like(probs).scatter_(0, order, probs)


def _keep(probs: Tensor, kept: Tensor) -> Tensor:
    probs = probs * kept
    return probs / probs.sum()


def uniform(seed: int, index: int) -> float:
    """Return a number in [0, 1) that depends on (seed, index) alone."""
    digest = hashlib.sha256(f"gaugeblock.sample:{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def draw(probs: Tensor, u: float) -> int:
    """Return the id at which the cumulative distribution [vocab] passes ``u``; never one of probability zero."""
    cumulative = probs.cumsum(-1)
    index = int(torch.searchsorted(cumulative, u * float(cumulative[-1]), right=True))
    return min(index, int(probs.nonzero()[-1]))
