"""Compare answers token by token; the first difference is named with its position and values."""

from __future__ import annotations

from collections.abc import Sequence

from gaugeblock.conformance.engine.bounds import Bound
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.answers import Generation, TokenLogprob
from gaugeblock.fixtures.targets.engine import EngineTarget

ENOUGH = 16  # values from which a mean says more than its largest one


def greedy(engine: EngineTarget, prompt: str | Sequence[int], tokens: int) -> Generation:
    """Answer ``prompt`` (text or token ids) greedily with exactly ``tokens`` tokens, as ``compare_greedy`` needs it."""
    return engine.generate(
        text=prompt if isinstance(prompt, str) else None,
        input_ids=None if isinstance(prompt, str) else prompt,
        sampling={"max_new_tokens": tokens, "ignore_eos": True},
        return_logprob=True,
        top_logprobs_num=2,  # the runner-up tells a tie
    )


def greedy_batch(engine: EngineTarget, prompts: Sequence[Sequence[int]], tokens: int) -> list[Generation]:
    """The same for several prompts in one request."""
    sampling = {"max_new_tokens": tokens, "ignore_eos": True}
    return engine.generate_batch(prompts, sampling=sampling, return_logprob=True, top_logprobs_num=2)


def read_cache(engine: EngineTarget, answer: Generation, at_least: int, what: str) -> int:
    """Assert that an answer read at least ``at_least`` prompt tokens from the cache, in whole pages; return how many.

    A target that does not report ``cached_tokens`` passes with 0.
    """
    if "cached-tokens" not in engine.features:
        return 0
    assert answer.cached_tokens is not None, f"{what}: the answer reports no cached_tokens"
    floor = at_least // engine.page_size * engine.page_size
    assert answer.cached_tokens >= floor, (
        f"{what}: cached_tokens is {answer.cached_tokens}, at least {floor} were computed before and not flushed"
    )
    return answer.cached_tokens


def numbers(values: Sequence[TokenLogprob] | None, what: str) -> list[float]:
    """Return the logprobs of ``values`` as floats.

    Raises:
        TargetFault: there are none, or one is null.
    """
    if not values:
        raise TargetFault(f"{what}: the answer carries no logprobs although they were asked for")
    out = []
    for position, value in enumerate(values):
        if value.logprob is None:
            raise TargetFault(f"{what}: logprob {position} (token {value.token_id}) is null")
        out.append(value.logprob)
    return out


def compare_logprobs(what: str, got: Sequence[float], want: Sequence[float], bound: Bound, start: int = 0) -> float:
    """Assert that two series agree within ``bound``; return the largest difference in nats.

    ``start`` is the position of the first value, for the message.
    """
    assert len(got) == len(want), f"{what}: {len(got)} logprobs, expected {len(want)}"
    gaps = [abs(a - b) for a, b in zip(got, want, strict=True)]
    if not gaps:
        return 0.0
    worst = max(range(len(gaps)), key=gaps.__getitem__)
    first = next((i for i, gap in enumerate(gaps) if not gap <= bound.each), None)
    assert first is None, (
        f"{what}: logprob at position {start + first} is {got[first]:.6f}, expected {want[first]:.6f} "
        f"({gaps[first]:.2e} nats apart, bound {bound.each:g} in {bound.dtype}); {_wrong(gaps, bound)} of {len(gaps)} "
        f"positions differ, worst {gaps[worst]:.2e} at {start + worst}"
    )
    mean = sum(gaps) / len(gaps)
    assert len(gaps) < ENOUGH or mean <= bound.mean, (
        f"{what}: logprobs differ by {mean:.2e} nats on average over {len(gaps)} positions (bound {bound.mean:g} in "
        f"{bound.dtype}), worst {gaps[worst]:.2e} at position {start + worst}"
    )
    return gaps[worst]


def _wrong(gaps: Sequence[float], bound: Bound) -> int:
    return sum(not gap <= bound.each for gap in gaps)  # NaN counts as wrong


def compare_greedy(what: str, got: Generation, want: Generation, bound: Bound) -> float:
    """Assert that two greedy answers (of :func:`greedy`) agree; return the largest logprob difference.

    Tokens must be equal up to the first tie, where the two best of ``want`` lie within the bound's ``tie``.
    """
    steps = min(len(got.ids), len(want.ids))
    split = next((i for i in range(steps) if got.ids[i] != want.ids[i]), None)
    if split is not None:
        margin = _margin(want, split, what)
        assert margin <= bound.tie, (
            f"{what}: output token {split} is {got.ids[split]}, expected {want.ids[split]}, ahead by {margin:.3g} nats;"
            f" got {got.ids} {got.text!r}, expected {want.ids} {want.text!r}"
        )
        steps = split
    else:
        assert len(got.ids) == len(want.ids), (
            f"{what}: {len(got.ids)} output tokens {got.ids}, expected {len(want.ids)} {want.ids}"
        )
    return compare_logprobs(
        what, numbers(got.output_logprobs, what)[:steps], numbers(want.output_logprobs, what)[:steps], bound
    )


def _margin(answer: Generation, step: int, what: str) -> float:
    tops = answer.output_tops
    row = tops[step] if tops is not None and step < len(tops) else None
    if row is None or len(row) < 2 or row[0].logprob is None or row[1].logprob is None:
        raise TargetFault(f"{what}: output_top_logprobs has no two candidates at token {step}")
    return row[0].logprob - row[1].logprob


def first_line(error: AssertionError) -> str:
    """Return what an assertion says, without the values that pytest appends."""
    return str(error).partition("\n")[0]
