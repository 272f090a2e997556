"""Which prompt prefixes are hot: counted by their heads in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

from gaugeblock.reference.router.policies.base import RequestView
from gaugeblock.reference.router.policies.prefix_tree import common_prefix


class HotPrefix(NamedTuple):
    """A prefix that several requests shared, as their routing views have it (see ``RequestView``)."""

    path: str
    model: str | None
    unit: int
    prompt: bytes


class _Entry:
    __slots__ = ("count", "error", "prompt")

    def __init__(self, count: int, error: int, prompt: bytes) -> None:
        self.count, self.error, self.prompt = count, error, prompt


class HotPrefixes:
    """The ``slots`` most frequent heads of ``head`` bytes, with what all requests of each have in common.

    Space-saving counts (Metwally, Agrawal and El Abbadi, ICDT 2005): a new head takes the place of the rarest and
    inherits its count as its possible error, so a head that is really frequent cannot be pushed out by unique ones.
    Counts are halved now and then, so that yesterday's prompts cool down. A policy's tree would not do: it knows when a
    prefix was used last but not how often, nor in which shape the request came.
    """

    def __init__(self, slots: int, head: int) -> None:
        self._slots, self._head = slots, head
        self._entries: dict[tuple[str, str | None, int, bytes], _Entry] = {}
        self._noted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, path: str, view: RequestView) -> None:
        """Count a request. A prompt shorter than a head is not worth warming."""
        if len(view.prompt) < self._head:
            return
        self._cool()
        key = (path, view.model, view.unit, view.prompt[: self._head])
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(*self._make_room(), view.prompt)
            return
        entry.count += 1
        if not view.prompt.startswith(entry.prompt):
            entry.prompt = entry.prompt[: common_prefix(entry.prompt, view.prompt, unit=1)]

    def top(self, most: int) -> list[HotPrefix]:
        """Return the hottest prefixes, at most ``most``, the hottest first; each was surely seen more than once."""
        hot = [(entry.count - entry.error, key, entry) for key, entry in self._entries.items()]
        hot = sorted((item for item in hot if item[0] > 1), key=lambda item: -item[0])
        return [HotPrefix(*key[:3], entry.prompt) for _, key, entry in hot[:most]]

    def _make_room(self) -> tuple[int, int]:
        """Return count and possible error of a new entry."""
        if len(self._entries) < self._slots:
            return 1, 0
        rarest = min(self._entries, key=lambda key: self._entries[key].count)
        count = self._entries.pop(rarest).count
        return count + 1, count

    def _cool(self) -> None:
        self._noted += 1
        if self._noted >= 1024 * self._slots:
            self._noted = 0
            for entry in self._entries.values():
                entry.count //= 2
                entry.error //= 2
