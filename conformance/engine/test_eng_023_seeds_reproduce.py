"""ENG-023."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import QUESTION
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-023",
    feature="seed",
    bound="exact: equal seeds give equal text; 4 seeds at temperature 1.5 over 10 tokens give at least 2 texts",
    sources=(
        "https://github.com/sgl-project/sglang/issues/5377",
        "https://github.com/sgl-project/sglang/issues/15746",
    ),
    level="extended",
)
def test_eng_023(engine: EngineTarget) -> None:
    """A seed reproduces a sampled answer, and another seed gives another.

    The same seeded request answered differently, or every seed answered the same. Look at whether the seed reaches the
    sampler (SGLang needs --enable-deterministic-inference for it), and whether it is shared with batch-mates.
    """
    fields = {"temperature": 1.5, "max_tokens": 10}
    first = [engine.completion(QUESTION, seed=seed, **fields).text for seed in (1, 2, 3, 4)]
    again = engine.completion(QUESTION, seed=1, **fields).text
    assert again == first[0], f"seed 1 gave {first[0]!r} and then {again!r}"
    assert len(set(first)) > 1, f"four seeds gave one text: {first[0]!r}"
