"""The engine: a scheduler on a thread of its own, and the calls that other threads may make."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from gaugeblock.reference.engine.answers import Event
from gaugeblock.reference.engine.batch import sliding_pages
from gaugeblock.reference.engine.build import build_scheduler, check_config
from gaugeblock.reference.engine.config import ModelConfig, load_config, model_folder
from gaugeblock.reference.engine.errors import DeviceFault
from gaugeblock.reference.engine.scheduler import Scheduler
from gaugeblock.reference.engine.sequence import Sequence
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.engine.types import (
    EngineConfig,
    EngineStats,
    EventSink,
    Finish,
    GenerateRequest,
    QueueFull,
    RequestError,
    TokenEvent,
)
from gaugeblock.reference.kv.pages import KVError

log = logging.getLogger(__name__)
Build = Callable[[EngineConfig, ModelConfig, Path], Scheduler]

JOIN_SECONDS = 30.0  # a step of the largest chunk takes far less
FLUSH_SECONDS = 60.0
IDLE_SECONDS = 1.0  # bound of the idle wait; work wakes the loop at once


class Engine:
    """Serves one model. Every request that ``submit`` accepts ends with exactly one event that carries ``finish``.

    ``build`` makes the scheduler, of other weights than the folder's if it likes.

    Raises:
        ModelError: the folder cannot be served.
        ConfigError: a field of ``config`` is out of range.
    """

    def __init__(self, config: EngineConfig, build: Build = build_scheduler) -> None:
        check_config(config)
        folder = model_folder(config.model_path)
        self.config = config
        self.model_config = load_config(folder)
        self.tokenizer = Tokenizer(config.model_path)
        self.scheduler = build(config, self.model_config, folder)
        self._stats = replace(self.scheduler.count())
        self._inbox: deque[Callable[[], list[Event]]] = deque()
        self._wake = threading.Condition()
        self._live: dict[str, EventSink] = {}
        self._flushes: set[Future[bool]] = set()
        self._stopping = False
        self._closed = False
        self._crash: Exception | None = None
        self._thread: threading.Thread | None = None

    @property
    def context_len(self) -> int:
        """Most tokens of prompt and answer together: what the model's positions and the page pool allow.

        A pool that holds a sliding window and a chunk serves any length.
        """
        longest, window = self.model_config.max_position_embeddings, self.model_config.sliding_window
        if window is not None:
            hot = sliding_pages(window, self.config.chunked_prefill_size, self.config.page_size)
            if hot * self.config.page_size <= self.config.max_total_tokens:
                return longest
        return min(longest, self.config.max_total_tokens)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        ids = dict.fromkeys((*self.model_config.eos_token_ids, *self.tokenizer.eos_token_ids))
        return tuple(i for i in ids if 0 <= i < self.model_config.vocab_size)

    @property
    def healthy(self) -> bool:
        """Whether the loop runs and has not crashed."""
        return self._crash is None and self._thread is not None and self._thread.is_alive()

    @property
    def crash(self) -> Exception | None:
        """What ended the loop, if something did."""
        return self._crash

    def start(self) -> None:
        """Start the scheduler's thread."""
        if self._thread is not None:
            raise RuntimeError("the engine was started before")
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Start the scheduler's thread again after a crash: the weights are there, cached KV on the device is not.

        Raises:
            RuntimeError: the loop has not crashed, has not ended its requests yet, or was stopped.
            KVError: its pages cannot be accounted for.
        """
        with self._wake:
            if self._crash is None or self._stopping or self._thread is None or self._thread.is_alive():
                raise RuntimeError("only an engine that has crashed and ended its requests can be restarted")
            self.scheduler.reset()
            self._inbox.clear()
            self._thread = None
            self.start()
            self._crash = None  # before the thread gets beyond its first wait

    def stop(self) -> None:
        """Abort what runs and end the thread. May be called twice."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is None:
            self._end_all("the engine was stopped before it started")
        else:
            self._thread.join(JOIN_SECONDS)
        self._close()

    def _close(self) -> None:
        """Bring what is cached to disk, if there is one and nothing went wrong; let go of the devices."""
        if self._closed:
            return
        if self._thread is not None and self._thread.is_alive():
            log.error("the scheduler did not end within %.0f s: its cached pages are not brought to disk", JOIN_SECONDS)
            return
        self._closed = True
        try:
            self.scheduler.kv.close(keep=self._crash is None)
        except (OSError, KVError, DeviceFault):
            log.exception("the disk tier of the KV cache was not closed in order: what it lacks will be computed again")
        finally:
            self.scheduler.model.close()

    def submit(self, request: GenerateRequest, sink: EventSink) -> None:
        """Queue a request; its events go to ``sink`` on the scheduler's thread.

        Raises:
            RequestError: the request cannot be served; :class:`QueueFull` if it could be later.
        """
        self._check(request)
        sequence = Sequence(request, sink, self.tokenizer, self.eos_token_ids)
        with self._wake:
            if self._crash is not None or self._stopping:
                message = "the engine is stopping" if self._crash is None else _crashed(self._crash)
            else:
                self._register(request, sink)
                self._post(lambda: self._add(sequence))
                return
        self._send(sink, TokenEvent(request.rid, None, "", finish=Finish("abort", message=message)))

    def abort(self, rid: str | None) -> None:
        """End a request, or all (None). Unknown ids are ignored."""
        with self._wake:
            self._post(lambda: self.scheduler.abort(rid, "aborted by the client"))

    def flush_cache(self) -> bool:
        """Forget all cached KV. Returns False, with nothing changed, while a request is queued or runs.

        Raises:
            TimeoutError: the disk tier does not answer; what lies there is not forgotten, or not yet.
        """
        done: Future[bool] = Future()

        def flush() -> list[Event]:
            flushed, failure = False, None
            try:
                flushed = not self.scheduler.has_work and self.scheduler.kv.flush()
            except KVError as error:  # a slow disk is no reason to end
                failure = TimeoutError(str(error))
            self._publish()
            self._flushes.discard(done)
            if failure is None:
                done.set_result(flushed)
            else:
                done.set_exception(failure)
            return []

        with self._wake:
            if not self.healthy or self._stopping:
                return False
            self._flushes.add(done)
            self._post(flush)
        try:
            return done.result(FLUSH_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"the scheduler did not come to it within {FLUSH_SECONDS:.0f} s") from None

    def stats(self) -> EngineStats:
        """Return a snapshot, as of the last step or idle second.

        A request's pages are back before its last event is sent.
        """
        return replace(self._stats)

    def _check(self, request: GenerateRequest) -> None:
        vocab, length = self.model_config.vocab_size, len(request.input_ids)
        request.sampling.validate(vocab)
        if not request.input_ids:
            raise RequestError("the prompt is empty: at least one token is needed")
        wrong = next((i for i in (*request.input_ids, *request.output_ids) if not 0 <= i < vocab), None)
        if wrong is not None:
            raise RequestError(f"token id {wrong} is outside the vocabulary of {vocab}")
        if length >= self.context_len:
            raise RequestError(f"the prompt has {length} tokens, the context holds {self.context_len} with the answer")
        if length + request.sampling.max_new_tokens > self.context_len:
            raise RequestError(
                f"{length} prompt tokens and max_new_tokens {request.sampling.max_new_tokens} exceed "
                f"the context of {self.context_len} tokens"
            )
        done = len(request.output_ids)
        if done and done >= request.sampling.max_new_tokens:
            raise RequestError(f"the answer has {done} tokens already: max_new_tokens must be more")
        if not -1 <= request.logprob_start_len < length:
            raise RequestError(f"logprob_start_len must be in [-1, {length - 1}], got {request.logprob_start_len}")
        if not 0 <= request.top_logprobs_num <= vocab:
            raise RequestError(f"top_logprobs_num must be in [0, {vocab}], got {request.top_logprobs_num}")

    def _register(self, request: GenerateRequest, sink: EventSink) -> None:
        if request.rid in self._live:
            raise RequestError(f"request id {request.rid!r} is in use")
        if len(self._live) >= self.scheduler.max_running + self.config.max_queued_requests:
            raise QueueFull(f"{len(self._live)} requests are running or queued; try again later")
        self._live[request.rid] = sink

    def _add(self, sequence: Sequence) -> list[Event]:
        self.scheduler.add(sequence)
        return []

    def _post(self, command: Callable[[], list[Event]]) -> None:
        self._inbox.append(command)
        self._wake.notify_all()

    def _run(self) -> None:
        try:
            while self._wait():
                for event in self._turn():
                    self._deliver(*event)
            reason = "the engine was stopped"
        except Exception as error:
            log.exception("the scheduler crashed")
            reason = _crashed(error)
            self._crash = error
            self._take_back()
        self._end_all(reason)

    def _take_back(self) -> None:
        """After a crash: nobody computes any more, so nobody holds pages."""
        try:
            self.scheduler.reset()
            self._publish()
        except Exception:
            log.exception("the pages of a scheduler that has crashed cannot be accounted for")

    def _wait(self) -> bool:
        """Wait for something to do; False when it is time to end."""
        with self._wake:
            while not (self._stopping or self._inbox or self.scheduler.has_work):
                if not self._wake.wait(IDLE_SECONDS):
                    self._keep_up()
            return not self._stopping

    def _keep_up(self) -> None:
        """Take notice of writes that have ended and of a disk that may be tried again: metrics are read while idle."""
        self.scheduler.kv.offload.poll()
        self._publish()

    def _turn(self) -> list[Event]:
        events: list[Event] = []
        while self._inbox:
            events += self._inbox.popleft()()
        events += self.scheduler.step()
        self._publish()
        return events

    def _publish(self) -> None:
        self._stats = replace(self.scheduler.count())

    def _deliver(self, sequence: Sequence, event: TokenEvent) -> None:
        if event.finish is not None:
            self._forget(sequence.rid)
        if not self._send(sequence.sink, event) and event.finish is None:
            self.abort(sequence.rid)

    def _forget(self, rid: str) -> None:
        with self._wake:
            self._live.pop(rid, None)

    def _send(self, sink: EventSink, event: TokenEvent) -> bool:
        """Hand an event to a client; one that fails must not take the others down with it."""
        try:
            sink(event)
        except Exception:
            log.exception("the sink of request %s failed", event.rid)
            return False
        return True

    def _end_all(self, reason: str) -> None:
        """Give every request that is still open its last event, whatever state the scheduler is in."""
        with self._wake:
            open_requests, self._live = self._live, {}
            while self._flushes:
                self._flushes.pop().set_result(False)
        for rid, sink in open_requests.items():
            self._send(sink, TokenEvent(rid, None, "", finish=Finish("abort", message=reason)))


def _crashed(error: Exception) -> str:
    return f"the scheduler crashed: {type(error).__name__}: {error}"
