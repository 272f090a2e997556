"""SGLang's native ``/generate``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.control import WEIGHT_VERSION
from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.fields import Fields, read_object, shown, well_formed
from gaugeblock.reference.engine.http.front import Front, front_of, new_id
from gaugeblock.reference.engine.http.generation import Generation
from gaugeblock.reference.engine.http.plan import Logprobs, Plan, Sequence, fitted, sequences_of
from gaugeblock.reference.engine.http.prompts import native_prompts
from gaugeblock.reference.engine.http.sampling import Sampling, native_sampling, refuse_unsupported
from gaugeblock.reference.engine.http.wire import DONE, EventStream, frame, json_response, whole
from gaugeblock.reference.engine.types import Finish, TokenLogprob

MAX_TOP_LOGPROBS = 8192  # and at most the vocabulary
UNSUPPORTED = ("input_embeds", "image_data", "audio_data", "video_data", "lora_path", "session_params",
               "token_ids_logprob", "return_hidden_states")  # fmt: skip

Row = list[Any]
TokenText = Callable[[int], str]


@dataclass(frozen=True)
class NativePlan:
    """A plan, and the shape that its answer takes."""

    plan: Plan
    as_list: bool
    texts: bool


async def generate(request: Request) -> Response:
    """Answer ``/generate``: one object, or a list for a batch or n > 1; streamed as cumulative events."""
    front = front_of(request)
    body = await read_object(request)
    stream = body.flag("stream")
    native = await read_plan(front, body)
    generation = front.start(native.plan)
    text = front.token_text if native.texts else None
    if stream:
        return EventStream(generation, stream_frames(generation, native.as_list, text))
    items = [answer_json(answer, text) for answer in (await whole(request.receive, generation)).answers]
    return json_response(items if native.as_list else items[0])


async def read_plan(front: Front, body: Fields) -> NativePlan:
    """Read a body of ``/generate``.

    Raises:
        ApiError: 400.
    """
    refuse_unsupported(body, UNSUPPORTED)
    prompts, batch = await native_prompts(front, body)
    samplings = read_samplings(front, body, len(prompts), batch)
    name = "text" if "text" in body else "input_ids"
    samplings = [
        fitted(sampling, len(ids), front.context_length, name, "max_new_tokens")
        for sampling, ids in zip(samplings, prompts, strict=True)
    ]
    logprobs = [read_logprobs(body, index if batch else None, len(ids)) for index, ids in enumerate(prompts)]
    group, names = read_rids(body, len(prompts), batch)
    salt = body.maybe_text("extra_key")
    sequences: list[Sequence] = []
    for index, (ids, sampling) in enumerate(zip(prompts, samplings, strict=True)):
        shown_ids = names[index : index + 1] if sampling.n == 1 else [f"{names[index]}_{i}" for i in range(sampling.n)]
        sequences += sequences_of(shown_ids, index, ids, sampling, logprobs[index], salt)
    as_list = batch or len(sequences) > 1
    return NativePlan(Plan(group, tuple(sequences)), as_list, body.flag("return_text_in_logprobs"))


def read_samplings(front: Front, body: Fields, count: int, batch: bool) -> list[Sampling]:
    """``sampling_params`` for each prompt: one object for all, or a list with one object a prompt."""
    value = body.get("sampling_params")
    if isinstance(value, list) and batch:
        if len(value) != count or not all(isinstance(item, dict) for item in value):
            raise bad("sampling_params", f"sampling_params must be one object or a list of {count}, one a prompt")
        parts = [Fields(item, f"sampling_params[{i}]") for i, item in enumerate(value)]
        return [native_sampling(part, front.vocab_size) for part in parts]
    fields = body.maybe_object("sampling_params") or Fields({}, "sampling_params")
    return [native_sampling(fields, front.vocab_size)] * count


def read_logprobs(body: Fields, index: int | None, prompt_tokens: int) -> Logprobs:
    """The log probabilities wanted for one prompt; in a batch each field may be a list with one value a prompt."""

    def one(name: str) -> Fields:
        value = body.get(name)
        if index is None or not isinstance(value, list):
            return body
        if index >= len(value):
            raise bad(name, f"{name} has {len(value)} values; one a prompt is needed")
        return Fields({name: value[index]})

    if not one("return_logprob").flag("return_logprob"):
        return Logprobs()
    start = one("logprob_start_len").integer("logprob_start_len", -1, -1)
    if start > prompt_tokens:
        raise bad("logprob_start_len", f"logprob_start_len {start} is behind the prompt of {prompt_tokens} tokens")
    start = -1 if start == prompt_tokens else start  # from the end on: none of the prompt
    top = one("top_logprobs_num").integer("top_logprobs_num", 0, 0, MAX_TOP_LOGPROBS)
    return Logprobs(True, start, top)


def read_rids(body: Fields, count: int, batch: bool) -> tuple[str, list[str]]:
    """The request's id and one id a prompt, the client's or new ones."""
    value = body.get("rid")
    if value is None:
        group = new_id()
        return group, [new_id() for _ in range(count)] if batch else [group]
    if isinstance(value, str) and value:
        well_formed(value, "rid")
        return value, [f"{value}_{i}" for i in range(count)] if batch else [value]
    if batch and isinstance(value, list) and len(value) == count and all(isinstance(v, str) and v for v in value):
        if len(set(value)) < count:
            raise bad("rid", f"rid holds an id twice: {shown(value)}")
        return new_id(), [well_formed(v, "rid") for v in value]
    legal = f"a non-empty string or a list of {count} of them" if batch else "a non-empty string"
    raise bad("rid", f"rid must be {legal}, got {shown(value)}")


def answer_json(answer: Answer, text: TokenText | None) -> dict[str, Any]:
    """One answer as SGLang writes it. ``text`` adds the text of each token to the log probabilities."""
    meta: dict[str, Any] = {
        "id": answer.shown_id,
        "finish_reason": None if answer.finish is None else finish_json(answer.finish, len(answer.output_ids)),
        "prompt_tokens": answer.prompt_tokens,
        "weight_version": WEIGHT_VERSION,
        "completion_tokens": len(answer.output_ids),
        "cached_tokens": answer.cached_tokens,
        **answer.served_by,
    }
    if answer.request.return_logprob:
        meta["input_token_logprobs"] = rows(answer.input_logprobs, text)
        meta["output_token_logprobs"] = rows(answer.logprobs, text)
        if answer.request.top_logprobs_num > 0:
            meta["input_top_logprobs"] = [top_rows(tops, text) for tops in answer.input_top_logprobs]
            meta["output_top_logprobs"] = [top_rows(tops, text) for tops in answer.top_logprobs]
    if answer.latency is not None:
        meta["e2e_latency"] = answer.latency
    return {"text": answer.text, "output_ids": answer.output_ids, "meta_info": meta}


def finish_json(finish: Finish, length: int) -> dict[str, Any]:
    """``finish_reason`` of ``meta_info``."""
    if finish.type == "length":
        return {"type": "length", "length": length}
    if finish.type == "stop":
        return {"type": "stop", "matched": finish.matched}
    return {"type": "abort", "message": finish.message or "the request was aborted"}


def rows(logprobs: list[TokenLogprob], text: TokenText | None) -> list[Row]:
    """``[[logprob, token id, text or null], …]``; a probability of zero is written as null."""
    return [[finite(value), token, None if text is None else text(token)] for value, token in logprobs]


def top_rows(tops: list[TokenLogprob] | None, text: TokenText | None) -> list[Row] | None:
    """The same for the candidates of one position; null where nothing predicts."""
    return None if tops is None else rows(tops, text)


def finite(value: float | None) -> float | None:
    """``value``, or None for the -inf of a masked token, which JSON cannot hold."""
    return value if value is not None and value > float("-inf") else None


async def stream_frames(generation: Generation, as_list: bool, text: TokenText | None) -> AsyncIterator[bytes]:
    """Events with cumulative text; in a batch each names its place in the list."""
    places = {answer.rid: index for index, answer in enumerate(generation.answers)}
    async for updates in generation.updates():
        frames = []
        for update in updates:
            item = answer_json(update.answer, text)
            frames.append(frame({**item, "index": places[update.answer.rid]} if as_list else item))
        yield b"".join(frames)
    yield DONE
