"""What the HTTP front needs of an engine; :class:`gaugeblock.reference.engine.engine.Engine` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gaugeblock.reference.engine.types import EngineConfig, EngineStats, EventSink, GenerateRequest


class Tokenizer(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of ``text``; with ``add_special_tokens`` those that the model folder puts around it."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ``ids``."""

    def apply_chat_template(self, messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """Render ``messages`` by the model folder's template."""


class ModelConfig(Protocol):
    """The part of ``config.json`` that a client asks for."""

    @property
    def max_position_embeddings(self) -> int:
        """Longest sequence in tokens, prompt and answer together."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: a legal token id is below it."""

    @property
    def architectures(self) -> Sequence[str]:
        """Names of the model class."""

    @property
    def model_type(self) -> str:
        """Name of the family."""


class EngineLike(Protocol):
    """An engine that computes on a thread of its own."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The served model's tokenizer."""

    @property
    def model_config(self) -> ModelConfig:
        """The served model's sizes."""

    @property
    def config(self) -> EngineConfig:
        """What the operator decided."""

    @property
    def healthy(self) -> bool:
        """Whether the scheduler's thread runs."""

    def submit(self, request: GenerateRequest, sink: EventSink) -> None:
        """Queue one sequence; ``sink`` gets its events on the scheduler's thread.

        Raises:
            QueueFull: not now.
            RequestError: never.
        """

    def abort(self, rid: str | None) -> Any:
        """End one sequence, or all for None; an unknown rid is no error."""

    def flush_cache(self) -> bool:
        """Forget cached prefixes; False when something runs. Waits for the scheduler's turn: not for the event loop.

        Raises:
            TimeoutError: the disk tier or the scheduler does not answer in time.
        """

    def stats(self) -> EngineStats:
        """A snapshot of the scheduler's counters."""


def context_length(engine: EngineLike) -> int:
    """Longest sequence in tokens that the positions and the KV pool allow."""
    return min(engine.model_config.max_position_embeddings, engine.stats().total_tokens)


def served_name(config: EngineConfig) -> str:
    """The id under which the model is served: as named, or the folder's name."""
    return config.served_model_name or config.model_path.rstrip("/").rsplit("/", 1)[-1] or "model"
