"""Continuous batching with chunked prefill: what to compute in the next step, and what becomes of the result.

A sequence waits, is admitted when its pages suffice, computes its tokens in chunks within the step's budget (tokens of
decoding sequences first), and samples whenever all its tokens have KV. When pages run out the newest sequence is
retracted: its pages go, it waits again at the front. The oldest never is, so there is always progress.

Under a sliding window, a sequence that may outgrow it holds pages for the window and the next chunk alone: it takes
them chunk by chunk and gives back what falls behind. It leaves the prefix index alone, in which a page is found through
all that come before it: the first ones could not go. A sequence that fits the window is cached like any other; its KV
is the same under every window that it fits.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from gaugeblock.reference.engine.answers import Event, abort_event, continue_answer, prompt_only_event
from gaugeblock.reference.engine.batch import Span, build_batch, first_visible, sliding_pages
from gaugeblock.reference.engine.errors import DeviceFault
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.engine.sampler import sample
from gaugeblock.reference.engine.sequence import Sequence
from gaugeblock.reference.engine.types import EngineConfig, EngineStats
from gaugeblock.reference.kv.manager import KVManager
from gaugeblock.reference.kv.offload import Offload

log = logging.getLogger(__name__)

PREFETCH_DEPTH = 8  # requests at the head of the queue
UNAVAILABLE = 503  # over HTTP, of a request whose device failed: another server may have it


@dataclass(frozen=True)
class Work:
    """The next ``length`` tokens of a sequence."""

    sequence: Sequence
    length: int

    @property
    def samples(self) -> bool:
        """Whether the step ends with all tokens computed."""
        return self.length == self.sequence.remaining


class Scheduler:
    """Runs on one thread. ``waiting`` in order of arrival, ``running`` in order of admission."""

    def __init__(self, model: LlamaModel, kv: KVManager, config: EngineConfig) -> None:
        self.model = model
        self.kv = kv
        self.window = model.config.sliding_window
        self.budget = config.chunked_prefill_size
        # One token of budget for each: decodes can neither exceed the budget nor starve a prefill.
        self.max_running = min(config.max_running_requests, config.chunked_prefill_size)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.stats = EngineStats(total_tokens=kv.pool.total * kv.page_size)
        self.count()

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. It must fit into the whole pool (the engine checks)."""
        self.waiting.append(sequence)

    def abort(self, rid: str | None, message: str) -> list[Event]:
        """End one request, or all (None), in whatever state; unknown ids are ignored."""
        ended = [s for s in (*self.running, *self.waiting) if rid is None or s.rid == rid]
        for sequence in ended:
            self._remove(sequence)
        self.stats.aborted_total += len(ended)
        return [abort_event(sequence, message) for sequence in ended]

    def reset(self) -> None:
        """Forget all sequences and what is cached on the device, after an error that may have left anything behind.

        Raises:
            KVError: the pages do not add up even so.
        """
        self.stats.aborted_total += len(self.running) + len(self.waiting)
        self.running.clear()
        self.waiting.clear()
        self.kv.reset()

    def step(self) -> list[Event]:
        """Compute one batch and return what became of it."""
        self._prefetch()
        try:
            plan = self.plan()
            if not plan:
                return []
            logits = self._forward(plan)
        except DeviceFault as fault:
            return self._give_up(fault)
        events = self._advance(plan, logits)
        self.stats.steps_total += 1
        return events

    def _give_up(self, fault: DeviceFault) -> list[Event]:
        """End what runs, and forget what is cached on the device: nobody knows what its memory holds now.

        When nothing runs the first that waits is ended, for whose pages the device failed; the others will be tried.
        """
        log.error("%s", fault)
        ended = list(self.running) or [self.waiting[0]]
        for sequence in ended:
            self._remove(sequence)
        self.kv.forget()
        self.stats.device_faults_total += 1
        self.stats.aborted_total += len(ended)
        return [abort_event(sequence, str(fault), UNAVAILABLE) for sequence in ended]

    def _prefetch(self) -> None:
        """Let the first ones that wait have their pages brought nearer, each once."""
        if self.kv.offload.disk is None:
            return
        fresh = [s for s in islice(self.waiting, PREFETCH_DEPTH) if not (s.prefetched or s.outgrows(self.window))]
        for sequence in fresh:
            sequence.prefetched = True
        self.kv.prefetch([(s.tokens[: s.hit_limit], s.request.cache_salt) for s in fresh])

    def plan(self) -> list[Work]:
        """Choose the tokens of the next step, at most ``budget``: decodes, running prefills, then new admissions."""
        plan = self._plan_running([s for s in self.running if s.remaining == 1], self.budget)
        left = self.budget - len(plan)
        prefills = self._plan_running([s for s in self.running if s.remaining > 1], left)
        plan += prefills
        left -= sum(work.length for work in prefills)
        while left and self.waiting and len(self.running) < self.max_running and self._admit(self.waiting[0], left):
            sequence = self.running[-1]
            plan.append(Work(sequence, min(left, sequence.remaining)))
            left -= plan[-1].length
        return [work for work in plan if work.sequence.allocation is not None]  # an older one may have taken its pages

    def _plan_running(self, sequences: list[Sequence], left: int) -> list[Work]:
        plan: list[Work] = []
        for sequence in sequences:
            length = min(left, sequence.remaining)
            if length and sequence in self.running and self._make_room(sequence, length):
                plan.append(Work(sequence, length))
                left -= length
        return plan

    def _make_room(self, sequence: Sequence, length: int) -> bool:
        """Hold pages for the next tokens, retracting newer sequences if need be; False if itself was retracted."""
        while sequence.allocation is not None:
            if self.kv.extend(sequence.allocation, sequence.computed + length):
                return True
            self._retract(self.running[-1])
        return False

    def _retract(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.kv.release(sequence.retract())
        self.waiting.appendleft(sequence)
        self.stats.retracted_total += 1

    def _admit(self, sequence: Sequence, left: int) -> bool:
        """Move the first waiting sequence to the running ones, if there are pages for it and a spare one for each."""
        tokens, spare = sequence.tokens, len(self.running)
        if sequence.outgrows(self.window):
            tokens = tokens[:left]
            spare += self._most_pages(sequence) - self.kv.pages_for(len(tokens))
            allocation = self.kv.begin(tokens, 0, spare, salt=sequence.request.cache_salt)
        else:
            allocation = self.kv.begin(tokens, sequence.hit_limit, spare, salt=sequence.request.cache_salt)
        if allocation is None:
            return False
        self.waiting.popleft()
        sequence.admit(allocation)
        self.running.append(sequence)
        return True

    def _most_pages(self, sequence: Sequence) -> int:
        """Most pages that a sequence holds at once until its present tokens are computed."""
        pages = self.kv.pages_for(len(sequence.tokens))
        return pages if self.window is None else min(pages, sliding_pages(self.window, self.budget, self.kv.page_size))

    def _forward(self, plan: list[Work]) -> Tensor:
        spans = [self._span(work) for work in plan]
        batch = build_batch(spans, self.kv.page_size, self.kv.storage.pad_page)
        return self.model.logits(self.model.forward(batch, self.kv.storage))  # [wanted rows, vocab]

    def _span(self, work: Work) -> Span:
        sequence, start = work.sequence, work.sequence.computed
        allocation = sequence.allocation
        if allocation is None:
            raise ValueError(f"request {sequence.rid} was planned without pages")
        wanted = [position - start for position in sequence.logprob_positions(work.length)]
        if work.samples:
            wanted.append(work.length - 1)
        tokens = sequence.tokens[start : start + work.length]
        return Span(tokens, start, allocation.pages, wanted, allocation.behind, self.window)

    def _advance(self, plan: list[Work], logits: Tensor) -> list[Event]:
        """Take in a step's logits: prompt logprobs, finished pages, new tokens."""
        ready: list[tuple[Sequence, int]] = []
        row = 0
        for work in plan:
            sequence, samples = work.sequence, work.samples
            positions = sequence.logprob_positions(work.length)
            if positions and sequence.prompt_logprobs is not None:
                following = sequence.tokens[positions.start + 1 : positions.stop + 1]
                sequence.prompt_logprobs.extend(logits[row : row + len(positions)], following)
            row += len(positions)
            self._commit(sequence, work.length)
            if samples:
                ready.append((sequence, row))
                row += 1
        return self._answer(ready, logits)

    def _commit(self, sequence: Sequence, length: int) -> None:
        sequence.computed += length
        if sequence.allocation is None:
            return
        if sequence.outgrows(self.window):
            self.kv.release_behind(sequence.allocation, first_visible(sequence.computed, self.window))
        else:
            self.kv.commit(sequence.allocation, sequence.tokens, sequence.computed)

    def _answer(self, ready: list[tuple[Sequence, int]], logits: Tensor) -> list[Event]:
        events: list[Event] = []
        for sequence, _ in ready:
            if not sequence.answered:
                self.stats.prompt_tokens_total += sequence.prompt_len
                self.stats.cached_prompt_tokens_total += sequence.cached_tokens or 0
            if sequence.request.sampling.max_new_tokens == 0:
                events.append(prompt_only_event(sequence))
        sampling = [(s, row) for s, row in ready if s.request.sampling.max_new_tokens]
        if sampling:
            rows = logits[[row for _, row in sampling]]
            tokens = sample(rows, [s.sample_context() for s, _ in sampling])
            events += [
                continue_answer(s, t, rows[i]) for i, ((s, _), t) in enumerate(zip(sampling, tokens, strict=True))
            ]
            self.stats.generation_tokens_total += len(tokens)
        for sequence, event in events:
            if event.finish is not None:
                self._remove(sequence)
        return events

    def _remove(self, sequence: Sequence) -> None:
        if sequence in self.running:
            self.running.remove(sequence)
            self.kv.release(sequence.retract())
        else:
            self.waiting.remove(sequence)

    def count(self) -> EngineStats:
        """Bring the gauges of ``stats`` up to date and return it."""
        stats, kv = self.stats, self.kv
        stats.running, stats.queued = len(self.running), len(self.waiting)
        stats.free_tokens = kv.pool.free * kv.page_size
        stats.cached_tokens = kv.pool.idle * kv.page_size
        self._count_offload(kv.offload, kv.page_size)
        stats.evicted_tokens_total = kv.evicted * kv.page_size
        stats.promoted_tokens_total = kv.promoted * kv.page_size
        return stats

    def _count_offload(self, tiers: Offload, page: int) -> None:
        stats, disk = self.stats, tiers.disk
        stats.host_tokens = len(tiers.host) * page
        stats.lost_tokens_total = tiers.lost * page
        if disk is None:
            return
        stats.disk_tokens = disk.index.count * page
        stats.disk_degraded = int(disk.degraded)
        stats.disk_stored_tokens_total = disk.stored * page
        stats.disk_loaded_tokens_total = disk.loaded * page
        stats.disk_skipped_tokens_total = disk.skipped * page
        stats.disk_failures_total = disk.failures
        stats.disk_damaged_pages_total = disk.store.damaged
        stats.prefetched_tokens_total = tiers.prefetched * page
