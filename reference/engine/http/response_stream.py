"""The ``response.*`` events of a streamed response."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

from gaugeblock.reference.engine.http.errors import ApiError
from gaugeblock.reference.engine.http.front import new_id
from gaugeblock.reference.engine.http.generation import Generation
from gaugeblock.reference.engine.http.response_body import conclude, fail, message_item, text_part
from gaugeblock.reference.engine.http.response_store import Record
from gaugeblock.reference.engine.http.wire import frame

ENDINGS = {"completed": "response.completed", "incomplete": "response.incomplete", "cancelled": "response.cancelled"}


class ResponseEvents:
    """Writes the events of one response in order, each with its sequence number."""

    def __init__(self, record: Record) -> None:
        self.record, self.item_id, self._number = record, new_id("msg_"), 0

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return frame(data, kind)

    def _of_response(self, kind: str) -> bytes:
        return self._event(kind, {"response": copy.copy(self.record.response)})

    def _of_item(self, kind: str, item: dict[str, Any]) -> bytes:
        return self._event(kind, {"output_index": 0, "item": item})

    def _of_part(self, kind: str, fields: dict[str, Any]) -> bytes:
        return self._event(kind, {"item_id": self.item_id, "output_index": 0, "content_index": 0, **fields})

    def opening(self) -> bytes:
        """Everything before the first token."""
        item = {**message_item(self.item_id, "", "in_progress"), "content": []}
        return (
            self._of_response("response.created")
            + self._of_response("response.in_progress")
            + self._of_item("response.output_item.added", item)
            + self._of_part("response.content_part.added", {"part": text_part("")})
        )

    def delta(self, text: str) -> bytes:
        """New text."""
        return self._of_part("response.output_text.delta", {"delta": text, "logprobs": []})

    def closing(self) -> bytes:
        """Everything after the last token; the response has been concluded."""
        response = self.record.response
        item = response["output"][0]
        text = item["content"][0]["text"]
        return (
            self._of_part("response.output_text.done", {"text": text, "logprobs": []})
            + self._of_part("response.content_part.done", {"part": text_part(text)})
            + self._of_item("response.output_item.done", item)
            + self._of_response(ENDINGS[response["status"]])
        )

    def failure(self, error: ApiError) -> bytes:
        """The end of a response that broke."""
        fail(self.record, error.message)
        return self._of_response("response.failed")

    async def frames(self, generation: Generation) -> AsyncIterator[bytes]:
        """All events, from ``response.created`` to the one that says how it ended."""
        yield self.opening()
        async for updates in generation.updates():
            text = "".join(update.text for update in updates)
            if text:
                yield self.delta(text)
        conclude(self.record, generation.answers[0], self.item_id)
        yield self.closing()
