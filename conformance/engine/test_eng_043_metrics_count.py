"""ENG-043."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-043",
    feature="metrics",
    level="extended",
    bound="exact: the counter of generated tokens rises by what the request generated",
    sources=("https://github.com/vllm-project/vllm/pull/2802",),
)
def test_eng_043(engine: EngineTarget) -> None:
    """The metrics are in Prometheus' format and count the tokens that were generated.

    A counter that stands still, or counts each token twice, makes every dashboard and autoscaler wrong. Look for the
    metric named generation_tokens(_total).
    """

    def generated() -> float:
        found = [v for (name, _), v in engine.metrics().items() if name.endswith("generation_tokens_total")]
        assert found, f"no metric ends with generation_tokens_total at {engine.url}/metrics"
        return sum(found)

    engine.generate(text=FOX, sampling={"max_new_tokens": 1})  # the metric may only appear with the first request
    before = generated()
    answer = engine.generate(text=FOX, sampling={"max_new_tokens": 5, "ignore_eos": True})
    risen = generated() - before
    assert risen == answer.completion_tokens, f"{answer.completion_tokens} tokens generated, counted {risen}"
