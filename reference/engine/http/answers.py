"""What has come of one sequence so far."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from gaugeblock.reference.engine.types import Finish, GenerateRequest, TokenEvent, TokenLogprob


@dataclass
class Answer:
    """The events of one sequence, accumulated.

    ``shown_id`` is the id that the client knows; the request's own ``rid`` is never used twice, so that the last events
    of an aborted request cannot reach another one of the same name. ``prompt`` and ``sample`` place the sequence in its
    HTTP request.
    """

    request: GenerateRequest
    shown_id: str
    prompt: int = 0
    sample: int = 0
    text: str = ""
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    top_logprobs: list[list[TokenLogprob] | None] = field(default_factory=list)
    input_logprobs: list[TokenLogprob] = field(default_factory=list)
    input_top_logprobs: list[list[TokenLogprob] | None] = field(default_factory=list)
    cached_tokens: int = 0
    served_by: Mapping[str, object] = field(default_factory=dict)
    finish: Finish | None = None
    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None  # seconds after the start
    latency: float | None = None

    @property
    def rid(self) -> str:
        """The id that the engine knows."""
        return self.request.rid

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.request.input_ids)

    def take(self, event: TokenEvent) -> None:
        """Add one event."""
        now = time.perf_counter() - self.started
        self.text += event.text
        if event.token_id is not None:
            self._take_token(event, event.token_id)
            self.first_token = now if self.first_token is None else self.first_token
        if event.input_token_logprobs is not None:
            self.input_logprobs = event.input_token_logprobs
        if event.input_top_logprobs is not None:
            self.input_top_logprobs = event.input_top_logprobs
        self.cached_tokens = max(self.cached_tokens, event.cached_tokens)
        self.served_by = event.served_by or self.served_by
        if event.finish is not None:
            self.finish, self.latency = event.finish, now

    def _take_token(self, event: TokenEvent, token: int) -> None:
        self.output_ids.append(token)
        if self.request.return_logprob:
            self.logprobs.append((event.logprob, token))
            self.top_logprobs.append(event.top_logprobs)


@dataclass(frozen=True)
class Update:
    """What came since the last look at one sequence: ``text``, and ``tokens`` new ones at the end of its lists."""

    answer: Answer
    text: str
    tokens: int
    first: bool
