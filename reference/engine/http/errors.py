"""Errors that a client sees, in SGLang's shape: ``{"object": "error", "message", "type", "param", "code"}``."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gaugeblock.reference.engine.http.jsonio import to_json
from gaugeblock.reference.engine.types import QueueFull, RequestError

TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "PayloadTooLargeError",
    429: "TooManyRequestsError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}
CLIENT_CLOSED_REQUEST = 499  # nobody is left to read it


class ApiError(Exception):
    """An answer other than 2xx. ``param`` is the path of the field at fault."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.headers = status, message, param, headers


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


def bad(param: str | None, message: str) -> ApiError:
    """A 400 that names the field at fault."""
    return ApiError(400, message, param=param)


def overloaded(message: str) -> ApiError:
    """A 503 after which trying again is sensible."""
    return ApiError(503, message, headers={"Retry-After": "1"})


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    kind = TYPES.get(status, "BadRequestError" if status < 500 else "InternalServerError")
    return {"object": "error", "message": message, "type": kind, "param": param, "code": status}


def error_response(error: ApiError) -> Response:
    """``error`` as an answer."""
    body = to_json(error_body(error.status, error.message, error.param))
    return Response(body, error.status, headers=error.headers, media_type="application/json")


async def on_api_error(_: Request, error: Exception) -> Response:
    """Answer an :class:`ApiError`."""
    assert isinstance(error, ApiError)
    return error_response(error)


async def on_request_error(_: Request, error: Exception) -> Response:
    """Answer what the engine refused."""
    refused = overloaded(str(error)) if isinstance(error, QueueFull) else bad(None, str(error))
    return error_response(refused)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown path or method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    what = f"{request.method} {request.url.path}"
    message = {404: f"there is no {what}", 405: f"{what} is not allowed; allowed: {headers.get('Allow', 'none')}"}
    text = message.get(error.status_code, error.detail)
    return error_response(ApiError(error.status_code, text, headers=headers))


async def on_client_gone(_request: Request, _error: Exception) -> Response:
    """Close the books on a request whose client has left."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def on_bug(_request: Request, _error: Exception) -> Response:
    """Answer an error of our own; the server logs it."""
    return error_response(ApiError(500, "the engine's HTTP front failed; its log says where"))


HANDLERS: dict[Any, Any] = {
    ApiError: on_api_error,
    RequestError: on_request_error,
    HTTPException: on_http_error,
    ClientGone: on_client_gone,
    Exception: on_bug,
}
"""Starlette's ``exception_handlers``."""
