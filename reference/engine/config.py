"""The architecture of a Llama or Mistral model, read from ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaugeblock.reference.engine.errors import ModelError

LLAMA, MISTRAL = "LlamaForCausalLM", "MistralForCausalLM"
ARCHITECTURES = (LLAMA, MISTRAL)  # one decoder, one layout of weights; Mistral may slide a window over the KV


@dataclass(frozen=True)
class ModelConfig:
    """Shapes and constants of a Llama decoder. Names as in Hugging Face's ``LlamaConfig`` and ``MistralConfig``.

    With a ``sliding_window`` W the query at position p sees the keys at p - W + 1 to p; None: all up to p.
    """

    architectures: tuple[str, ...]
    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    sliding_window: int | None = None

    @property
    def heads_per_kv_head(self) -> int:
        """How many query heads read one KV head."""
        return self.num_attention_heads // self.num_key_value_heads


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file cannot be read or holds something else; the message names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or return an empty one when there is no such file."""
    return load_json(path) if path.is_file() else {}


def model_folder(model_path: str) -> Path:
    """Return the folder of a model.

    Raises:
        ModelError: no such folder, or a file is missing from it.
    """
    folder = Path(model_path)
    needed = ("config.json", "model.safetensors", "tokenizer.json")
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}: give a Hugging Face folder with {', '.join(needed)}")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"model folder {folder} lacks {', '.join(missing)}; needed are {', '.join(needed)}")
    return folder


def load_config(folder: Path) -> ModelConfig:
    """Read ``config.json`` (and the end tokens of ``generation_config.json``).

    Raises:
        ModelError: another architecture, a missing field, or a variant of Llama that is not implemented.
    """
    path = folder / "config.json"
    raw = load_json(path)
    architectures = tuple(raw.get("architectures") or ())
    if not set(ARCHITECTURES) & set(architectures):
        legal = " and ".join(ARCHITECTURES)
        raise ModelError(f"{path}: architectures {list(architectures)} cannot be served, only {legal} can")
    _refuse_variants(path, raw)
    try:
        return _from_fields(raw, architectures, _eos_ids(folder, raw))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: field missing or of a wrong type: {error}") from error


def _from_fields(raw: dict[str, Any], architectures: tuple[str, ...], eos: tuple[int, ...]) -> ModelConfig:
    heads = int(raw["num_attention_heads"])
    hidden = int(raw["hidden_size"])
    rope = _rope(raw)
    return ModelConfig(
        architectures=architectures,
        model_type=str(raw.get("model_type", "llama")),
        vocab_size=int(raw["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(raw["intermediate_size"]),
        num_hidden_layers=int(raw["num_hidden_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(raw.get("num_key_value_heads") or heads),
        head_dim=int(raw.get("head_dim") or hidden // heads),
        max_position_embeddings=int(raw.get("max_position_embeddings", 2048)),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        eos_token_ids=eos,
        sliding_window=_sliding_window(raw, architectures),
    )


def _sliding_window(raw: dict[str, Any], architectures: tuple[str, ...]) -> int | None:
    """Return the window. Mistral's is 4096 when ``config.json`` does not say, as in transformers."""
    window = raw.get("sliding_window", 4096 if MISTRAL in architectures else None)
    if window is None:
        return None
    if MISTRAL not in architectures:  # transformers ignores it, others do not: there is no right answer
        raise ValueError(f"sliding_window {window!r} has no meaning for {LLAMA}, only for {MISTRAL}")
    if int(window) < 1:
        raise ValueError(f"sliding_window must be >= 1 or null, got {window!r}")
    return int(window)


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the RoPE settings: ``rope_parameters`` (newer) or ``rope_scaling`` (older)."""
    return raw.get("rope_parameters") or raw.get("rope_scaling") or {}


def _refuse_variants(path: Path, raw: dict[str, Any]) -> None:
    rope = _rope(raw)
    served = {
        "hidden_act": (raw.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(raw.get("attention_bias")), False),
        "mlp_bias": (bool(raw.get("mlp_bias")), False),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
    }
    for name, (value, only) in served.items():
        if value != only:
            raise ModelError(f"{path}: {name} {value!r} is not implemented, only {only!r} is")


def _eos_ids(folder: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    """Every end token that ``config.json`` or ``generation_config.json`` names."""
    ids: list[int] = []
    for source in (optional_json(folder / "generation_config.json"), raw):
        value = source.get("eos_token_id")
        ids += value if isinstance(value, list) else [] if value is None else [value]
    return tuple(dict.fromkeys(int(i) for i in ids))
