"""The KV of one layer: a ring of hot tokens on the device, and where the older ones have gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from gaugeblock.reference.engine._streamed_attention import Merged, attend, attend_within, takes_lower_right
from gaugeblock.reference.engine._streamed_copies import Ticket
from gaugeblock.reference.engine._streamed_tiers import Run
from gaugeblock.reference.engine.errors import PrefillError

if TYPE_CHECKING:
    from gaugeblock.reference.engine._streamed_cache import StreamedCache


_NOTHING = nullcontext()


def without_grad() -> AbstractContextManager[object]:
    """``torch.no_grad()``, or nothing where it holds already: entering it in every layer costs as much as a copy."""
    return torch.no_grad() if torch.is_grad_enabled() else _NOTHING


class StreamedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call] # transformers ships no types
    """Tokens ``start`` to ``end`` are hot: position p lies in row p % rows of ``ring`` [rows, 2, kv_heads, head_dim].
    ``ring_keys`` and ``ring_values`` [1, kv_heads, rows, head_dim] are views of it.

    Older ones are cold: in the cache's tier as ``runs``, in order and without a gap, or dropped for good where a
    sliding window (``sliding_window`` tokens, the query's own among them) hides them from every later query.
    """

    is_croppable = False

    def __init__(self, cache: StreamedCache, index: int, sliding_window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # transformers ships no types
        self.cache = cache
        self.index = index
        self.sliding_window = sliding_window
        self.is_sliding = sliding_window is not None
        self.ring = self.ring_keys = self.ring_values = torch.empty(0)
        self.room = 0  # rows of the ring
        self.start = self.end = 0
        self.runs: list[Run] = []
        self.leaving: list[Ticket] = []  # copies that still read the ring
        self.is_initialized = True  # as far as transformers is concerned: nothing is to be made early

    # What transformers asks a layer

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take in new tokens [1, kv_heads, tokens, head_dim] and return what attention needs.

        While the cache is attached to its model that is nothing more: our attention reads the layer. Otherwise it is
        the whole of the keys and values, streamed back for the model's own attention.
        """
        with without_grad():
            if self.cache.attached:
                self.cache.before_update(self, key_states.shape[2])
                self.append(key_states, value_states)
                return key_states, value_states
            return self._completed(key_states, value_states)

    def get_seq_length(self) -> int:
        """Tokens seen so far."""
        return self.end

    def get_max_length(self) -> int:
        """No limit but a sliding window."""
        return self.sliding_window or -1

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """Length and first position of the keys that :meth:`update` returns to the model's own attention."""
        count = query_length if isinstance(query_length, int) else len(query_length)  # older releases: positions
        first = self._first_needed()
        return self.end - first + count, first

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the ring is made with the first tokens."""

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse: what has left the device cannot be cut."""
        raise PrefillError("a cache of chunked_prefill cannot be cropped: prefill the shorter prompt")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Refuse: one sequence has no order."""
        raise PrefillError("a cache of chunked_prefill holds one sequence: no beam search")

    batch_repeat_interleave = batch_select_indices = reorder_cache

    def reset(self) -> None:
        """Refuse: a fresh prefill makes a fresh cache."""
        raise PrefillError("a cache of chunked_prefill cannot be reset: call chunked_prefill again")

    def release(self) -> None:
        """Let the device's memory go; the layer is of no use afterwards."""
        self.ring = self.ring_keys = self.ring_values = torch.empty(0)

    # Writing

    def append(self, k: Tensor, v: Tensor) -> None:
        """Write new tokens behind the last one; what they push out must have left before."""
        if k.shape != v.shape or k.shape[0] != 1:
            raise PrefillError(
                f"keys {tuple(k.shape)} and values {tuple(v.shape)}: need one sequence, equal head sizes"
            )
        count = k.shape[2]
        self.make_room(count)
        for ticket in self.leaving:
            self.cache.copier.wait(ticket)
        self.leaving.clear()
        self._grow(count, k)
        done = 0
        for row, length in self._spans(self.end, self.end + count):
            self.ring_keys.narrow(2, row, length).copy_(k.narrow(2, done, length))
            self.ring_values.narrow(2, row, length).copy_(v.narrow(2, done, length))
            done += length
        self.end += count
        self.cache.hot_tokens = max(self.cache.hot_tokens, self.end - self.start)

    def make_room(self, count: int) -> None:
        """Let the oldest hot tokens go if ``count`` new ones would not fit beside them."""
        if self.sliding_window is not None:
            self.start = max(self.start, self._first_needed())
            return
        plan = self.cache.plan
        if plan.keep is None or plan.limit is None or self.cache.tier is None:
            return
        if count > plan.chunk:
            raise PrefillError(f"{count} tokens in a call, a step has room for chunk_size={plan.chunk}")
        if self.end - self.start + count > plan.limit:
            self._evict(max(self.start, self.end - plan.keep))

    def _evict(self, stop: int) -> None:
        """Start copying the hot tokens before ``stop`` to the tier; the next write waits until they have left."""
        tier, index = self.cache.tier, self.index
        assert tier is not None
        while self.start < stop:
            start = self.start
            rows = next(self._rows(start, min(stop, start + self.cache.plan.piece)))

            def copy(start: int = start, rows: Tensor = rows) -> None:
                tier.store(index, start, rows)

            self.leaving.append(self.cache.copier.submit("out", rows.nbytes, copy))
            self.start = start + len(rows)
            self.runs.append((start, self.start))

    def _grow(self, count: int, like: Tensor) -> None:
        """Make the ring large enough: at first for the whole prompt, if it may hold it."""
        hot = self.end - self.start + count
        if hot <= self.room:
            return
        rows = max(hot, min(self.cache.expected, self._most() or self.cache.expected), 2 * self.room)
        rows = min(rows, self._most() or rows)
        with torch.inference_mode(False):
            ring = torch.empty((rows, 2, like.shape[1], like.shape[3]), dtype=like.dtype, device=like.device)
            keys, values = _heads_first(ring)
        self.cache.meter.take(ring.nbytes)
        old, parts = self.ring, list(self._rows(self.start, self.end))
        self.ring, self.ring_keys, self.ring_values, self.room = ring, keys, values, rows
        position = self.start
        for part in parts:
            done = 0
            for place in self._rows(position, position + len(part)):
                place.copy_(part[done : done + len(place)])
                done += len(place)
            position += len(part)
        self.cache.meter.give(old.nbytes)

    def _most(self) -> int | None:
        """Rows that the ring may have at most."""
        if self.sliding_window is not None:
            return self.sliding_window - 1 + self.cache.plan.chunk
        return self.cache.plan.limit if self.cache.tier is not None else None

    # Reading

    def _spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Where hot positions lie, in order, as (first row, rows): two where the ring ends between them."""
        spans: list[tuple[int, int]] = []
        while start < stop:
            row = start % self.room
            spans.append((row, min(stop - start, self.room - row)))
            start += spans[-1][1]
        return spans

    def _rows(self, start: int, stop: int) -> Iterator[Tensor]:
        """The same as views [tokens, 2, kv_heads, head_dim]."""
        return (self.ring.narrow(0, row, count) for row, count in self._spans(start, stop))

    def _hot(self, row: int, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values [1, kv_heads, count, head_dim] that lie in the rows from ``row`` on."""
        return self.ring_keys.narrow(2, row, count), self.ring_values.narrow(2, row, count)

    def _first_needed(self) -> int:
        """The oldest position that the next query sees."""
        return 0 if self.sliding_window is None else max(0, self.end - self.sliding_window + 1)

    def pieces(self) -> list[list[Run]]:
        """The cold runs in groups that fit a staging buffer."""
        groups: list[list[Run]] = []
        for run in self.runs:
            if groups and run[1] - groups[-1][0][0] <= self.cache.plan.piece:
                groups[-1].append(run)
            else:
                groups.append([run])
        return groups

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attend from the newest tokens ``q`` [1, heads, tokens, head_dim] to all that they may see; same shape back.

        ``k``, ``v`` are their own keys and values, which are in the ring already.
        """
        first = self.end - q.shape[2]
        if self.sliding_window is not None and self.end - self.start > self.sliding_window:
            return self._attend_sliding(q, first, scale)
        merged = Merged()
        hot = self._spans(self.start, self.end)
        if len(hot) == 1 and takes_lower_right(q):
            self._add(merged, q, *self._hot(*hot[0]), True, scale)
        else:
            for span in self._spans(self.start, first):
                self._add(merged, q, *self._hot(*span), False, scale)
            self._add(merged, q, k, v, True, scale)
        for rows in self.cache.stream(self):  # the cold ones last: they may still be on their way
            self._add(merged, q, *_heads_first(rows), False, scale)
            self.cache.stats.pieces += 1
        return merged.result().to(q.dtype)

    def _add(self, merged: Merged, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> None:
        merged.add(*attend(q, k, v, causal=causal, scale=scale))
        self.cache.stats.attention_calls += 1

    def _attend_sliding(self, q: Tensor, first: int, scale: float) -> Tensor:
        """One masked call over the rows as they lie in the ring."""
        used = self.ring[: self.end]  # rows that were never written may hold NaN
        rows = torch.arange(len(used), device=q.device)
        positions = self.end - 1 - (self.end - 1 - rows) % self.room  # the newest that lies in each row
        queries = torch.arange(first, self.end, device=q.device)[:, None]
        seen = self._window_mask(queries, positions) & (positions >= self.start)
        self.cache.stats.attention_calls += 1
        return attend_within(q, *_heads_first(used), seen, scale)

    def _window_mask(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Which key positions each query position sees: itself and the ``sliding_window`` - 1 before it."""
        assert self.sliding_window is not None
        return (keys <= queries) & (keys > queries - self.sliding_window)

    def _completed(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append, and return the keys and values that the model's own attention needs, in order."""
        count = k.shape[2]
        whole = self._gathered(k, count)
        self.cache.meter.take(whole.nbytes)
        done = len(whole) - count
        whole[done:, 0].copy_(k[0].transpose(0, 1))
        whole[done:, 1].copy_(v[0].transpose(0, 1))
        for begin in range(0, count, self.cache.plan.chunk):
            stop = min(count, begin + self.cache.plan.chunk)
            self.append(k[:, :, begin:stop], v[:, :, begin:stop])
        self.cache.meter.give(whole.nbytes)  # it lives as long as this layer computes
        return _heads_first(whole)

    def read(self) -> tuple[Tensor, Tensor]:
        """Return the keys and values [1, kv_heads, tokens, head_dim] of all tokens that the next one sees, in order."""
        return _heads_first(self._gathered(self.ring[:0, 0].transpose(0, 1)[None], 0))

    def _gathered(self, like: Tensor, more: int) -> Tensor:
        """Rows of all tokens that the next one sees, wherever they are, and room for ``more``."""
        first = self._first_needed()
        rows = torch.empty(
            (self.end - first + more, 2, like.shape[1], like.shape[3]), dtype=like.dtype, device=like.device
        )
        if self.runs:
            self._load_cold(rows)
        done = max(self.start, first) - first
        for hot in self._rows(max(self.start, first), self.end):
            rows[done : done + len(hot)].copy_(hot)
            done += len(hot)
        return rows

    def _load_cold(self, whole: Tensor) -> None:
        tier, index, runs = self.cache.tier, self.index, list(self.runs)
        assert tier is not None
        into = whole[: self.start]
        self.cache.copier.wait(self.cache.copier.submit("in", into.nbytes, lambda: tier.load(index, runs, into)))


def _heads_first(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [1, kv_heads, tokens, head_dim] of rows [tokens, 2, kv_heads, head_dim], without a copy."""
    keys, values = rows.unsqueeze(0).permute(2, 0, 3, 1, 4).unbind()
    return keys, values
