"""ENG-011: prompt lengths around every page and chunk boundary."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.compare import compare_logprobs, numbers
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.engine.prompts import prose_ids
from gaugeblock.conformance.outcome import inconclusive
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import oracle_for
from gaugeblock.fixtures.targets.answers import Generation
from gaugeblock.fixtures.targets.engine import EngineTarget

BUDGET = 3000
"""Prompt tokens in all: ten seconds of prefill on the slowest engine seen (SmolLM2 on one core)."""
WINDOW = 48  # last positions compared: a boundary's damage is next to it, and it spares the head of the vocabulary


def lengths(page: int, chunk: int | None, context: int) -> list[int]:
    """Lengths to try, those that cross a boundary first, as far as the budget goes."""
    wanted = [1, 2]
    if chunk is not None:
        wanted += [chunk + 1, 2 * chunk + 1, chunk, 2 * chunk, chunk - 1, chunk + page, chunk + page + 1]
    wanted += [page + 1, page, page - 1, 2 * page + 1, 2 * page, 2 * page - 1, 3, 5]
    wanted += [65, 64, 63, 129, 128, 127]  # tiles of the usual attention kernels
    out: list[int] = []
    for length in wanted:
        if 0 < length < context - 4 and length not in out and sum(out) + length <= BUDGET:
            out.append(length)
    return sorted(out)


@check(
    "ENG-011",
    feature="prompt-logprobs",
    bound=WHY,
    sources=(
        "https://github.com/huggingface/transformers/issues/43082",
        "https://github.com/sgl-project/sglang/issues/25091",
        "https://github.com/sgl-project/sglang/issues/36855",
    ),
    timeout=180,
)
def test_eng_011(engine: EngineTarget, bound: Bound, note: Note) -> None:
    """Prompts of every length around page and chunk boundaries have the same logprobs

    All prompts are beginnings of one text, cold, so a token's logprob may not depend on where the prompt ends; with a
    model folder they are also compared with the fp32 oracle. Look first at positions in the second chunk (local instead
    of absolute), at attention to earlier chunks, and at the last, partly filled page.
    """
    require(engine, "token-ids", "prompt-logprobs", "flush")
    sizes = lengths(engine.page_size, engine.chunk_size, engine.probed.context_length or 2048)
    stream = prose_ids(engine, "lengths", max(sizes))
    answers = {size: ask(engine, stream[:size]) for size in sizes}
    truth = oracle_logprobs(engine, stream)
    if truth is None and len(sizes) < 2:
        inconclusive(f"lengths {sizes} leave nothing to compare with")
    worst = 0.0
    for size in sizes:
        start, got = tail(answers[size], size)
        what = f"prompt of {size} tokens (page {engine.page_size}, chunk {engine.chunk_size})"
        want = truth[start - 1 : size - 1] if truth is not None else None
        if want is None:
            other = min((s for s in sizes if s > size), default=size)
            begin, values = tail(answers[other], other)
            cut = max(start, begin)
            got, want, start = got[cut - start :], values[cut - begin : size - begin], cut
        worst = max(worst, compare_logprobs(what, got[: len(want)], want, bound, start=start))
    note(f"lengths {sizes}: largest logprob difference {worst:.1e} nats, oracle {'yes' if truth else 'no'}")


def ask(engine: EngineTarget, prompt: tuple[int, ...]) -> Generation:
    """Prefill a prompt from its start, cold, and return the logprobs of its last tokens."""
    engine.flush()  # what a hit leaves to compute may not cross a chunk
    start = 0 if len(prompt) <= 4 * WINDOW else len(prompt) - WINDOW
    answer = engine.generate(
        input_ids=prompt, sampling={"max_new_tokens": 1}, return_logprob=True, logprob_start_len=start
    )
    hit = answer.cached_tokens or 0
    assert hit == 0, f"prompt of {len(prompt)} tokens: cached_tokens is {hit} right after a flush"
    return answer


def tail(answer: Generation, size: int) -> tuple[int, list[float]]:
    """Return the first compared position and the logprobs from there on."""
    what = f"prompt of {size} tokens"
    listed = answer.input_logprobs or ()
    assert answer.prompt_tokens == size, f"{what}: prompt_tokens is {answer.prompt_tokens}"
    assert answer.completion_tokens == 1, f"{what}: {answer.completion_tokens} tokens came for max_new_tokens 1"
    start = size - len(listed) + 1
    return start, numbers(listed[1:], what) if size > 1 else []


def oracle_logprobs(engine: EngineTarget, stream: tuple[int, ...]) -> list[float] | None:
    """Logprob of every token of ``stream`` but the first, from the folder's model; None without one."""
    if "oracle" not in engine.features or engine.folder is None:
        return None
    return oracle_for(engine.folder).prompt_logprobs(stream)
