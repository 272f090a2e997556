"""The scheduler under any order of arrivals, steps and aborts, in a pool that is always too small."""

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

LENGTHS = (1, 3, 4, 5, 11, 17, 24)
NEW = 7
WINDOWS = (None, 5, 20)  # under 20 the short ones fit and are cached, the long ones slide


def test_every_request_ends_once_with_the_answer_it_gets_alone(lab):
    generator = torch.Generator().manual_seed(5)
    stem = torch.randint(0, 256, (24,), generator=generator).tolist()
    prompts = {n: stem[: n // 2] + torch.randint(0, 256, (n - n // 2,), generator=generator).tolist() for n in LENGTHS}
    alone = {
        (window, n): lab(window=window).ask("a", p, max_new_tokens=NEW).ids
        for window in WINDOWS
        for n, p in prompts.items()
    }

    class Machine(RuleBasedStateMachine):
        """Prompts share beginnings, so that pages are shared, retracted, evicted and promoted."""

        @initialize(
            pages=st.integers(8, 14),
            host=st.sampled_from([0, 20]),
            chunk=st.integers(1, 12),
            window=st.sampled_from(WINDOWS),
        )
        def build(self, pages, host, chunk, window):
            sizes = {"page_size": 4, "max_total_tokens": 4 * pages, "host_kv_tokens": host}
            self.lab = lab(window=window, chunked_prefill_size=chunk, **sizes)
            self.window = window
            self.lengths = {}

        @rule(length=st.sampled_from(LENGTHS))
        def add(self, length):
            rid = str(len(self.lengths))
            self.lengths[rid] = length
            self.lab.add(rid, prompts[length], max_new_tokens=NEW)

        @precondition(lambda self: self.lengths)
        @rule(data=st.data())
        def abort(self, data):
            rid = data.draw(st.sampled_from(sorted(self.lengths)))
            self.lab.take(self.lab.scheduler.abort(rid, "enough"))

        @rule(count=st.integers(1, 6))
        def step(self, count):
            for _ in range(count):
                self.lab.step()

        def teardown(self):
            if not hasattr(self, "lab"):
                return
            for rid, answer in self.lab.run().items():
                assert [e.finish is not None for e in answer.events].count(True) == 1
                assert answer.finish is not None, "nothing comes after the end"
                want = alone[self.window, self.lengths[rid]]
                assert answer.ids == (want if answer.finish.type == "length" else want[: len(answer.ids)])
            self.lab.at_rest()
            assert all(sum(n for _, n in plan) <= self.lab.config.chunked_prefill_size for plan in self.lab.plans)

    Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
    Machine.TestCase().runTest()
