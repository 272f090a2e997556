"""ENG-026."""

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-026",
    feature="native-generate",
    bound="exact counts",
    sources=("https://github.com/vllm-project/vllm/issues/28172",),
)
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_eng_026(engine: EngineTarget, limit: int) -> None:
    """max_new_tokens is met exactly and called `length`.

    One token too many or too few, or a wrong finish reason. Look at the first token, which prefill samples: it counts.
    """
    answer = engine.generate(text=FOX, sampling={"max_new_tokens": limit, "ignore_eos": True}, return_logprob=True)
    counts = (answer.completion_tokens, len(answer.ids))
    assert counts == (limit, limit), f"asked for {limit} tokens, counted {counts[0]}, sent {counts[1]}"
    assert answer.finish is not None
    assert answer.finish.type == "length", f"finish reason {answer.finish}, expected length"
