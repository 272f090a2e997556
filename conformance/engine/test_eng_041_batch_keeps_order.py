"""ENG-041."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import COUNT, FOX, QUESTION
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-041",
    feature="native-generate",
    bound="exact: prompt counts and first tokens of the single requests",
    sources=("https://platform.openai.com/docs/api-reference/completions/create",),
)
def test_eng_041(engine: EngineTarget) -> None:
    """A batch of texts is answered in its own order.

    The answers of a list came back in another order, or one prompt's answer stands for another's. Look at how the
    results of a batch are gathered: by index, never by who finished first.
    """
    texts = [FOX, QUESTION, COUNT, "x"]
    lengths = [3, 1, 2, 1]
    samplings = [{"temperature": 0, "max_new_tokens": n, "ignore_eos": True} for n in lengths]
    single = [engine.generate(text=t, sampling=s) for t, s in zip(texts, samplings, strict=True)]
    batch = engine.generate_many({"text": texts, "sampling_params": samplings})
    seen = [(answer.prompt_tokens, answer.completion_tokens) for answer in batch]
    expected = [(answer.prompt_tokens, answer.completion_tokens) for answer in single]
    assert seen == expected, f"batch (prompt, completion) tokens {seen}, alone {expected}"
    wrong = [i for i, (a, b) in enumerate(zip(batch, single, strict=True)) if a.text[:1] != b.text[:1]]
    assert not wrong, f"batch answers {[batch[i].text for i in wrong]}, alone {[single[i].text for i in wrong]}"
