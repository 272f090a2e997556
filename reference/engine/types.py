"""What goes into the engine and what comes out: the only vocabulary that HTTP, scheduler and sampler share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

TokenLogprob = tuple[float | None, int]  # (logprob in nats, token id); None for the first prompt token

FinishType = Literal["stop", "length", "abort"]


class RequestError(ValueError):
    """The client's fault: becomes a 4xx with this message."""


class QueueFull(RequestError):
    """Too many requests for now: becomes a 429 or 503."""


@dataclass(frozen=True)
class SamplingParams:
    """How to pick tokens and when to stop.

    ``temperature`` 0 is greedy. ``top_k`` -1 keeps all. Filters apply in the order temperature, top-k, top-p, min-p,
    each on the renormalised distribution that the one before left. With a ``seed`` the n-th token of a request depends
    on (seed, n, distribution) alone, never on its batch-mates.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_new_tokens: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    skip_special_tokens: bool = True
    no_stop_trim: bool = False

    def validate(self, vocab_size: int) -> None:
        """Raise :class:`RequestError` naming the field, the value and the legal range."""
        rules: list[tuple[str, float, bool, str]] = [
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 0, ">= 0"),
            ("min_new_tokens", self.min_new_tokens, 0 <= self.min_new_tokens <= self.max_new_tokens, "in [0, max]"),
            ("temperature", self.temperature, 0.0 <= self.temperature <= 1e4, "in [0, 1e4]"),
            ("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "in (0, 1]"),
            ("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "in [0, 1]"),
            ("top_k", self.top_k, self.top_k == -1 or self.top_k >= 1, "-1 or >= 1"),
            ("frequency_penalty", self.frequency_penalty, -2.0 <= self.frequency_penalty <= 2.0, "in [-2, 2]"),
            ("presence_penalty", self.presence_penalty, -2.0 <= self.presence_penalty <= 2.0, "in [-2, 2]"),
            ("repetition_penalty", self.repetition_penalty, 0.0 < self.repetition_penalty <= 2.0, "in (0, 2]"),
        ]
        for name, value, legal, text in rules:
            if not legal:
                raise RequestError(f"{name} must be {text}, got {value}")
        for token in (*self.stop_token_ids, *self.logit_bias):
            if not 0 <= token < vocab_size:
                raise RequestError(f"token id {token} is outside the vocabulary of {vocab_size}")


@dataclass(frozen=True)
class GenerateRequest:
    """One sequence to continue. ``n`` > 1 is n requests with ids of their own, made by the HTTP layer.

    ``output_ids`` is the answer so far, of an engine that could not go on: this one goes on as if it had made them, and
    sends events for what follows. Lengths, penalties and seeds count them; no logprobs are given for them.
    """

    rid: str
    input_ids: tuple[int, ...]
    sampling: SamplingParams
    return_logprob: bool = False
    logprob_start_len: int = -1  # first prompt position that is listed (its own entry is None, as in SGLang); -1: none
    top_logprobs_num: int = 0
    cache_salt: str = ""  # only requests with the same one share cached KV
    output_ids: tuple[int, ...] = ()


@dataclass
class TokenEvent:
    """One step of one request, sent in order; the last one carries ``finish``.

    ``text`` is the text that became certain with this token (held back while it could still be part of a stop string or
    an incomplete UTF-8 character); the concatenation over all events is the answer. The first event carries the prompt
    fields. ``token_id`` is None when a request ends without a new token (``max_new_tokens`` 0, abort).
    """

    rid: str
    token_id: int | None
    text: str
    logprob: float | None = None
    top_logprobs: list[TokenLogprob] | None = None
    finish: Finish | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    input_token_logprobs: list[TokenLogprob] | None = None
    input_top_logprobs: list[list[TokenLogprob] | None] | None = None
    served_by: Mapping[str, object] | None = None  # what a front of several engines says of its choice, for meta_info


@dataclass(frozen=True)
class Finish:
    """Why a request ended. ``matched`` is the stop string or stop token id, for ``type == "stop"``.

    ``status`` makes an abort an error over HTTP: the status of an answer that has not begun, the last frame of one that
    has.
    """

    type: FinishType
    matched: int | str | None = None
    message: str | None = None
    status: int | None = None


EventSink = Callable[[TokenEvent], None]  # called on the scheduler's thread: must not block


@dataclass(frozen=True)
class EngineConfig:
    """Everything the operator decides. Sizes in tokens unless said otherwise."""

    model_path: str
    served_model_name: str | None = None  # default: the folder's name
    page_size: int = 16
    max_total_tokens: int = 16384
    chunked_prefill_size: int = 64
    max_running_requests: int = 32
    max_queued_requests: int = 256
    host_kv_tokens: int = 0  # size of the host tier; 0: none
    disk_kv_path: str | None = None  # folder of the disk tier, which outlives the process; None: none
    disk_kv_tokens: int = 1 << 20  # size of the disk tier
    prefix_cache: bool = True
    kv_policy: str = "lru"  # which cached pages go first, on every tier
    quantization: str | None = None  # "int8": weights and activations; None: fp32
    quantized_path: str | None = None  # a file that keeps the quantised weights for the next start; None: none
    placement_path: str | None = None  # a file that says which operators run on the device; None: all on the host
    device: str = "auto"  # where those run: "cuda", "pretend", or whichever there is
    device_budget: int | None = None  # bytes of weights and KV that the device may hold; None: no limit


@dataclass
class EngineStats:
    """A snapshot for ``/get_server_info``, ``/metrics`` and checks. At rest ``free + cached == total`` (tokens)."""

    running: int = 0
    queued: int = 0
    total_tokens: int = 0
    free_tokens: int = 0
    cached_tokens: int = 0
    prompt_tokens_total: int = 0
    cached_prompt_tokens_total: int = 0
    generation_tokens_total: int = 0
    aborted_total: int = 0
    steps_total: int = 0
    retracted_total: int = 0
    host_tokens: int = 0  # held by the host tier
    disk_tokens: int = 0  # held by the disk tier
    disk_degraded: int = 0  # 1 while the disk tier stands aside after an error
    disk_stored_tokens_total: int = 0
    disk_loaded_tokens_total: int = 0
    disk_skipped_tokens_total: int = 0  # not stored: an error, no room, or a full queue
    disk_failures_total: int = 0  # reads and writes that the disk refused
    disk_damaged_pages_total: int = 0  # page files that were not what they should be
    prefetched_tokens_total: int = 0  # from disk to host, ahead of need
    lost_tokens_total: int = 0  # the tiers below had no room for them (any more)
    evicted_tokens_total: int = 0  # from the device
    promoted_tokens_total: int = 0  # from the tiers below back to the device
    device_faults_total: int = 0  # steps that the second device of a placement did not finish
