"""``/v1/chat/completions``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.fields import Fields, read_object
from gaugeblock.reference.engine.http.front import Front, front_of, new_id
from gaugeblock.reference.engine.http.generation import Generation
from gaugeblock.reference.engine.http.messages import read_messages, render
from gaugeblock.reference.engine.http.openai import (
    MAX_TOP_LOGPROBS,
    METADATA,
    TokenText,
    chat_logprobs,
    finish_fields,
    refuse_formats,
    usage,
    wants_usage,
)
from gaugeblock.reference.engine.http.plan import Logprobs, Plan, fitted, sequences_of
from gaugeblock.reference.engine.http.sampling import openai_sampling, refuse_unsupported
from gaugeblock.reference.engine.http.wire import DONE, EventStream, frame, json_response, whole


async def chat_completions(request: Request) -> Response:
    """Answer a conversation, n times."""
    front = front_of(request)
    body = await read_object(request)
    stream, with_usage = body.flag("stream"), wants_usage(body)
    plan = await read_plan(front, body)
    kind = "chat.completion.chunk" if stream else "chat.completion"
    head = {"id": plan.group, "object": kind, "created": int(time.time()), "model": front.model}
    generation = front.start(plan)
    if stream:
        return EventStream(generation, stream_frames(generation, head, with_usage, front.token_text))
    answers = (await whole(request.receive, generation)).answers
    choices = [whole_choice(answer, front.token_text) for answer in answers]
    return json_response({**head, "choices": choices, "usage": usage(answers), "metadata": METADATA})


async def read_plan(front: Front, body: Fields) -> Plan:
    """Read a body of ``/v1/chat/completions``.

    Raises:
        ApiError: 400, or 404 for a model that is not served.
    """
    front.check_model(body)
    refuse_formats(body)
    refuse_tools(body)
    messages = read_messages(body)
    asked_name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    asked = body.maybe_integer(asked_name, 0)
    body.maybe_integer("max_tokens", 0)  # checked also where the newer name wins
    sampling = openai_sampling(body, front.vocab_size, asked, front.context_length)
    logprobs = read_logprobs(body)
    ids = await render(front, messages, body.flag("add_generation_prompt", True))
    fit = fitted(sampling, len(ids), front.context_length, "messages", asked_name)
    group = body.maybe_text("rid") or new_id("chatcmpl-")
    shown_ids = [f"{group}_{i}" for i in range(fit.n)]
    return Plan(group, tuple(sequences_of(shown_ids, 0, ids, fit, logprobs, body.maybe_text("cache_salt"))))


def refuse_tools(body: Fields) -> None:
    """Refuse tools unless the client says itself that none may be called."""
    if body.get("tool_choice") != "none":
        refuse_unsupported(body, ("tools", "functions"))


def read_logprobs(body: Fields) -> Logprobs:
    """``logprobs`` and ``top_logprobs``."""
    wanted = body.flag("logprobs")
    top = body.integer("top_logprobs", 0, 0, MAX_TOP_LOGPROBS)
    if top and not wanted:
        raise bad("top_logprobs", "top_logprobs needs logprobs to be true")
    return Logprobs(wanted, -1, top if wanted else 0)


def whole_choice(answer: Answer, text: TokenText) -> dict[str, Any]:
    """One finished choice."""
    return {
        "index": answer.sample,
        "message": {"role": "assistant", "content": answer.text, "reasoning_content": None, "tool_calls": None},
        "logprobs": chat_logprobs(answer, len(answer.output_ids), text),
        **finish_fields(answer),
    }


def piece(answer: Answer, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    """One choice of a chunk that does not finish it."""
    return {"index": answer.sample, "delta": delta, "logprobs": logprobs, "finish_reason": None, "matched_stop": None}


async def stream_frames(
    generation: Generation, head: dict[str, Any], with_usage: bool, text: TokenText
) -> AsyncIterator[bytes]:
    """A role chunk a choice, content chunks, a finish chunk a choice, usage if asked for, ``[DONE]``."""

    def chunk(choice: dict[str, Any]) -> bytes:
        return frame({**head, "choices": [choice], **({"usage": None} if with_usage else {})})

    async for updates in generation.updates():
        frames = []
        for update in updates:
            answer = update.answer
            if update.first:
                frames.append(chunk(piece(answer, {"role": "assistant", "content": ""})))
            logprobs = chat_logprobs(answer, update.tokens, text) if update.tokens else None
            if update.text or logprobs:
                frames.append(chunk(piece(answer, {"content": update.text}, logprobs)))
            if answer.finish is not None:
                frames.append(chunk({**piece(answer, {}), **finish_fields(answer)}))
        if frames:
            yield b"".join(frames)
    if with_usage:
        yield frame({**head, "choices": [], "usage": usage(generation.answers)})
    yield DONE
