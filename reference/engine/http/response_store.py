"""What ``/v1/responses`` remembers: a bounded number of responses, the oldest finished ones forgotten first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

CAPACITY = 1000
LIVE = frozenset({"queued", "in_progress"})


@dataclass
class Record:
    """One response: its JSON as of now, and the conversation that a later one can go on from."""

    response: dict[str, Any]
    messages: list[dict[str, Any]]
    keep: bool = True
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def live(self) -> bool:
        """Whether it may still change."""
        return self.response["status"] in LIVE


class ResponseStore:
    """Records by response id. Live ones stay: admission bounds their number."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._records: OrderedDict[str, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> None:
        """Remember ``record`` and forget the oldest finished ones beyond the capacity."""
        self._records[record.response["id"]] = record
        surplus = len(self._records) - self.capacity
        if surplus > 0:
            for key in [key for key, held in self._records.items() if not held.live][:surplus]:
                del self._records[key]

    def get(self, response_id: str) -> Record | None:
        """The record, None when unknown or forgotten."""
        return self._records.get(response_id)

    def drop(self, response_id: str) -> None:
        """Forget one."""
        self._records.pop(response_id, None)
