"""What the engines say of their prefix caches, held against what the router had predicted."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from gaugeblock.reference.router.policies.base import Decision, RequestView

TAIL = 4096  # bytes of an answer in whose end its usage is looked for
WORTH = 64  # tokens; a smaller prediction may be right and still find no whole page
_CACHED = re.compile(rb'"cached_tokens"\s*:\s*(\d{1,9})')
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,9})')


def read_report(tail: bytes) -> tuple[int, int] | None:
    """Return cached and prompt tokens from the end of an answer (whole, or the last events of a stream), or None.

    Found by their names, without parsing: a name within generated text has escaped quotes.
    """
    cached = _last(_CACHED, b'"cached_tokens"', tail)
    prompt = _last(_PROMPT, b'"prompt_tokens"', tail)
    return None if cached is None or not prompt else (cached, prompt)


def _last(pattern: re.Pattern[bytes], name: bytes, tail: bytes) -> int | None:
    at = tail.rfind(name)
    found = pattern.match(tail, at) if at >= 0 else None
    return int(found[1]) if found else None


class CacheReports:
    """Totals by worker, and a look at whether a worker has lost its cache.

    Of the last ``window`` predictions for a worker three quarters wrong, about half as many different prompts among
    them, mean that its cache is gone: ``forget`` is told its id. One prompt that many clients send at once is no sign,
    for it is predicted before the first of them is computed. A window of 0 never forgets.
    """

    def __init__(self, window: int, limit: int, forget: Callable[[str], None]) -> None:
        self._window, self._limit, self._forget = window, limit, forget
        self._recent: dict[str, deque[int]] = {}  # a prompt's hash if its prediction was wrong, 0 if it was right
        self.predicted: dict[str, int] = {}  # tokens
        self.cached: dict[str, int] = {}  # tokens
        self.lost = 0  # times that a cache was found gone

    def learn(self, request: RequestView, decision: Decision, tail: bytes) -> None:
        """Take in the end of an answer to ``request`` by the worker of ``decision``."""
        size = len(request.prompt)
        report = read_report(tail) if size and size < self._limit else None  # a prompt that was cut has no known share
        if report is None:
            return
        cached, prompt = report
        predicted = prompt * decision.matched * request.unit // size
        worker = decision.worker
        self.predicted[worker] = self.predicted.get(worker, 0) + predicted
        self.cached[worker] = self.cached.get(worker, 0) + cached
        if predicted >= WORTH and self._window:
            self._judge(worker, hash(request.prompt) or 1 if 2 * cached < predicted else 0)

    def _judge(self, worker: str, wrong: int) -> None:
        recent = self._recent.setdefault(worker, deque(maxlen=self._window))
        recent.append(wrong)
        misses = [prompt for prompt in recent if prompt]
        if 4 * len(misses) >= 3 * self._window and 2 * len(set(misses)) >= self._window:
            self.lost += 1
            recent.clear()
            self._forget(worker)
