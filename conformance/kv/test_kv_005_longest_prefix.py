"""KV-005."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench

EXAMPLES = 25
STEPS = 10


@check(
    "KV-005",
    feature="prefix-cache",
    bound="exact: the hit is that of a dictionary of all prefixes computed so far; nothing is evicted",
    sources=(
        "https://github.com/sgl-project/sglang/issues/26886",
        "https://github.com/LMCache/LMCache/issues/3301",
        "https://github.com/vllm-project/vllm/issues/12621",
    ),
)
def test_kv_005(kv_bench: type[KVBench], record_property: Callable[[str, object], None]) -> None:
    """A hit is the longest contiguous run of computed pages, and its bytes belong to its tokens

    Random requests over two tokens share prefixes, middles and ends; Hypothesis shrinks a counterexample to a few
    steps. Look at what a page's key covers: all tokens before it, not its own alone.
    """
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

    from gaugeblock.fixtures.targets.inprocess_kv import PAGE

    longest = [0]
    # Pages of two kinds only, so that equal pages after different prefixes are common.
    requests = st.lists(st.sampled_from([(0,) * PAGE, (1,) * PAGE]), min_size=1, max_size=5)

    class Requests(RuleBasedStateMachine):
        """Requests come one after another."""

        def __init__(self) -> None:
            super().__init__()
            self.bench = kv_bench(STEPS * 6)
            self.known: set[tuple[int, ...]] = set()

        @rule(pages=requests, computes=st.booleans())
        def request(self, pages: list[tuple[int, ...]], computes: bool) -> None:
            """Look up, compare with the model, compute the rest or leave."""
            tokens = [token for page in pages for token in page]
            prefixes = [tuple(tokens[: (n + 1) * PAGE]) for n in range(len(pages))]
            wanted = 0
            while wanted < len(pages) and prefixes[wanted] in self.known:
                wanted += 1
            allocation = self.bench.begin(tokens)
            assert allocation is not None, "no room in a pool that holds all requests at once"
            hit = allocation.hit_tokens // PAGE
            assert allocation.hit_tokens == wanted * PAGE, f"hit of {hit} pages, {wanted} of this prefix were computed"
            wrong = self.bench.wrong_page(allocation, tokens, hit)
            assert wrong is None, f"hit of {hit} pages: {wrong}"
            longest[0] = max(longest[0], hit)
            if computes:
                self.bench.compute(allocation, tokens)
                self.known.update(prefixes)
            self.bench.release(allocation)

    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert longest[0] >= 3, f"the longest hit had {longest[0]} pages: nothing was checked"
    record_property("evidence", f"{EXAMPLES} runs of {STEPS} requests, hits of up to {longest[0]} pages")
