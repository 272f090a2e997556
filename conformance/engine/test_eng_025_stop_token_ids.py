"""ENG-025."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-025",
    feature="token-ids",
    bound="exact: output ids are the unstopped greedy ids up to the first stop token",
    sources=("https://docs.sglang.ai/basic_usage/sampling_params.html",),
)
def test_eng_025(engine: EngineTarget) -> None:
    """A stop token id ends the answer at its first occurrence and is named.

    Generation went on past a stop token, stopped elsewhere, or the finish reason names another one. Look at whether
    stop_token_ids reach the scheduler, and whether they replace eos instead of adding to it.
    """
    free = engine.generate(text=FOX, sampling={"max_new_tokens": 10, "ignore_eos": True}, return_logprob=True).ids
    stop = free[4]
    first = free.index(stop)
    sampling = {"max_new_tokens": 10, "stop_token_ids": [stop], "ignore_eos": False}
    stopped = engine.generate(text=FOX, sampling=sampling, return_logprob=True)
    body = stopped.ids[:first]
    assert body == free[:first], f"ids before the stop token differ: {body} against {free[:first]}"
    assert len(stopped.ids) <= first + 1, f"stop token {stop} at {first}, but the answer has ids {stopped.ids}"
    assert stopped.finish is not None
    named = (stopped.finish.type, stopped.finish.matched)
    assert named == ("stop", stop), f"finish reason {named}, expected ('stop', {stop})"
