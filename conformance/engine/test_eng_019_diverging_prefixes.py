"""ENG-019: one shared prefix, many continuations at once."""

from __future__ import annotations

from functools import partial

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy, greedy_batch, read_cache
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.parallel import parallel

TOKENS = 4
BRANCHES = 4


@check(
    "ENG-019",
    feature="token-ids",
    bound=f"{WHY}. cached_tokens: at least the whole pages of the shared prefix",
    sources=(
        "https://github.com/vllm-project/vllm/issues/6023",
        "https://github.com/ml-explore/mlx-lm/issues/965",
    ),
    timeout=90,
)
def test_eng_019(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """Requests that share a prefix and part inside a page do not write into each other

    One prefix lies in the cache; four continuations run at the same moment and decode beyond their page. Look first at
    a shared page that is written to (no copy on write), and at pages freed under a request that still reads them.
    """
    require(engine, "token-ids", "flush")
    page = engine.page_size
    prefix = prose_ids(engine, "shared", 2 * page + max(1, page // 2))
    prompts = [prefix + prose_ids(engine, f"branch{i}", 3 + i) for i in range(BRANCHES)]
    engine.flush()
    alone = []
    for prompt in prompts:
        alone.append(greedy(engine, prompt, TOKENS))
        engine.flush()
    greedy(engine, prefix, 1)
    together = parallel([partial(greedy, engine, prompt, TOKENS) for prompt in prompts])
    worst, hits = 0.0, []
    for i, answer in enumerate(together):
        what = f"branch {i} of {BRANCHES} from a shared prefix of {len(prefix)} tokens"
        hits.append(read_cache(engine, answer, len(prefix) - 1, what))
        worst = max(worst, compare_greedy(what, answer, alone[i], bound))
    repeated = greedy_batch(engine, prompts, TOKENS)
    for i, answer in enumerate(repeated):
        worst = max(
            worst,
            compare_greedy(f"branch {i} again, from a shared prefix of {len(prefix)} tokens", answer, alone[i], bound),
        )
    note(f"hits of {hits} tokens: largest logprob difference {worst:.1e} nats")
