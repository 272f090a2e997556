"""What ``chunked_prefill`` will not do, told before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gaugeblock.reference.engine.errors import PrefillError


def check_sizes(chunk_size: int, window: int | None) -> None:
    """Refuse sizes below one.

    Raises:
        PrefillError: naming the value and the legal ones.
    """
    for name, value in (("chunk_size", chunk_size), ("window", window)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            extra = " (None: everything stays on the device)" if name == "window" else ""
            raise PrefillError(f"{name} must be a whole number of tokens, at least 1, not {value!r}{extra}")


def device_of(model: Any) -> torch.device:
    """Return the one device that a model is on.

    Raises:
        PrefillError: no weights, several devices, or the meta device.
    """
    devices: set[torch.device] = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1 or (device := devices.pop()).type == "meta":
        raise PrefillError(
            f"{type(model).__name__} must have its weights on one device, 'cpu' or 'cuda:N': "
            "load it with from_pretrained(…).to(device)"
        )
    return device


def as_ids(input_ids: Tensor | Sequence[int], model: Any, device: torch.device) -> Tensor:
    """Return a prompt as [1, tokens] int64 on the model's device.

    Raises:
        PrefillError: empty, several sequences, no integers, longer than the model allows, or beyond its vocabulary.
    """
    try:
        ids = torch.as_tensor(input_ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PrefillError(f"input_ids must be token ids of one sequence, [tokens] or [1, tokens]: {error}") from None
    if ids.numel() == 0:
        raise PrefillError("the prompt is empty: give at least one token (bos)")
    if ids.dim() == 2 and len(ids) == 1:
        ids = ids[0]
    if ids.dim() != 1:
        raise PrefillError(f"input_ids {list(ids.shape)}: one sequence a call, [tokens] or [1, tokens]")
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise PrefillError(f"input_ids must be integers, not {ids.dtype}")
    config = model.config.get_text_config(decoder=True)
    _check_length(len(ids), config)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= config.vocab_size:
        raise PrefillError(f"token ids must be 0 to {config.vocab_size - 1}, not {low if low < 0 else high}")
    return ids.to(device=device, dtype=torch.int64)[None]


def _check_length(tokens: int, config: Any) -> None:
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise PrefillError(f"the prompt has {tokens} tokens, the model's max_position_embeddings is {limit}")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", "default")
    short = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if kind in ("dynamic", "longrope") and short and tokens > short:
        raise PrefillError(
            f"rope_type {kind!r} turns all tokens otherwise once a prompt is longer than {short}: in chunks the first "
            f"ones would be turned as in a short prompt; at most {short} tokens"
        )


def sliding_windows(model: Any) -> list[int | None]:
    """Return each layer's sliding window; None for full attention.

    Raises:
        PrefillError: layers of another kind, or an encoder.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if getattr(model.config, "is_encoder_decoder", False) or not hasattr(model, "get_output_embeddings"):
        raise PrefillError(f"{type(model).__name__} is no causal language model of transformers")
    found: list[int | None] = []
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            found.append(int(layer.sliding_window))
        elif type(layer) is DynamicLayer:
            found.append(None)
        else:
            raise PrefillError(f"layers of {type(layer).__name__} cannot be streamed, only full and sliding attention")
    if not found:
        raise PrefillError(f"{type(model).__name__} has no attention layers")
    return found


def check_window(window: int | None, offload: Any, tokens: int, sliding: Sequence[int | None]) -> None:
    """Refuse what would change results.

    Raises:
        PrefillError: a window that hides tokens which the model sees, or an ``offload`` without a window.
    """
    if window is None:
        if offload is not None:
            raise PrefillError(f"offload={offload!r} needs a window: how many tokens of KV stay on the device")
        return
    widest = max((size for size in sliding if size is not None), default=0)
    if window < min(widest - 1, tokens):
        raise PrefillError(
            f"window={window} is less than the model's own sliding window needs: at least {widest - 1} tokens"
        )
    if offload is None and None in sliding and window < tokens:
        raise PrefillError(
            f"window={window} without offload would drop KV that full attention needs, and change the results: give "
            f"offload='host' or a folder, a window of at least {tokens} (the prompt), or none"
        )
