"""HYB-071."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check
from gaugeblock.conformance.inprocess_fixtures import needs_torch

if TYPE_CHECKING:
    from gaugeblock.reference.engine.engine import Engine
    from gaugeblock.reference.engine.types import TokenEvent

PAGE, LENGTH, NEW, CRASHES = 4, 37, 6, 2
STEPS = 5  # of a batch until it crashes: its prompts are cached, and it is within its answers
SECONDS = 20.0


@check(
    "HYB-071",
    feature="lanes",
    bound=f"exact: {CRASHES} crashes of 3 requests each, one end a request, all pages free, then the tokens of before",
    sources=(
        "https://github.com/sgl-project/sglang/pull/38352",
        "https://github.com/llm-d/llm-d-router/issues/2853",
        "https://github.com/AtomaAI/atoma-infer/issues/177",
    ),
)
def test_hyb_071(record_property: Callable[[str, object], None]) -> None:
    """An engine whose scheduler dies ends all it had once, and when it is restarted it starts from nothing

    The step that fails overwrites every page first: whoever is given one of before answers something else. Look at what
    outlives the scheduler's thread: pages of sequences, the prefix index, the queue.
    """
    with needs_torch():
        from gaugeblock.reference.engine.engine import Engine
    from gaugeblock.fixtures.embedded import tiny_model
    from gaugeblock.reference.engine.types import EngineConfig

    engine = Engine(EngineConfig(str(tiny_model()), page_size=PAGE, max_total_tokens=512, max_running_requests=2))
    engine.start()
    try:
        right = _Answer(engine, "right", LENGTH).wait().tokens
        assert len(right) == NEW, f"the answer has {len(right)} tokens instead of {NEW}"
        for crash in range(CRASHES):
            _crash(engine, crash)
            engine.restart()
            again = _Answer(engine, f"again-{crash}", LENGTH).wait()
            assert again.cached == 0, f"{again.cached} tokens of KV from before a crash were used"
            assert again.tokens == right, f"after a restart {again.tokens}, before the crash {right}"
    finally:
        engine.stop()
    record_property("evidence", f"{CRASHES} crashes, {3 * CRASHES} requests ended, the tokens of before twice")


def _crash(engine: Engine, number: int) -> None:
    """Let the scheduler die with two requests that run and one that waits; count what is left."""
    model, thread = engine.scheduler.model, engine._thread
    forward, left, all_there = model.forward, [STEPS], threading.Event()

    def dies(batch: Any, storage: Any) -> Any:
        assert all_there.wait(SECONDS), "the requests were not submitted"
        left[0] -= 1
        if left[0]:
            return forward(batch, storage)
        for page in range(engine.scheduler.kv.pool.total):
            storage.write_page(page, storage.read_page(page).fill_(7.0))
        raise RuntimeError("a kernel left the matrix")

    model.forward = dies  # type: ignore[method-assign] # until it has failed
    try:
        answers = [_Answer(engine, f"dies-{number}-{n}", LENGTH + n) for n in range(3)]
        all_there.set()
        assert thread is not None
        thread.join(SECONDS)
    finally:
        model.forward = forward  # type: ignore[method-assign] # as it was
    assert engine.crash is not None, f"the scheduler did not die of a failing step within {SECONDS:g} s"
    for answer in answers:
        assert answer.ends == 1, f"{answer.rid} ended {answer.ends} times when the scheduler died"
    pool, stats = engine.scheduler.kv.pool, engine.stats()
    assert pool.held == 0, f"{pool.held} pages are held by requests that have ended"
    assert pool.idle == 0, f"{pool.idle} pages are still cached: nobody knows what a step that failed left in them"
    shown = (stats.running, stats.queued, stats.free_tokens)
    assert shown == (0, 0, stats.total_tokens), f"running, queued and free after the crash are told as {shown}"


class _Answer:
    """One request and what came of it."""

    def __init__(self, engine: Engine, rid: str, length: int) -> None:
        from gaugeblock.reference.engine.types import GenerateRequest, SamplingParams

        self.rid, self.tokens, self.ends, self.cached = rid, list[int](), 0, 0
        self._over = threading.Event()
        sampling = SamplingParams(max_new_tokens=NEW, temperature=0.0, ignore_eos=True)
        prompt = tuple(3 + n % 200 for n in range(length))
        engine.submit(GenerateRequest(rid, prompt, sampling), self._take)

    def _take(self, event: TokenEvent) -> None:
        self.cached = max(self.cached, event.cached_tokens)
        if event.token_id is not None:
            self.tokens.append(event.token_id)
        if event.finish is not None:
            self.ends += 1
            self._over.set()

    def wait(self) -> _Answer:
        """Return it once it has ended."""
        assert self._over.wait(SECONDS), f"{self.rid} had no end within {SECONDS:g} s, after {self.tokens}"
        return self
