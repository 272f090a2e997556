"""How a stream ended for the client, told from its bytes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import CHAT, RouterLab
from gaugeblock.fixtures.targets.sse import SseEvent, SseParser
from gaugeblock.fixtures.targets.wire import Exchange, Limits, parse_json
from gaugeblock.fixtures.workers.script import End, dies_after
from gaugeblock.fixtures.workers.worker import ScriptedWorker

FRAMES = 2
"""Frames of a stream of five that a dying worker sends."""

LIMITS = Limits(connect=2.0, idle=5.0, total=10.0)
"""Seconds of one stream whose worker breaks at once: far beyond any router's own reaction."""


@dataclass(frozen=True)
class Ending:
    """What came of a stream: its events, whether the connection broke, and how the router put it."""

    events: tuple[SseEvent, ...]
    broken: str
    body: bytes

    @property
    def error(self) -> bool:
        """Whether an event said that the stream has failed."""
        return any(not e.done and _is_error(e) for e in self.events)

    @property
    def clean(self) -> bool:
        """Whether a client would take the stream for a whole answer: it ended in order and nothing said otherwise."""
        return not self.broken and not self.error

    @property
    def shown(self) -> str:
        """Its last bytes, for messages."""
        return f"{len(self.events)} events, ending in {self.body[-160:]!r}" + (
            f" ({self.broken})" if self.broken else ""
        )


def read_to_end(exchange: Exchange, seen: Callable[[int], None] = lambda count: None) -> Ending:
    """Read a stream however it ends; ``seen`` is told how many events have come."""
    parser = SseParser(exchange.url)
    events: list[SseEvent] = []
    body, broken = b"", ""
    try:
        for piece in exchange.pieces():
            body += piece
            events += parser.feed(piece, 0.0)
            seen(len(events))
        parser.finish()
    except TargetFault as fault:
        broken = str(fault)
    return Ending(tuple(events), broken, body)


def ending_of(lab: RouterLab, prompt: str = "tell me a story") -> tuple[Ending, str]:
    """Send one streamed request and return how it ended, with its mark."""
    with lab.open_stream(prompt, limits=LIMITS) as (exchange, mark):
        return read_to_end(exchange), mark


def ending_of_death(
    lab: RouterLab, *workers: ScriptedWorker, end: End = End.RESET, path: str = CHAT
) -> tuple[Ending, str]:
    """Send one streamed request that breaks off once the client has 2 of its 5 frames, if one of ``workers`` has it.

    No workers: whichever has it. Until the client has the frames the break waits, since a reset overtakes them.
    """
    gate = lab.gate()
    for worker in workers or lab.workers:
        worker.always(dies_after(FRAMES, end, gate))
    with lab.open_stream("tell me a story", limits=LIMITS, path=path) as (exchange, mark):
        return read_to_end(exchange, lambda count: gate.open() if count >= FRAMES else None), mark


def _is_error(event: SseEvent) -> bool:
    if event.event == "error":
        return True
    data = parse_json(event.data, event.url, 200)
    return isinstance(data, dict) and bool(data.get("error"))
