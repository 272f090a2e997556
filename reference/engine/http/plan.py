"""What one HTTP request asks the engine for, before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as List
from dataclasses import dataclass

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.sampling import Sampling
from gaugeblock.reference.engine.types import GenerateRequest


@dataclass(frozen=True)
class Logprobs:
    """Which log probabilities are wanted. ``start`` is the first prompt position, -1 for none."""

    wanted: bool = False
    start: int = -1
    top: int = 0


@dataclass(frozen=True)
class Sequence:
    """One sequence to run: the ``sample``-th of the ``prompt``-th prompt."""

    shown_id: str
    request: GenerateRequest
    prompt: int
    sample: int

    def answer(self, serial: int) -> Answer:
        """An empty answer with an engine id that is never used again."""
        request = dataclasses.replace(self.request, rid=f"{self.shown_id}#{serial}")
        return Answer(request, self.shown_id, self.prompt, self.sample)


@dataclass(frozen=True)
class Plan:
    """All sequences of one HTTP request, prompt by prompt. ``group`` names the request as a whole."""

    group: str
    sequences: tuple[Sequence, ...]


def sequences_of(
    shown_ids: List[str],
    prompt: int,
    input_ids: tuple[int, ...],
    sampling: Sampling,
    logprobs: Logprobs,
    cache_salt: str | None = None,
) -> list[Sequence]:
    """The n samples of one prompt; one shown id each."""
    return [
        Sequence(
            shown_id,
            GenerateRequest(
                rid=shown_id,
                input_ids=input_ids,
                sampling=sampling.sample(index),
                return_logprob=logprobs.wanted,
                logprob_start_len=logprobs.start,
                top_logprobs_num=logprobs.top,
                cache_salt=cache_salt or "",
            ),
            prompt,
            index,
        )
        for index, shown_id in enumerate(shown_ids)
    ]


def fitted(sampling: Sampling, prompt_tokens: int, context: int, path: str, asked_name: str) -> Sampling:
    """``sampling`` if the prompt and its answer fit the context; a default answer length is cut to what fits.

    Raises:
        ApiError: 400, too long; the numbers and the field to change are in the message.
    """
    if prompt_tokens == 0:
        raise bad(path, f"{path} must hold at least one token, got none")
    if prompt_tokens >= context:
        raise bad(path, f"{path} has {prompt_tokens} tokens; this model's context of {context} allows {context - 1}")
    room = context - prompt_tokens
    wanted = sampling.params.max_new_tokens
    if wanted <= room:
        return sampling
    if sampling.asked:
        text = f"{asked_name} {wanted} and {prompt_tokens} prompt tokens exceed the context of {context}"
        raise bad(asked_name, f"{text}; at most {room} new tokens fit")
    return dataclasses.replace(sampling, params=dataclasses.replace(sampling.params, max_new_tokens=room))
