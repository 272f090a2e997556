"""``/v1/completions``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.fields import Fields, read_object
from gaugeblock.reference.engine.http.front import Front, front_of, new_id
from gaugeblock.reference.engine.http.generation import Generation
from gaugeblock.reference.engine.http.openai import (
    MAX_TOP_LOGPROBS,
    METADATA,
    TextLogprobs,
    finish_fields,
    refuse_formats,
    usage,
    wants_usage,
)
from gaugeblock.reference.engine.http.plan import Logprobs, Plan, Sequence, fitted, sequences_of
from gaugeblock.reference.engine.http.prompts import read_prompts
from gaugeblock.reference.engine.http.sampling import openai_sampling, refuse_unsupported
from gaugeblock.reference.engine.http.wire import DONE, EventStream, frame, json_response, whole

DEFAULT_TOKENS = 16


@dataclass(frozen=True)
class CompletionPlan:
    """A plan, and what its answer repeats: ``echoes`` holds each prompt's text, or is empty."""

    plan: Plan
    logprobs: Logprobs
    echoes: tuple[str, ...]


class Choices:
    """Writes the choices of one completion, whole or piece by piece."""

    def __init__(self, front: Front, made: CompletionPlan, answers: list[Answer]) -> None:
        self.made = made
        self.places = {answer.rid: index for index, answer in enumerate(answers)}
        self.logprobs = {answer.rid: TextLogprobs(front.token_text) for answer in answers}

    def choice(self, answer: Answer, text: str, tokens: int, first: bool) -> dict[str, Any]:
        """The choice with ``text`` and the last ``tokens`` tokens; the first piece carries the echo."""
        echo = self.made.echoes[answer.prompt] if first and self.made.echoes else ""
        return {
            "index": self.places[answer.rid],
            "text": echo + text,
            "logprobs": self._logprobs(answer, tokens, first),
            **finish_fields(answer),
        }

    def _logprobs(self, answer: Answer, tokens: int, first: bool) -> dict[str, Any] | None:
        if not self.made.logprobs.wanted:
            return None
        start = len(answer.logprobs) - tokens
        pairs, tops = answer.logprobs[start:], answer.top_logprobs[start:]
        if first and self.made.echoes:
            pairs, tops = answer.input_logprobs + pairs, answer.input_top_logprobs + tops
        return self.logprobs[answer.rid].block(pairs, tops, self.made.logprobs.top)


async def completions(request: Request) -> Response:
    """Continue one prompt or several, each n times."""
    front = front_of(request)
    body = await read_object(request)
    stream, with_usage = body.flag("stream"), wants_usage(body)
    made = await read_plan(front, body)
    head = {"id": made.plan.group, "object": "text_completion", "created": int(time.time()), "model": front.model}
    generation = front.start(made.plan)
    choices = Choices(front, made, generation.answers)
    if stream:
        return EventStream(generation, stream_frames(generation, choices, head, with_usage))
    answers = (await whole(request.receive, generation)).answers
    listed = [choices.choice(answer, answer.text, len(answer.output_ids), True) for answer in answers]
    return json_response({**head, "choices": listed, "usage": usage(answers), "metadata": METADATA})


async def read_plan(front: Front, body: Fields) -> CompletionPlan:
    """Read a body of ``/v1/completions``.

    Raises:
        ApiError: 400, or 404 for a model that is not served.
    """
    front.check_model(body)
    refuse_unsupported(body, ("suffix", "prompt_embeds"))
    refuse_formats(body)
    if "prompt" not in body:
        raise bad("prompt", "prompt is needed: text, token ids, or a list of either")
    asked = body.maybe_integer("max_tokens", 1)
    sampling = openai_sampling(body, front.vocab_size, asked, DEFAULT_TOKENS)
    if body.integer("best_of", sampling.n, 1) != sampling.n:
        raise body.refuse("best_of", f"left out or equal to n ({sampling.n})")
    echo, top = body.flag("echo"), body.maybe_integer("logprobs", 0, MAX_TOP_LOGPROBS)
    logprobs = Logprobs() if top is None else Logprobs(True, 0 if echo else -1, top)
    prompts, _ = await read_prompts(front, body.get("prompt"), "prompt", text=True, ids=True)
    group = body.maybe_text("rid") or new_id("cmpl-")
    sequences: list[Sequence] = []
    salt = body.maybe_text("cache_salt")
    for index, ids in enumerate(prompts):
        fit = fitted(sampling, len(ids), front.context_length, "prompt", "max_tokens")
        shown_ids = [f"{group}_{len(sequences) + i}" for i in range(fit.n)]
        sequences += sequences_of(shown_ids, index, ids, fit, logprobs, salt)
    echoes = tuple(echo_texts(front, body.get("prompt"), prompts)) if echo else ()
    return CompletionPlan(Plan(group, tuple(sequences)), logprobs, echoes)


def echo_texts(front: Front, given: Any, prompts: list[tuple[int, ...]]) -> list[str]:
    """The text of each prompt: as given, or decoded from its ids."""
    texts = [given] if isinstance(given, str) else given
    if all(isinstance(text, str) for text in texts):
        return list(texts)
    return [front.tokenizer.decode(ids, skip_special_tokens=False) for ids in prompts]


async def stream_frames(
    generation: Generation, choices: Choices, head: dict[str, Any], with_usage: bool
) -> AsyncIterator[bytes]:
    """Chunks with what is new; one without new text, log probabilities or finish is not sent."""
    async for updates in generation.updates():
        frames = []
        for update in updates:
            choice = choices.choice(update.answer, update.text, update.tokens, update.first)
            if choice["text"] or choice["logprobs"] or choice["finish_reason"]:
                frames.append(frame({**head, "choices": [choice], "usage": None}))
        if frames:
            yield b"".join(frames)
    if with_usage:
        yield frame({**head, "choices": [], "usage": usage(generation.answers)})
    yield DONE
