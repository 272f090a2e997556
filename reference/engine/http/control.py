"""Health, information, cache, abort, load: SGLang's endpoints that do not generate for a client."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gaugeblock.reference.engine.http.errors import ApiError, bad
from gaugeblock.reference.engine.http.fields import Fields, parse_object
from gaugeblock.reference.engine.http.front import Front, front_of, new_id
from gaugeblock.reference.engine.http.plan import Logprobs, Plan, sequences_of
from gaugeblock.reference.engine.http.sampling import Sampling
from gaugeblock.reference.engine.http.wire import json_response, until_gone
from gaugeblock.reference.engine.types import SamplingParams

WEIGHT_VERSION = "default"
PROBE_SECONDS = 20.0


def kit_version() -> str:
    """The installed version of gaugeblock."""
    try:
        return version("gaugeblock")
    except PackageNotFoundError:  # run from a source tree
        return "0"


async def health(request: Request) -> Response:
    """200 while the scheduler's thread runs."""
    if not front_of(request).engine.healthy:
        raise ApiError(503, "the engine is not running")
    return Response()


async def health_generate(request: Request) -> Response:
    """200 once one token has been generated; 503 after 20 s without it."""
    front = front_of(request)
    sampling = Sampling(SamplingParams(max_new_tokens=1, temperature=0.0, ignore_eos=True), 1, True)
    name = new_id("health-")
    plan = Plan(name, tuple(sequences_of([name], 0, (0,), sampling, Logprobs())))
    async with front.start(plan) as generation:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await until_gone(request.receive, generation.finish())
        except TimeoutError:
            raise ApiError(503, f"no token within {PROBE_SECONDS:g} s") from None
    return Response()


async def model_info(request: Request) -> Response:
    """What is served."""
    front = front_of(request)
    model = front.engine.model_config
    return json_response(
        {
            "model_path": front.engine.config.model_path,
            "tokenizer_path": front.engine.config.model_path,
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": WEIGHT_VERSION,
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "model_type": model.model_type,
            "architectures": list(model.architectures),
        }
    )


async def server_info(request: Request) -> Response:
    """The operator's configuration and the scheduler's state."""
    front = front_of(request)
    config, stats = front.engine.config, front.engine.stats()
    state = {
        "running_requests": stats.running,
        "queued_requests": stats.queued,
        **dataclasses.asdict(stats),
        "memory_usage": {"token_capacity": stats.total_tokens},
    }
    return json_response(
        {
            **dataclasses.asdict(config),
            "engine": "gaugeblock-reference",
            "dtype": "float32",  # computed in, whatever the folder stores
            "version": kit_version(),
            "served_model_name": front.model,
            "max_total_num_tokens": config.max_total_tokens,
            "max_req_input_len": front.context_length - 1,
            "context_length": front.context_length,
            "disable_radix_cache": not config.prefix_cache,
            "enable_deterministic_inference": True,  # a seed decides a sample, whoever shares the batch
            "internal_states": [state],
        }
    )


async def flush_cache(request: Request) -> Response:
    """Forget cached prefixes; 400 while something runs, 503 when the disk tier does not answer."""
    try:
        flushed = await asyncio.to_thread(front_of(request).engine.flush_cache)
    except TimeoutError as error:
        raise ApiError(503, f"cache not flushed: {error}") from None
    if flushed:
        return PlainTextResponse("Cache flushed.\n")
    return PlainTextResponse(
        "Cache not flushed: requests are running or waiting. Try again when they have ended.\n", 400
    )


async def abort_request(request: Request) -> Response:
    """End requests by ``rid``, or all with ``abort_all``; an unknown rid is no error."""
    front = front_of(request)
    body = Fields(parse_object(await request.body()))
    if body.flag("abort_all"):
        front.engine.abort(None)
        return Response()
    rid = body.get("rid")
    rids = rid if isinstance(rid, list) else [rid]
    if not rids or not all(isinstance(each, str) and each for each in rids):
        raise bad("rid", "rid must be a non-empty string or a list of them, or abort_all must be true")
    for each in rids:
        front.abort(each)
    return Response()


async def get_load(request: Request) -> Response:
    """The load in SGLang's older shape; ``num_reqs`` counts running and waiting ones."""
    stats = front_of(request).engine.stats()
    used = stats.total_tokens - stats.free_tokens - stats.cached_tokens
    row = {
        "dp_rank": 0,
        "num_reqs": stats.running + stats.queued,
        "num_waiting_reqs": stats.queued,
        "num_tokens": used,
        "ts_tic": time.perf_counter(),
    }
    return json_response([row])


async def loads(request: Request) -> Response:
    """The load in SGLang's newer shape."""
    front = front_of(request)
    now = datetime.now(UTC).isoformat()
    return json_response({"timestamp": now, "version": kit_version(), "loads": [_load_row(front)]})


def _load_row(front: Front) -> dict[str, Any]:
    stats = front.engine.stats()
    used = stats.total_tokens - stats.free_tokens - stats.cached_tokens
    prompts = stats.prompt_tokens_total
    return {
        "dp_rank": 0,
        "num_running_reqs": stats.running,
        "num_waiting_reqs": stats.queued,
        "num_used_tokens": used,
        "num_total_tokens": used,
        "max_total_num_tokens": stats.total_tokens,
        "max_running_requests": front.engine.config.max_running_requests,
        "token_usage": used / stats.total_tokens if stats.total_tokens else 0.0,
        "cache_hit_rate": stats.cached_prompt_tokens_total / prompts if prompts else 0.0,
        "memory": {"token_capacity": stats.total_tokens},
        "queues": {"waiting": stats.queued},
    }


async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(front_of(request).metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
