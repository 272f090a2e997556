"""A transformers cache with a hot window on the device, and the attention function that goes with it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from gaugeblock.reference.engine._streamed_copies import Copier, StreamStats, Ticket
from gaugeblock.reference.engine._streamed_layer import StreamedLayer, without_grad
from gaugeblock.reference.engine._streamed_plan import Plan
from gaugeblock.reference.engine._streamed_tiers import ColdTier, Run
from gaugeblock.reference.engine.errors import PrefillError

ATTENTION = "gaugeblock_streamed"
"""The name under which our attention is registered with transformers. It takes no mask: positions say all."""

_cache: ContextVar[StreamedCache | None] = ContextVar("gaugeblock_streamed_cache", default=None)


class Meter:
    """Bytes of KV on the device: rings, staging buffers, and what is put together for a model's own attention."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0

    def take(self, size: int) -> None:
        """Count what was allocated."""
        self.now += size
        self.peak = max(self.peak, self.now)

    def give(self, size: int) -> None:
        """Count what is free again."""
        self.now -= size


@dataclass
class Loaded:
    """A cold piece under way to a staging buffer."""

    layer: StreamedLayer
    rows: Tensor  # [tokens, 2, kv_heads, head_dim], in the buffer
    buffer: int
    ticket: Ticket


class StreamedCache(Cache):
    """KV of one sequence. Made by ``chunked_prefill``; works as ``past_key_values`` of the same model.

    ``sliding``: of each layer the size of its sliding window, or None. ``expected``: tokens of the prompt.
    """

    def __init__(self, sliding: list[int | None], plan: Plan, expected: int, copier: Copier, tier: ColdTier | None):
        self.plan = plan
        self.expected = expected
        self.copier = copier
        self.stats: StreamStats = copier.stats
        self.tier = tier
        self.meter = Meter()
        self.attached = False
        self.upcoming = 0  # tokens of the next step, if it is known to come
        self.hot_tokens = 0  # most that a layer has had on the device in this step
        self.hot_steps: list[int] = []  # the same of each step that is over
        self._buffers: list[Tensor] = []
        self._waiting: deque[tuple[StreamedLayer, list[Run]]] = deque()  # pieces of this step, not submitted yet
        self._loads: deque[Loaded] = deque()
        self._begun = False
        self._streamed = [StreamedLayer(self, index, size) for index, size in enumerate(sliding)]
        super().__init__(layers=list(self._streamed))

    # One step: layers in their order, and the cold pieces of all of them as one stream

    def before_update(self, layer: StreamedLayer, count: int) -> None:
        """Begin a step of ``count`` tokens with its first layer."""
        if layer.index == 0:
            self._begin(count)

    def after_attention(self, layer: StreamedLayer) -> None:
        """Let go of what the next step has no room for, while the layers behind this one compute."""
        if self.upcoming:
            layer.make_room(self.upcoming)
        if layer.index == len(self._streamed) - 1:
            if self._loads or self._waiting:
                raise PrefillError(f"{len(self._loads) + len(self._waiting)} pieces of KV were not attended to")
            self._begun = False
            self.hot_steps.append(self.hot_tokens)
            self.hot_tokens = 0
            if self.upcoming:
                self._begin(self.upcoming)

    def _begin(self, count: int) -> None:
        if self._begun:
            return
        self._begun = True
        for layer in self._streamed:
            layer.make_room(count)
            self._waiting.extend((layer, piece) for piece in layer.pieces())
        for buffer in range(self.plan.buffers):
            self._load_next(buffer)

    def _load_next(self, buffer: int) -> None:
        """Start filling a buffer with the next piece. The copy runs behind all attention that has been issued."""
        if not self._waiting:
            return
        layer, runs = self._waiting.popleft()
        tier = self.tier
        assert tier is not None
        rows = self._buffer(buffer, layer.ring).narrow(0, 0, runs[-1][1] - runs[0][0])
        ticket = self.copier.submit("in", rows.nbytes, lambda: tier.load(layer.index, runs, rows))
        self._loads.append(Loaded(layer, rows, buffer, ticket))

    def stream(self, layer: StreamedLayer) -> Iterator[Tensor]:
        """Yield the cold rows of a layer, piece by piece; each is gone when the next one is asked for."""
        while self._loads and self._loads[0].layer is layer:
            loaded = self._loads.popleft()
            self.copier.wait(loaded.ticket)
            yield loaded.rows
            self._load_next(loaded.buffer)

    def _buffer(self, index: int, like: Tensor) -> Tensor:
        while len(self._buffers) <= index:
            with torch.inference_mode(False):
                self._buffers.append(like.new_empty((self.plan.piece, *like.shape[1:])))
            self.meter.take(self._buffers[-1].nbytes)
        return self._buffers[index]

    def layer_of(self, module: Any) -> StreamedLayer:
        """The KV of an attention module."""
        return self._streamed[int(module.layer_idx)]

    # What the user sees

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [1, kv_heads, tokens, head_dim] of a layer in order of position, streamed back.

        Of a layer with a sliding window those that the next token sees.
        """
        return self._streamed[layer].read()

    def settle(self) -> None:
        """Wait for every copy that is under way.

        Raises:
            PrefillError: one failed.
        """
        for layer in self._streamed:
            for ticket in layer.leaving:
                self.copier.wait(ticket)
            layer.leaving.clear()

    def close(self) -> None:
        """Give back threads, memory and files. The cache is of no use afterwards.

        Raises:
            PrefillError: a copy does not end; the tier stays open for it, so that it writes into no other file.
        """
        self.copier.lane.close()
        for layer in self._streamed:
            layer.release()  # cache and layers refer to each other: the memory must not wait for a garbage collection
        self._buffers.clear()
        self._loads.clear()
        if self.tier is not None:
            self.tier.close()

    @contextmanager
    def attached_to(self, model: Any) -> Iterator[None]:
        """Let the model attend through this cache. Its attention is another one meanwhile: one caller at a time.

        Raises:
            PrefillError: its attention cannot be replaced.
        """
        before = model.config._attn_implementation
        _replace(model, ATTENTION)
        token = _cache.set(self)
        self.attached = True
        try:
            yield
        finally:
            self.attached = False
            self._begun = False
            _cache.reset(token)
            model.set_attn_implementation(before)


def _replace(model: Any, name: str) -> None:
    """Set the attention implementation, and see that it is set."""
    log = logging.getLogger("transformers.modeling_utils")
    level = log.level
    log.setLevel(logging.ERROR)  # the warning becomes an error below
    try:
        model.set_attn_implementation(name)
    except (ValueError, AttributeError) as error:
        raise PrefillError(f"the attention of {type(model).__name__} cannot be replaced: {error}") from error
    finally:
        log.setLevel(level)
    if model.config._attn_implementation != name:
        raise PrefillError(
            f"the attention of {type(model).__name__} cannot be replaced: it does not look it up in transformers' "
            "AttentionInterface; use a model that does (the Llama family does)"
        )


def streamed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float | None = None, **kw: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: ``query`` [1, heads, tokens, head_dim] → [1, tokens, heads, head_dim].

    Raises:
        PrefillError: called without a cache, with a mask, or for attention of another kind.
    """
    cache = _cache.get()
    if cache is None:
        raise PrefillError(f"attention {ATTENTION!r} works within chunked_prefill and result.streaming() alone")
    odd = [name for name in ("softcap", "s_aux", "position_bias") if kw.get(name) is not None]
    if odd or attention_mask is not None or (kw.get("dropout") and module.training):
        what = ", ".join(odd) or "a mask or dropout"
        raise PrefillError(f"{type(module).__name__} attends with {what}: that cannot be streamed")
    layer = cache.layer_of(module)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    with without_grad():
        out = layer.attend(query, key, value, scale)
        cache.after_attention(layer)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, streamed_attention)
