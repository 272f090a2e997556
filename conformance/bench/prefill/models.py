"""The model that is swept: a folder, or random weights in the shape of a known one, which cost the same time."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import torch

from gaugeblock.fixtures.errors import KitError, legal_name

SHAPES: dict[str, dict[str, Any]] = {
    # HuggingFaceTB/SmolLM2-135M's config.json
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "rope_theta": 100000.0,
    },
    # HuggingFaceTB/SmolLM2-1.7B's config.json
    "smollm2-1.7b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "rope_theta": 130000.0,
    },
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load(folder: Path | None, shape: str | None, dtype: str, device: str) -> Any:
    """Return a causal LM in eval mode. One of ``folder`` and ``shape`` is given.

    Raises:
        KitError: an unknown shape or dtype, or a folder that transformers cannot load.
    """
    transformers: Any = importlib.import_module("transformers")  # slow to load
    transformers.utils.logging.disable_progress_bar()
    precision = DTYPES[legal_name("dtype", dtype, DTYPES)]
    if shape is not None:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPES[legal_name("shape", shape, SHAPES)]))
    elif folder is None or not (folder / "config.json").is_file():
        raise KitError(f"no model folder at {folder}: give a Hugging Face folder with config.json")
    else:
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise KitError(f"transformers cannot load {folder}: {error}") from error
    return model.to(device=device, dtype=precision).eval()


def kv_row(model: Any) -> tuple[int, int, int]:
    """Return the shape of one token's KV in one layer: (2, kv_heads, head_dim)."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2, config.num_key_value_heads, head_dim


def kv_bytes_per_token(model: Any) -> int:
    """Return the bytes of K and V of one token over all layers."""
    return int(model.config.num_hidden_layers * math.prod(kv_row(model)) * model.dtype.itemsize)
