"""What the router says itself when no worker's answer reaches the client."""

from __future__ import annotations

from collections.abc import Iterable

from gaugeblock.reference.router.admission import NotLetInError
from gaugeblock.reference.router.calls import Answer
from gaugeblock.reference.router.http1 import Head, end_to_end
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.relay import tell_break
from gaugeblock.reference.router.watch import FailureKind

FAILURES: dict[FailureKind, tuple[int, str, str, str]] = {
    "connect": (503, "Service Unavailable", "no_available_worker", "no worker could be reached"),
    "reset": (502, "Bad Gateway", "worker_reset", "the worker closed the connection before it answered"),
    "malformed": (502, "Bad Gateway", "worker_malformed", "the worker's answer is not valid HTTP"),
    "truncated": (502, "Bad Gateway", "worker_truncated", "the worker ended its answer too early"),
    "idle": (504, "Gateway Timeout", "idle_timeout", "the worker was silent for too long"),
    "total": (504, "Gateway Timeout", "total_timeout", "the request took too long"),
}
"""Status, reason, code and message of each way in which an exchange breaks."""
QUEUE: dict[str, tuple[int, str, str]] = {
    "queue_full": (429, "Too Many Requests", "too many requests wait already"),
    "queue_timeout": (429, "Too Many Requests", "there was no room for the request in time"),
    "deadline_unreachable": (429, "Too Many Requests", "the queue is longer than the time that the request has left"),
    "aborted": (499, "Client Closed Request", "the request was aborted before a worker got it"),
    "deadline_passed": (504, "Gateway Timeout", "the request's time was over before a worker could take it"),
}
"""Status, reason and message of each way not to be let in."""


def unavailable(journey: Journey, code: str, message: str, wait: int, unserved: str = "no_worker") -> None:
    """Answer 503 with the seconds after which another try makes sense."""
    headers = [*journey.receipt(worker=False, unserved=unserved), (b"Retry-After", b"%d" % wait)]
    family = journey.reading.family
    journey.reply.error(503, "Service Unavailable", code, message, family=family, headers=headers)


def no_worker(journey: Journey, wait: int) -> None:
    """No worker may take the request now."""
    message = f"no worker is available for this request; try again in {wait} s"
    unavailable(journey, "no_available_worker", message, wait)


def not_let_in(journey: Journey, refusal: NotLetInError) -> None:
    """The queue has no place for the request, or its time was over there."""
    status, reason, message = QUEUE[refusal.kind]
    headers = [*journey.receipt(worker=False, unserved=refusal.kind), (b"Retry-After", b"%d" % refusal.wait)]
    family = journey.reading.family
    journey.reply.error(status, reason, refusal.kind, message, family=family, headers=headers)


def bad_demand(journey: Journey, message: str) -> None:
    """The client says what cannot be understood of the request's priority or time-out."""
    journey.reply.error(400, "Bad Request", "bad_header", message, family=journey.reading.family)


def unknown_model(journey: Journey, known: Iterable[str]) -> None:
    """No worker has the model."""
    message = f"model {journey.reading.view.model!r} is not served here; known: {', '.join(known)}"
    journey.reply.error(404, "Not Found", "model_not_found", message, family=journey.reading.family)


def below_floor(journey: Journey, floor: str, known: Iterable[str]) -> None:
    """No worker of the model computes in what the request asks for."""
    have = ", ".join(known) or "none that is declared"
    message = f"the request asks for {floor} or better; the workers that serve it compute in: {have}"
    journey.reply.error(400, "Bad Request", "quality_not_served", message, family=journey.reading.family)


def failed(journey: Journey, kind: FailureKind, wait: int) -> None:
    """The last worker failed before the client got anything."""
    status, reason, code, message = FAILURES[kind]
    if status == 503:
        unavailable(journey, code, message, wait)
        return
    headers = journey.receipt(worker=False)
    journey.reply.error(status, reason, code, message, family=journey.reading.family, headers=headers)


def broke_off(journey: Journey, kind: FailureKind) -> None:
    """The worker failed in the middle of its answer."""
    status, _, code, _ = FAILURES[kind]
    tell_break(journey.reply, journey.reading, status, code, "the worker failed in the middle of its answer")


def shutting_down(journey: Journey) -> None:
    """The router stops before the answer is whole; nothing is said to a client that has left."""
    message = "the router is shutting down"
    if journey.reply.started:
        tell_break(journey.reply, journey.reading, 503, "router_shutdown", message)
    elif journey.reply.connected:
        unavailable(journey, "router_shutdown", message, 1, unserved="shutdown")


def no_object(journey: Journey) -> None:
    """A prefill and a decode worker cannot be told of each other in a body that is no JSON object."""
    message = "the body must be a JSON object"
    journey.reply.error(400, "Bad Request", "invalid_body", message, family=journey.reading.family)


def not_for_pairs(journey: Journey, paths: Iterable[str]) -> None:
    """The model is served by prefill and decode workers, which know no such request."""
    message = f"this model is served by prefill and decode workers, which take only {', '.join(paths)}"
    journey.reply.error(501, "Not Implemented", "not_disaggregated", message, family=journey.reading.family)


def answer_of_prefill(journey: Journey, answer: Answer, reason: bytes) -> None:
    """A prefill worker's answer becomes the client's: it says why there is no other."""
    head = Head((b"", b"", b""), answer.headers, {name.lower(): value for name, value in answer.headers})
    length = len(answer.body) if b"content-length" in head.fields else None
    journey.reply.begin(answer.status, reason, [*end_to_end(head), *journey.receipt()], length)
    journey.reply.write(answer.body)
    journey.reply.end()
