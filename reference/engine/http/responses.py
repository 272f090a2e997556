"""``/v1/responses``: create (whole, streamed or in the background), retrieve, cancel."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from gaugeblock.reference.engine.http.errors import ApiError, bad
from gaugeblock.reference.engine.http.fields import read_object
from gaugeblock.reference.engine.http.front import Front, front_of, new_id
from gaugeblock.reference.engine.http.generation import Generation
from gaugeblock.reference.engine.http.response_body import conclude, fail, read_plan
from gaugeblock.reference.engine.http.response_store import Record
from gaugeblock.reference.engine.http.response_stream import ResponseEvents
from gaugeblock.reference.engine.http.wire import EventStream, json_response, until_gone

CANCEL_SECONDS = 10.0  # a cancelled response ends with the scheduler's next step


async def create(request: Request) -> Response:
    """Start a response; its id can be retrieved and cancelled from the first event on unless ``store`` is false."""
    front = front_of(request)
    body = await read_object(request)
    stream, background = body.flag("stream"), body.flag("background")
    if stream and background:
        raise bad("background", "background and stream cannot be combined here: choose one")
    made = await read_plan(front, body)
    record = made.record
    if background and not record.keep:
        raise bad("store", "a background response must be stored: leave store out")
    generation = front.start(made.plan)
    front.responses.add(record)  # live ones can be cancelled also when they are not kept
    if background:
        task = asyncio.create_task(_run(front, record, generation))
        front.tasks.add(task)
        task.add_done_callback(front.tasks.discard)
        return json_response(record.response)
    if stream:
        events = ResponseEvents(record)
        return EventStream(generation, events.frames(generation), events.failure, lambda: _settle(front, record))
    await until_gone(request.receive, _run(front, record, generation))
    if record.response["status"] == "failed":
        raise ApiError(503, record.response["error"]["message"])
    return json_response(record.response)


async def _run(front: Front, record: Record, generation: Generation) -> None:
    try:
        async with generation:
            answers = await generation.finish()
        conclude(record, answers[0], new_id("msg_"))
    except ApiError as error:
        fail(record, error.message)
    finally:
        _settle(front, record)


def _settle(front: Front, record: Record) -> None:
    """Close the books whichever way the response ended; one still live lost its client."""
    if record.live:
        record.response |= {"status": "cancelled"}
    record.ended.set()
    if not record.keep:
        front.responses.drop(record.response["id"])


def _record(request: Request) -> Record:
    name = request.path_params["response_id"]
    record = front_of(request).responses.get(name)
    if record is None:
        raise ApiError(404, f"there is no response {name!r}; the last {front_of(request).responses.capacity} are kept",
                       param="response_id")  # fmt: skip
    return record


async def retrieve(request: Request) -> Response:
    """A response as of now."""
    return json_response(_record(request).response)


async def cancel(request: Request) -> Response:
    """Cancel a live response and return it; one that has ended is returned as it is."""
    record = _record(request)
    if record.live:
        front_of(request).abort(record.response["id"])
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await record.ended.wait()
        except TimeoutError:
            raise ApiError(503, f"the engine did not end the response within {CANCEL_SECONDS:g} s") from None
    return json_response(record.response)
