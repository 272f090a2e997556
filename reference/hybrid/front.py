"""The QoS front: one engine to its callers, several lanes behind it, and exactly one end for each request.

A fault before the first token costs nothing but time: another lane gets the request. After it the front has the tokens,
so another lane computes prompt and tokens anew and goes on, as after a retraction; the client sees one answer without a
seam. Both happen once a request, and only in a lane that reaches the request's quality floor. What cannot go on ends
with an error that names the lane.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from gaugeblock.reference.engine.types import EventSink, Finish, GenerateRequest, QueueFull, RequestError, TokenEvent
from gaugeblock.reference.hybrid.jobs import Attempt, FrontConfig, Job, Qos, refusal_text
from gaugeblock.reference.hybrid.lane_metrics import LaneMetrics
from gaugeblock.reference.hybrid.lanes import Lane, LaneState, check_lanes
from gaugeblock.reference.hybrid.qos import Decision, choose
from gaugeblock.reference.router.breaker import Breaker, Outcome

log = logging.getLogger(__name__)
MOVES = 1  # lanes that may take over a request from one that failed
TICK = 0.05  # seconds between looks at the clock: how late a deadline may be noticed


class LaneFront:
    """Serves requests by its lanes. Any thread may call it; ``clock`` gives seconds.

    Nothing is timed but by :meth:`tick`, which :meth:`start` has called by a thread of its own.

    Raises:
        ValueError: the lanes cannot stand in for each other, or a field of ``config`` is not legal.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        config: FrontConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_lanes([(lane.name, lane.revision) for lane in lanes])
        self.config = config or FrontConfig()
        self._clock = clock
        restarts, pause = self.config.restarts, self.config.restart_pause
        self.states = [LaneState(lane, self._breaker(), clock, restarts, pause) for lane in lanes]
        self.metrics = LaneMetrics(self.states, self.waiting)
        self._jobs: dict[str, Job] = {}
        self._queue: list[Job] = []
        self._arrivals = 0
        self._lock = threading.RLock()  # always taken before an engine's own
        self._dispatching = False
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def _breaker(self) -> Breaker:
        c = self.config
        return Breaker(c.breaker_failures, c.breaker_cooldown, c.breaker_probes, c.breaker_successes, self._clock)

    # -- the callers' side

    def submit(self, request: GenerateRequest, sink: EventSink, qos: Qos | None = None) -> None:
        """Queue a request; its events go to ``sink``, the last one with ``finish``, on any thread.

        Raises:
            RequestError: the request can be served by no engine, or ``qos`` cannot be understood.
        """
        qos = qos or Qos()
        with self._lock:
            qos.check()
            if request.rid in self._jobs:
                raise RequestError(f"request id {request.rid!r} is in use")
            now = self._clock()
            until = math.inf if qos.timeout is None else now + qos.timeout
            job = Job(request, sink, qos, self._arrivals, now, until, now + self.config.queue_timeout)
            self._arrivals += 1
            self._jobs[request.rid] = job
            self._queue.append(job)
            self._dispatch()
            if job in self._queue and len(self._queue) > self.config.queue_size:
                self._refuse(job, "queue_full")

    def abort(self, rid: str | None) -> None:
        """End a request, or all (None). Unknown ids are ignored."""
        with self._lock:
            for job in list(self._jobs.values()) if rid is None else filter(None, [self._jobs.get(rid)]):
                job.called_off = True
                if job.attempt is None:
                    self._end(job, Finish("abort", message="aborted by the client"))
                else:
                    job.attempt.state.lane.engine.abort(job.attempt.rid)

    async def generate(self, request: GenerateRequest, qos: Qos | None = None) -> AsyncIterator[TokenEvent]:
        """Yield a request's events; one that is not read to its end is aborted.

        Raises:
            RequestError: as :meth:`submit`.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[TokenEvent] = asyncio.Queue()

        def take(event: TokenEvent) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        self.submit(request, take, qos)
        try:
            while True:
                event = await events.get()
                yield event
                if event.finish is not None:
                    return
        finally:
            self.abort(request.rid)

    def waiting(self) -> Counter[str]:
        """Return how many wait, by priority."""
        with self._lock:
            return Counter(job.qos.priority for job in self._queue)

    # -- time

    def start(self) -> None:
        """Look at the clock from now on."""
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._run, name="lanes", daemon=True)
            self._ticker.start()

    def stop(self) -> None:
        """End what is open and stop looking at the clock."""
        self._stop.set()
        with self._lock:
            for job in list(self._jobs.values()):
                self._call_off(job, Finish("abort", message="the lanes were stopped"))
        if self._ticker is not None:
            self._ticker.join(10.0)

    def _run(self) -> None:
        while not self._stop.wait(TICK):
            self.tick()

    def tick(self) -> None:
        """End what is over its time, leave silent lanes, restart dead ones, and let in whom a lane can take by now."""
        with self._lock:
            for state in self.states:
                crash = state.look_after()
                if crash is not None:
                    self.metrics.crashes.labels(state.lane.name, type(crash).__name__).inc()
            now = self._clock()
            for job in list(self._jobs.values()):
                attempt = job.attempt
                if now >= job.until:
                    self._over(job)
                elif attempt is None:
                    if now >= job.lapse:
                        self._refuse(job, "queue_timeout")
                elif now - attempt.heard >= self.config.idle_timeout:
                    self._failed(job, attempt, f"it was silent for {self.config.idle_timeout:g} s")
                    attempt.state.lane.engine.abort(attempt.rid)
            self._dispatch()

    def _over(self, job: Job) -> None:
        if job.attempt is None:
            self._refuse(job, "deadline_passed")
            return
        name, count = job.attempt.state.lane.name, len(job.tokens)
        message = f"the request's time was over in the lane {name!r}, after {count} tokens of answer"
        self._call_off(job, Finish("abort", message=message, status=504), "deadline")

    def _call_off(self, job: Job, finish: Finish, end: str = "abort") -> None:
        attempt = job.attempt
        if attempt is not None:
            self._leave(job, attempt, Outcome.NEUTRAL, end)
            attempt.state.lane.engine.abort(attempt.rid)  # what it says of that is no longer heard
        self._end(job, finish)

    # -- choosing

    def _dispatch(self) -> None:
        """Let in whoever can be served, the first in line first; whoever must wait holds up nobody behind."""
        if self._dispatching:  # an engine has answered within ``submit``: the loop below comes to it
            return
        self._dispatching = True
        try:
            while self._settle_next():
                pass
        finally:
            self._dispatching = False

    def _settle_next(self) -> bool:
        """Start or refuse the first in line for whom that can be decided; those who ask the same are asked once."""
        must_wait = set()
        for job in sorted(self._queue, key=self._turn):
            if job.kind in must_wait:
                continue
            if self._settle(job):
                return True
            if job.until == math.inf:
                must_wait.add(job.kind)
        return False

    def _turn(self, job: Job) -> tuple[int, int]:
        """Return a job's place in line: what a lane has failed, what was passed over too often, then by priority."""
        return (-2 if job.tried else -1 if job.passed >= self.config.patience else job.band), job.number

    def _settle(self, job: Job) -> bool:
        """Start a job or refuse it, if that can be decided now."""
        decision = self._choose(job)
        if decision.waits:
            return False
        self._queue.remove(job)
        if decision.lane is None:
            self._refuse(job, decision.refusal or "fault")
            return True
        for other in self._queue:  # passed over counts only if it could have been served
            other.passed += other.number < job.number and other.band > job.band and not self._choose(other).waits
        self._begin(job, decision)
        return True

    def _choose(self, job: Job) -> Decision:
        return choose(job.asked(self._clock()), [state.view for state in self.states])

    def _begin(self, job: Job, decision: Decision) -> None:
        state = next(state for state in self.states if state.lane.name == decision.lane)
        now, priority = self._clock(), job.qos.priority
        attempt = Attempt(state, f"{job.request.rid}/{len(job.tried)}", state.begin(priority), now, now)
        job.attempt = attempt
        job.degraded = decision.degraded
        if decision.degraded is not None:
            self.metrics.degraded.labels(state.lane.name, decision.degraded).inc()
        if job.tokens:
            self.metrics.continued.labels(state.lane.name).inc()
        try:
            state.lane.engine.submit(job.for_lane(attempt.rid), lambda event: self._hear(job, attempt, event))
        except QueueFull as error:
            self._failed(job, attempt, str(error), Outcome.NEUTRAL)
        except RequestError as error:
            self._leave(job, attempt, Outcome.NEUTRAL, "refused")
            self._end(job, Finish("abort", message=str(error), status=400))
        except Exception as error:  # whatever a device driver throws
            log.exception("the lane %s did not take a request", state.lane.name)
            self._failed(job, attempt, f"{type(error).__name__}: {error}")

    # -- the lanes' side

    def _hear(self, job: Job, attempt: Attempt, event: TokenEvent) -> None:
        """Take an event of a lane. What comes late, of an attempt that was given up, is nobody's any more."""
        with self._lock:
            if job.attempt is not attempt:
                return
            finish = event.finish
            if finish is not None and finish.type == "abort" and not job.called_off:
                self._failed(job, attempt, finish.message or "it ended the request")
            else:
                self._pass_on(job, attempt, event)
            if finish is not None:  # there is room
                self._dispatch()

    def _pass_on(self, job: Job, attempt: Attempt, event: TokenEvent) -> None:
        lane, now = attempt.state.lane.name, self._clock()
        if event.token_id is not None:
            attempt.measure(now, job.asked(now).prompt, event.cached_tokens)
        event = job.told(attempt, event)
        if event.token_id is not None:
            if not job.tokens:
                self.metrics.first_token.labels(lane).observe(now - job.since)
            job.tokens.append(event.token_id)
            job.lanes.setdefault(lane)
        attempt.heard = now
        if event.finish is None:
            self._send(job, event)
            return
        whole = event.finish.type != "abort"
        self._leave(job, attempt, Outcome.SUCCESS if whole else Outcome.NEUTRAL, event.finish.type)
        if whole:
            self.metrics.latency.labels(lane).observe(now - job.since)
        self._close(job, event)

    def _failed(self, job: Job, attempt: Attempt, why: str, outcome: Outcome = Outcome.FAULT) -> None:
        """A lane cannot go on with a request: another one may, once."""
        self._leave(job, attempt, outcome, "fault" if outcome is Outcome.FAULT else "full")
        name = attempt.state.lane.name
        job.tried[name] = f"the lane {name!r} failed after {len(job.tokens)} tokens of answer: {why}"
        if job.called_off:
            self._end(job, Finish("abort", message="aborted by the client"))
        elif len(job.tried) > MOVES:
            self._end(job, Finish("abort", message="; ".join(job.tried.values()), status=503))
        else:
            self._queue.append(job)
            self._dispatch()

    def _leave(self, job: Job, attempt: Attempt, outcome: Outcome, end: str) -> None:
        """Give back a job's place in its lane; ``end`` is how it ended there."""
        attempt.state.end(job.qos.priority, attempt.ticket, outcome)
        self.metrics.requests.labels(attempt.state.lane.name, end).inc()
        job.attempt, job.last = None, attempt

    # -- the end

    def _refuse(self, job: Job, kind: str) -> None:
        self.metrics.refused.labels(kind).inc()
        status, message = refusal_text(kind, job, self.states, self._clock())
        self._end(job, Finish("abort", message=message, status=status))

    def _end(self, job: Job, finish: Finish) -> None:
        """End a request by the front's own word."""
        self._close(job, job.told(job.last, TokenEvent(job.request.rid, None, "", finish=finish)))

    def _close(self, job: Job, event: TokenEvent) -> None:
        if job in self._queue:
            self._queue.remove(job)
        del self._jobs[job.request.rid]
        job.over = True
        self._send(job, event)

    def _send(self, job: Job, event: TokenEvent) -> None:
        """Hand an event to a client; one that fails must not take a lane down with it."""
        try:
            job.sink(event)
        except Exception:
            log.exception("the sink of request %s failed", job.request.rid)
            if event.finish is None:
                self.abort(job.request.rid)
