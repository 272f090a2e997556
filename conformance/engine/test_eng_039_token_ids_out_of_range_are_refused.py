"""ENG-039."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.refusal import must_refuse, must_still_answer
from gaugeblock.fixtures.targets.engine import EngineTarget

HUGE = 2**30  # beyond any vocabulary


@check(
    "ENG-039",
    feature="token-ids",
    destructive=True,
    bound="status 4xx, never 5xx and never 200; a message in the body",
    sources=("https://github.com/sgl-project/sglang/issues/27482",),
)
def test_eng_039(engine: EngineTarget) -> None:
    """A token id outside the vocabulary is refused with a message.

    An index beyond the embedding table reads foreign memory, kills the scheduler or the GPU context, or is clamped to
    another token. Look at the validation of input_ids against the vocabulary, negative ids too.
    """
    for bad in (HUGE, -1):
        body = {"input_ids": [5, bad, 7], "sampling_params": {"max_new_tokens": 2, "temperature": 0}}
        must_refuse(engine, f"token id {bad}", "/generate", body)
    must_still_answer(engine)
