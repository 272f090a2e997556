"""``/v1/models``: the one model that is served."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gaugeblock.reference.engine.http.errors import ApiError
from gaugeblock.reference.engine.http.front import Front, front_of
from gaugeblock.reference.engine.http.wire import json_response


def card(front: Front) -> dict[str, Any]:
    """The model as OpenAI's API lists it, with its context length in tokens."""
    return {
        "id": front.model,
        "object": "model",
        "created": front.created,
        "owned_by": "gaugeblock",
        "root": front.engine.config.model_path,
        "parent": None,
        "max_model_len": front.engine.model_config.max_position_embeddings,
    }


async def models(request: Request) -> Response:
    """A list of one."""
    return json_response({"object": "list", "data": [card(front_of(request))]})


async def model(request: Request) -> Response:
    """One model by its id, 404 for any other."""
    front = front_of(request)
    name = request.path_params["model_id"]
    if name != front.model:
        raise ApiError(404, f"model {name!r} does not exist; served here: {front.model!r}", param="model")
    return json_response(card(front))
