"""``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.fields import read_object, shown, well_formed
from gaugeblock.reference.engine.http.front import front_of
from gaugeblock.reference.engine.http.messages import read_messages, render
from gaugeblock.reference.engine.http.sampling import check_ids
from gaugeblock.reference.engine.http.wire import json_response


async def tokenize(request: Request) -> Response:
    """Ids of ``prompt`` (a string or a list of them) or of ``messages`` by the chat template.

    ``add_special_tokens`` (default true) concerns a prompt; a rendered chat has its special tokens already.
    """
    front = front_of(request)
    body = await read_object(request)
    front.check_model(body)
    length = front.engine.model_config.max_position_embeddings
    if "messages" in body:
        ids = list(await render(front, read_messages(body), body.flag("add_generation_prompt", True)))
        return json_response({"tokens": ids, "count": len(ids), "max_model_len": length})
    prompt, special = body.get("prompt"), body.flag("add_special_tokens", True)
    if isinstance(prompt, str):
        ids = await front.encode(well_formed(prompt, "prompt"), special)
        return json_response({"tokens": ids, "count": len(ids), "max_model_len": length})
    if not isinstance(prompt, list) or not all(isinstance(text, str) for text in prompt):
        raise bad("prompt", f"prompt must be a string or a list of strings, got {shown(prompt)}")
    many = [await front.encode(well_formed(text, f"prompt[{i}]"), special) for i, text in enumerate(prompt)]
    return json_response({"tokens": many, "count": [len(ids) for ids in many], "max_model_len": length})


async def detokenize(request: Request) -> Response:
    """Text of ``tokens`` (ids, or lists of ids); ``skip_special_tokens`` defaults to true."""
    front = front_of(request)
    body = await read_object(request)
    front.check_model(body)
    tokens, skip = body.get("tokens"), body.flag("skip_special_tokens", True)
    if not isinstance(tokens, list):
        raise bad("tokens", f"tokens must be a list of token ids or of such lists, got {shown(tokens)}")
    if tokens and all(isinstance(ids, list) for ids in tokens):
        many = [check_ids(ids, f"tokens[{i}]", front.vocab_size) for i, ids in enumerate(tokens)]
        return json_response({"text": [front.tokenizer.decode(ids, skip) for ids in many]})
    return json_response({"text": front.tokenizer.decode(check_ids(tokens, "tokens", front.vocab_size), skip)})
