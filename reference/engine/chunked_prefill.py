"""Prefill of a transformers model in chunks, with a hot window of KV on the device and the rest streamed back.

    result = chunked_prefill(model, input_ids, 512, window=4096, offload="host")
    result.logits                                             # [1, vocab]: of the last token
    with result.streaming():                                  # decode within the same memory
        model(next_ids, past_key_values=result.cache)
    result.close()

Each chunk attends to all tokens before it at its absolute positions: to the hot ones in place, to the older ones piece
by piece as they come back from the tier, merged by log-sum-exp. So the result is that of one shot up to rounding, for
full attention and for sliding windows, while the device holds (window + chunk) tokens of KV and 5%.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gaugeblock.reference.engine._streamed_cache import StreamedCache
from gaugeblock.reference.engine._streamed_copies import Copier, StreamStats
from gaugeblock.reference.engine._streamed_disk import PageStore
from gaugeblock.reference.engine._streamed_lanes import Lane, choose_lane
from gaugeblock.reference.engine._streamed_plan import Plan, plan_stream
from gaugeblock.reference.engine._streamed_refusals import (
    as_ids,
    check_sizes,
    check_window,
    device_of,
    sliding_windows,
)
from gaugeblock.reference.engine._streamed_tiers import ColdTier, open_tier
from gaugeblock.reference.engine.errors import PrefillError

__all__ = ["PrefillError", "PrefillResult", "chunked_prefill"]


@dataclass
class PrefillResult:
    """What came of a prefill.

    ``logits`` [1, vocab] of the last token, in the model's dtype; ``all_logits`` [1, tokens, vocab] and
    ``prompt_logprobs`` [tokens - 1] fp32 (of each token but the first, in nats) if they were asked for.
    ``hot_tokens`` and ``hot_kv_bytes``: of each step, tokens of a layer and bytes of KV on the device, staging buffers
    included; ``peak_kv_bytes`` the most at any time of the prefill. Activations, the chunk's fresh keys among them, are
    not counted. ``stats`` goes on counting while one decodes with ``cache``.

    ``model(ids, past_key_values=result.cache)`` works as with any cache: one layer's KV at a time is put together on
    the device for the model's own attention. Within :meth:`streaming` it is streamed as in the prefill, so that
    (window + chunk) tokens stay the most; a call takes ``chunk_size`` tokens at most there.
    """

    model: Any
    logits: Tensor
    cache: StreamedCache
    stats: StreamStats
    peak_kv_bytes: int
    all_logits: Tensor | None = None
    prompt_logprobs: Tensor | None = None
    hot_tokens: list[int] = field(default_factory=list)
    hot_kv_bytes: list[int] = field(default_factory=list)

    def streaming(self) -> AbstractContextManager[None]:
        """A context in which calls of the model with ``cache`` stream it. One caller at a time."""
        return self.cache.attached_to(self.model)

    def close(self) -> None:
        """Give back threads, memory and files; ``cache`` is of no use afterwards."""
        self.cache.close()

    def __enter__(self) -> PrefillResult:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def chunked_prefill(
    model: Any,
    input_ids: Tensor | Sequence[int],
    chunk_size: int,
    *,
    window: int | None = None,
    offload: str | os.PathLike[str] | PageStore | ColdTier | None = None,
    overlap: bool | str | Lane = True,
    all_logits: bool = False,
    prompt_logprobs: bool = False,
) -> PrefillResult:
    """Compute a prompt in chunks and return its logits and a cache to go on with.

    ``model``: a causal LM of transformers whose attention goes through ``AttentionInterface``, on one device.
    ``input_ids``: one sequence, [tokens] or [1, tokens]. ``window``: at most ``window + chunk_size`` tokens of KV (and
    5%) are on the device; None keeps all. ``offload``: where older KV goes, ``"host"`` (pinned memory beside a GPU),
    a folder (for scratch files), a ``DiskStore``, or an object like those of ``_streamed_tiers``; a model whose layers
    all have a sliding window needs none, it drops what no token sees any more. ``overlap``: copies beside the
    computation (True), in line with it (False), as late as possible (``"delayed"``), or on a lane of the caller's own;
    the bytes are the same. While it runs, the model must not be used by another thread.

    Raises:
        PrefillError: an argument that is not legal, a model that cannot be streamed, a window that would change the
            results, a folder that cannot be written, or KV that the tier has lost. Nothing of it is left behind.
    """
    check_sizes(chunk_size, window)
    device = device_of(model)
    sliding = sliding_windows(model)
    ids = as_ids(input_ids, model, device)
    check_window(window, offload, ids.shape[1], sliding)
    cache = _make_cache(sliding, ids.shape[1], chunk_size, window, offload, overlap, device)
    collected = _Collected(all_logits, prompt_logprobs)
    result = PrefillResult(model, torch.empty(0), cache, cache.stats, 0)
    try:
        with torch.no_grad(), cache.attached_to(model):
            for start, stop in chunks(ids.shape[1], chunk_size):
                cache.upcoming = min(chunk_size, ids.shape[1] - stop)
                output = model(
                    input_ids=ids[:, start:stop],
                    position_ids=positions(start, stop, device),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=0 if collected.wanted else 1,
                )
                collected.take(output.logits, ids[0, start + 1 : stop + 1])
                cache.stats.steps += 1
                result.hot_kv_bytes.append(cache.meter.now)
            cache.settle()
            result.hot_tokens = list(cache.hot_steps)
    except BaseException:
        cache.close()
        raise
    result.logits, result.all_logits, result.prompt_logprobs = collected.results()
    result.peak_kv_bytes = cache.meter.peak
    return result


def chunks(tokens: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut positions 0 to ``tokens`` into consecutive chunks of ``size``, the last one shorter."""
    for start in range(0, tokens, size):
        yield start, min(start + size, tokens)


def positions(start: int, stop: int, device: torch.device) -> Tensor:
    """Position ids [1, tokens] of a chunk: absolute, whatever chunk it is."""
    return torch.arange(start, stop, device=device)[None]


def _make_cache(
    sliding: list[int | None],
    tokens: int,
    chunk_size: int,
    window: int | None,
    offload: Any,
    overlap: bool | str | Lane,
    device: torch.device,
) -> StreamedCache:
    full = sliding.count(None)
    streamed = window is not None and offload is not None and full > 0
    plan = plan_stream(window, chunk_size, full) if window is not None and streamed else Plan(chunk_size, None)
    tier = open_tier(offload, device, tokens - (plan.keep or 0), chunk_size) if streamed else None
    try:
        lane = choose_lane(overlap, device.type == "cuda", tier is not None and tier.blocking)
    except PrefillError:
        if tier is not None:
            tier.close()
        raise
    return StreamedCache(sliding, plan, tokens, Copier(device, lane, StreamStats()), tier)


class _Collected:
    """Logits as they come, chunk by chunk."""

    def __init__(self, all_logits: bool, prompt_logprobs: bool) -> None:
        self.wanted = all_logits or prompt_logprobs
        self._logits: list[Tensor] | None = [] if all_logits else None
        self._logprobs: list[Tensor] | None = [] if prompt_logprobs else None
        self._last = torch.empty(0)

    def take(self, logits: Tensor, following: Tensor) -> None:
        """Take a chunk's logits [1, tokens or 1, vocab] and the tokens that follow each of its tokens."""
        self._last = logits[:, -1]
        if self._logits is not None:
            self._logits.append(logits)
        if self._logprobs is not None and len(following):
            rows = logits[0, : len(following)].float()
            picked = rows.gather(1, following[:, None])[:, 0]
            self._logprobs.append(picked - rows.logsumexp(-1))

    def results(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Logits of the last token, of all, and logprobs."""
        logprobs = None
        if self._logprobs is not None:
            logprobs = torch.cat(self._logprobs) if self._logprobs else self._last.new_zeros(0, dtype=torch.float32)
        return self._last.clone(), torch.cat(self._logits, dim=1) if self._logits else None, logprobs
