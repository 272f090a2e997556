"""Fused attention over a paged cache, in the place of attention over a cache that is copied to grow.

A transformers cache concatenates: every decode step copies all keys and values of every layer before it reads them
again. Here they are written into pages once and read where they lie. Where our op does not apply (a mask, a sliding
window, more than one request) the model's own attention gets a view of the pages.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch

from gaugeblock.conformance.profiling.patching import Call, Patches

PAGE = 16
SPARE = 256
"""Tokens that a cache has room for beyond its first."""


class Pages:
    """What the layers of one cache share: the block table ``[1, pages]``, and lengths and starts for the ops, int32."""

    def __init__(self) -> None:
        self.length = 0
        self.table = torch.empty(0)
        self.lengths = torch.empty(0)
        self._starts: dict[int, torch.Tensor] = {}

    def grow(self, tokens: int, pages: int, device: torch.device) -> None:
        """Note ``tokens`` more, in caches of ``pages`` pages. Nothing waits for the device."""
        self.length += tokens
        if self.table.numel() != pages:
            self.table = torch.arange(pages, dtype=torch.int32, device=device)[None]
        if self.lengths.numel():
            self.lengths = self.lengths + tokens  # not in place: a kernel may still be reading it
        else:
            self.lengths = torch.full((1,), tokens, dtype=torch.int32, device=device)

    def starts(self, tokens: int) -> torch.Tensor:
        """Return where one request's ``tokens`` new tokens start and end, ``[2]``."""
        if tokens not in self._starts:
            self._starts[tokens] = torch.arange(2, dtype=torch.int32, device=self.table.device) * tokens
        return self._starts[tokens]


@cache
def _paged_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class PagedLayer(DynamicLayer):  # type: ignore[no-untyped-call] # transformers ships no types
        """Keys and values of one request in pages ``[pages, PAGE, KV heads, head_dim]``; ``keys`` is a view of them."""

        def __init__(self, shared: Pages, first: bool) -> None:
            super().__init__()  # type: ignore[no-untyped-call] # the same
            self.shared, self.first = shared, first
            self.k_pages = self.v_pages = torch.empty(0)

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
            """Write the new tokens, ``[1, KV heads, tokens, head_dim]``, and return views of all."""
            done, new = self.get_seq_length(), key_states.shape[2]
            self.k_pages = _with_room(self.k_pages, key_states, done)
            self.v_pages = _with_room(self.v_pages, value_states, done)
            if self.first:
                self.shared.grow(new, len(self.k_pages), key_states.device)
            views = []
            for pages, states in ((self.k_pages, key_states), (self.v_pages, value_states)):
                flat = pages.flatten(0, 1)  # [slots, KV heads, head_dim]
                flat[done : done + new] = states[0].transpose(0, 1)
                views.append(flat[: done + new].transpose(0, 1)[None])
            self.keys, self.values = views
            self.is_initialized = True
            return self.keys, self.values

    return PagedLayer


def _with_room(pages: torch.Tensor, states: torch.Tensor, done: int) -> torch.Tensor:
    """Return pages that take ``states`` behind ``done`` tokens: the same, or larger ones with the same beginning."""
    _, heads, new, dim = states.shape
    if pages.numel() and done + new <= pages.shape[0] * PAGE:
        return pages
    larger = states.new_empty(-(-(done + new + max(done, SPARE)) // PAGE), PAGE, heads, dim)
    if done:
        larger[: len(pages)] = pages
    return larger


def install_decode_attention(model: Any, call: Call, patches: Patches) -> int:
    """Attend with one query token a request."""

    def attend(query: torch.Tensor, layer: Any, scale: float) -> torch.Tensor | None:
        if query.shape[2] != 1:
            return None
        shared = layer.shared
        out: torch.Tensor = call(
            query[:, :, 0], layer.k_pages, layer.v_pages, shared.table, shared.lengths, scale
        )  # [1, heads, head_dim]
        return out[:, None]

    return _install(model, attend, patches)


def install_extend_attention(model: Any, call: Call, patches: Patches) -> int:
    """Attend with several new tokens, causally, behind those that are there."""

    def attend(query: torch.Tensor, layer: Any, scale: float) -> torch.Tensor | None:
        tokens = query.shape[2]
        if tokens == 1:
            return None
        shared = layer.shared
        new = query[0].transpose(0, 1)  # [tokens, heads, head_dim]
        out: torch.Tensor = call(
            new, layer.k_pages, layer.v_pages, shared.table, shared.lengths, shared.starts(tokens), scale
        )
        return out[None]

    return _install(model, attend, patches)


def _install(model: Any, attend: Call, patches: Patches) -> int:
    """Give the model's module a paged cache and an attention that tries ``attend`` first."""
    module = sys.modules[type(model).__module__]
    interfaces = getattr(module, "ALL_ATTENTION_FUNCTIONS", None)
    dynamic = getattr(module, "DynamicCache", None)
    parts = [m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "num_key_value_groups")]
    sliding = getattr(model.config, "sliding_window", None)  # of all layers, unless they say it themselves
    parts = [m for m in parts if getattr(m, "sliding_window", sliding) is None]
    if interfaces is None or dynamic is None or not parts or model.config._attn_implementation != "sdpa":
        return 0
    router = interfaces if isinstance(interfaces, _Interfaces) else _Interfaces(interfaces, dynamic)
    if router is not interfaces:
        patches.set(module, "ALL_ATTENTION_FUNCTIONS", router)
        patches.set(module, "DynamicCache", router.make_cache)
    router.attends.append(attend)
    return len(parts)


class _Interfaces:
    """Stands for transformers' table of attention functions, and makes the caches that go with it."""

    def __init__(self, original: Any, dynamic: Any) -> None:
        self.original, self.dynamic = original, dynamic
        self.attends: list[Call] = []
        self._layers: list[Any] = []  # of the cache made last

    def make_cache(self, *arguments: Any, **options: Any) -> Any:
        """Return a cache whose plain layers are paged."""
        made = self.dynamic(*arguments, **options)
        plain = [i for i, layer in enumerate(made.layers) if type(layer) is _paged_layer().__base__]
        shared = Pages()
        for i in plain:
            made.layers[i] = _paged_layer()(shared, i == plain[0])
        self._layers = made.layers
        return made

    def get_interface(self, name: str, default: Any) -> Call:
        """Return the function that a layer's attention calls."""
        own = self.original.get_interface(name, default)

        def attention(
            part: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
        ) -> Any:
            layer = self._layers[part.layer_idx] if part.layer_idx < len(self._layers) else None
            special = any(options.get(name) is not None for name in ("sliding_window", "softcap", "s_aux"))
            if getattr(layer, "keys", None) is key and mask is None and not special and len(query) == 1:
                for attend in self.attends:
                    out = attend(query, layer, options.get("scaling") or query.shape[-1] ** -0.5)
                    if out is not None:
                        return out, None
            return own(part, query, key, value, mask, **options)

        return attention
