"""The JSON of a response, and what its request means."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.chat import refuse_tools
from gaugeblock.reference.engine.http.errors import ApiError, bad
from gaugeblock.reference.engine.http.fields import Fields
from gaugeblock.reference.engine.http.front import Front, new_id
from gaugeblock.reference.engine.http.messages import Message, read_messages, render
from gaugeblock.reference.engine.http.plan import Logprobs, Plan, fitted, sequences_of
from gaugeblock.reference.engine.http.response_store import Record
from gaugeblock.reference.engine.http.sampling import openai_sampling

STATUS = {"stop": "completed", "length": "incomplete", "abort": "cancelled"}


@dataclass(frozen=True)
class ResponsePlan:
    """A plan with one sequence, and the record of its response."""

    plan: Plan
    record: Record


async def read_plan(front: Front, body: Fields) -> ResponsePlan:
    """Read a body of ``/v1/responses``.

    Raises:
        ApiError: 400, or 404 for an unknown model or previous response.
    """
    front.check_model(body)
    refuse_tools(body)
    refuse_text_format(body)
    messages = conversation(front, body)
    instructions = body.maybe_text("instructions")
    system = [] if instructions is None else [{"role": "system", "content": instructions}]
    asked = body.maybe_integer("max_output_tokens", 1)
    sampling = openai_sampling(body, front.vocab_size, asked, front.context_length)
    if sampling.n != 1:
        raise body.refuse("n", "left out: a response has one answer")
    ids = await render(front, [*system, *messages])
    fit = fitted(sampling, len(ids), front.context_length, "input", "max_output_tokens")
    name = new_id("resp_")
    plan = Plan(name, tuple(sequences_of([name], 0, ids, fit, Logprobs(), body.maybe_text("cache_salt"))))
    response = new_response(front, body, name, asked)
    return ResponsePlan(plan, Record(response, messages, keep=body.flag("store", True)))


def refuse_text_format(body: Fields) -> None:
    """Refuse structured output."""
    text = body.maybe_object("text")
    form = None if text is None else text.maybe_object("format")
    if form is not None and form.get("type") not in (None, "text"):
        raise form.refuse("type", "'text': this engine has no constrained decoding")


def conversation(front: Front, body: Fields) -> list[Message]:
    """What was said up to a previous response, and the new input; instructions are not carried over."""
    earlier: list[Message] = []
    previous = body.maybe_text("previous_response_id")
    if previous is not None:
        record = front.responses.get(previous)
        if record is None:
            raise ApiError(404, f"there is no response {previous!r}", param="previous_response_id")
        if record.live:
            raise bad("previous_response_id", f"response {previous!r} has not ended yet")
        earlier = record.messages
    return [*earlier, *new_input(body)]


def new_input(body: Fields) -> list[Message]:
    """``input``: a string from the user, or a list of messages."""
    value = body.get("input")
    if isinstance(value, str) and value:
        return [{"role": "user", "content": body.maybe_text("input")}]
    if isinstance(value, list):
        return read_messages(body, "input")
    raise body.refuse("input", "a non-empty string or a list of messages")


def new_response(front: Front, body: Fields, name: str, asked: int | None) -> dict[str, Any]:
    """The response before its first token."""
    return {
        "id": name,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": body.flag("background"),
        "model": front.model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": body.maybe_text("instructions"),
        "max_output_tokens": asked,
        "previous_response_id": body.maybe_text("previous_response_id"),
        "parallel_tool_calls": False,
        "reasoning": {"effort": None, "summary": None},
        "store": body.flag("store", True),
        "temperature": body.number("temperature", 1.0, 0.0, 1e4),
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": body.number("top_p", 1.0, 0.0, 1.0, above=True),
        "truncation": "disabled",
        "usage": None,
        "user": body.maybe_text("user"),
        "metadata": metadata.data if (metadata := body.maybe_object("metadata")) is not None else {},
    }


def message_item(item_id: str, text: str, status: str) -> dict[str, Any]:
    """The one output item: a message of the assistant."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": [text_part(text)]}


def text_part(text: str) -> dict[str, Any]:
    """A part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def conclude(record: Record, answer: Answer, item_id: str) -> dict[str, Any]:
    """Write the answer into the record and return the response."""
    kind = "abort" if answer.finish is None else answer.finish.type
    status = STATUS[kind]
    item_status = "completed" if status == "completed" else "incomplete"
    record.response |= {
        "status": status,
        "output": [message_item(item_id, answer.text, item_status)],
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "usage": usage(answer),
    }
    record.messages = [*record.messages, {"role": "assistant", "content": answer.text}]
    record.ended.set()
    return record.response


def fail(record: Record, message: str) -> dict[str, Any]:
    """Write a failure into the record, if it has not ended, and return the response."""
    if record.live:
        record.response |= {"status": "failed", "error": {"code": "server_error", "message": message}}
    record.ended.set()
    return record.response


def usage(answer: Answer) -> dict[str, Any]:
    """Token counts under today's names and, as SGLang 0.5.15 writes them, under chat's."""
    prompt, completion = answer.prompt_tokens, len(answer.output_ids)
    cached = {"cached_tokens": answer.cached_tokens}
    return {
        "input_tokens": prompt,
        "input_tokens_details": cached,
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
        "prompt_tokens": prompt,
        "prompt_tokens_details": cached,
        "completion_tokens": completion,
    }
