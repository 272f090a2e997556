"""RTR-112."""

from __future__ import annotations

from typing import Any

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.sse import SseEvent
from gaugeblock.fixtures.targets.wire import parse_json

NEEDS = {
    "/generate": "native-api",
    "/v1/chat/completions": "proxy",
    "/v1/completions": "proxy",
    "/v1/responses": "responses-api",
    "/v1/messages": "messages-api",
}


@check(
    "RTR-112",
    feature="proxy",
    level="extended",
    bound="exact: an event that a client of the API knows as an error, with a message; two of them go by its type",
    sources=("https://github.com/open-webui/open-webui/issues/29628", "https://github.com/openai/openai-openapi"),
)
@pytest.mark.parametrize("path", NEEDS)
def test_rtr_112(router_lab: LabFactory, path: str) -> None:
    """A stream that breaks ends with an error in the words of its own API.

    Clients of the responses and messages APIs look at the type of each event: an error in another API's shape is
    skipped, and the answer looks whole. Look at which shape the terminal error has for each path.
    """
    lab = router_lab(needs=(NEEDS[path],))
    ending, _ = ending_of_death(lab, path=path)
    errors = [event for event in ending.events if not event.done and _tells(path, event)]
    assert errors, f"{path}: the worker died after 2 frames and no event says so in this API's shape: {ending.shown}"


def _tells(path: str, event: SseEvent) -> bool:
    data: Any = parse_json(event.data, event.url, 200)
    if not isinstance(data, dict):
        return False
    if path == "/v1/responses":
        return event.event == data.get("type") == "error" and bool(data.get("message"))
    error = data.get("error")
    if not isinstance(error, dict) or not error.get("message"):
        return False
    return path != "/v1/messages" or event.event == data.get("type") == "error"
