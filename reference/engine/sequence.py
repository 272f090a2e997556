"""One request on its way through the scheduler."""

from __future__ import annotations

import secrets

from gaugeblock.reference.engine.detokenizer import Detokenizer
from gaugeblock.reference.engine.logprobs import PromptLogprobs
from gaugeblock.reference.engine.sampler import SampleContext
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.engine.types import EventSink, GenerateRequest
from gaugeblock.reference.kv.manager import Allocation


class Sequence:
    """A request, its tokens so far, how many of them have their KV, and its pages.

    ``tokens`` is prompt and output. ``computed`` tokens have KV in ``allocation``; when all have, the next is sampled.
    """

    def __init__(
        self, request: GenerateRequest, sink: EventSink, tokenizer: Tokenizer, eos_token_ids: tuple[int, ...]
    ) -> None:
        p = request.sampling
        self.request = request
        self.sink = sink
        self.tokens = [*request.input_ids, *request.output_ids]
        self.output_ids = list(request.output_ids)
        self.computed = 0
        self.cached_tokens: int | None = None
        self.allocation: Allocation | None = None
        self.prefetched = False  # its pages were asked for ahead of its turn
        self.answered = False  # the first event, with the prompt fields, has been sent
        self.seed = secrets.randbits(63) if p.seed is None else p.seed
        self.stop_ids = frozenset(p.stop_token_ids) | frozenset(() if p.ignore_eos else eos_token_ids)
        self.detokenizer = Detokenizer(tokenizer, p.stop, p.skip_special_tokens, p.no_stop_trim)
        for count, token in enumerate(self.output_ids, 1):  # its text has been sent
            self.detokenizer.push(token, match_stop=count >= p.min_new_tokens)
        wanted = request.return_logprob and request.logprob_start_len >= 0
        self.prompt_logprobs = PromptLogprobs(request.logprob_start_len, request.top_logprobs_num) if wanted else None

    @property
    def rid(self) -> str:
        """The request's id."""
        return self.request.rid

    @property
    def prompt_len(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.input_ids)

    @property
    def remaining(self) -> int:
        """Tokens that still need their KV before the next can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def hit_limit(self) -> int:
        """How many tokens may come from the cache: never all, and none whose logits a prompt logprob needs."""
        limit = len(self.tokens) - 1
        return limit if self.prompt_logprobs is None or self.answered else min(limit, self.prompt_logprobs.start)

    def outgrows(self, window: int | None) -> bool:
        """Whether some of its KV can be behind a model's sliding window before it ends."""
        return window is not None and self.prompt_len + self.request.sampling.max_new_tokens > window

    def admit(self, allocation: Allocation) -> None:
        """Start, or start again after a retraction, from what the cache holds."""
        self.allocation = allocation
        self.computed = allocation.hit_tokens
        if not self.answered:
            hit = allocation.hit_tokens
            # After a retraction a hit may be this request's own work, which is no saving.
            self.cached_tokens = hit if self.cached_tokens is None else min(hit, self.cached_tokens)
            if self.prompt_logprobs is not None:
                self.prompt_logprobs.begin(self.tokens[self.prompt_logprobs.start])

    def retract(self) -> Allocation:
        """Give up the pages; everything is computed again after re-admission."""
        allocation, self.allocation, self.computed = self.allocation, None, 0
        if allocation is None:
            raise ValueError(f"request {self.rid} holds no pages")
        return allocation

    def logprob_positions(self, length: int) -> range:
        """Return the positions among the next ``length`` whose logits give prompt logprobs."""
        if self.prompt_logprobs is None or self.answered:
            return range(0)
        return range(max(self.computed, self.prompt_logprobs.start), min(self.computed + length, self.prompt_len - 1))

    def sample_context(self) -> SampleContext:
        """Return what the next pick depends on."""
        return SampleContext(self.request.sampling, self.seed, self.request.input_ids, self.output_ids, self.stop_ids)
