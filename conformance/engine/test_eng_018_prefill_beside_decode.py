"""ENG-018: a long prompt arrives while another request decodes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_greedy, greedy
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.outcome import inconclusive
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.targets.answers import Generation
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.streams import collect_generate

TOKENS = (16, 64, 256)
"""Of the stream: 16 are two seconds on a slow engine; a fast one gets more, until the two have met."""
LONGEST = 400
"""Tokens of the arriving prompt at most: two chunks and more where chunks are small, two seconds on a slow engine."""
PATIENCE = 20.0  # seconds; an engine that took longer gets no longer stream


@check(
    "ENG-018",
    feature="token-ids",
    bound=WHY,
    sources=(
        "https://github.com/local-inference-lab/vllm/issues/616",
        "https://github.com/vllm-project/vllm/issues/10336",
    ),
    timeout=90,
)
def test_eng_018(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """A prompt that is prefilled beside a decoding request disturbs neither

    A stream is under way when a prompt of several chunks arrives; both must answer as they do alone, the prompt before
    the stream has ended. Look first at steps that mix prefill and decode: which rows get logits, whose positions and
    pages they use.
    """
    require(engine, "token-ids", "flush")
    short = prose_ids(engine, "decoding", 7)
    long = prose_ids(engine, "arriving", min(2 * (engine.chunk_size or LONGEST) + 5, LONGEST))
    engine.flush()
    alone_long = greedy(engine, long, 3)
    start, worst = time.monotonic(), 0.0
    for tokens in TOKENS:
        alone_short = greedy(engine, short, tokens)
        engine.flush()
        beside_short, beside_long, met = _beside(engine, short, tokens, long)
        worst = max(
            worst,
            compare_greedy("the decoding request, a prompt arriving beside it", beside_short, alone_short, bound),
            compare_greedy("the prompt that arrived beside a decoding request", beside_long, alone_long, bound),
        )
        if met:
            note(f"{len(long)} prompt tokens beside a stream of {tokens}: largest logprob difference {worst:.1e} nats")
            return
        if time.monotonic() - start > PATIENCE:
            break
    inconclusive(f"a stream of {tokens} tokens had ended before {len(long)} prompt tokens beside it were answered")


def _beside(
    engine: EngineTarget, short: tuple[int, ...], tokens: int, long: tuple[int, ...]
) -> tuple[Generation, Generation, bool]:
    """Stream ``tokens`` for one prompt and ask the other meanwhile; return both, and whether the stream ended last."""
    body = {
        "input_ids": list(short),
        "sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True},
        "return_logprob": True,
        "top_logprobs_num": 2,
        "stream": True,
    }
    with engine.stream("/generate", body) as events, ThreadPoolExecutor(1) as pool:
        first = next(events)
        arriving = pool.submit(greedy, engine, long, 3)
        decoding = collect_generate([first, *events], f"{engine.url}/generate").final
        met = arriving.done()
        return decoding, arriving.result(), met
