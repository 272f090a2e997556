"""ENG-003: the tokenizer is the folder's."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import Oracle
from gaugeblock.fixtures.targets.engine import EngineTarget

TEXTS = (
    "Hello, world!",
    " leading and trailing ",
    "two\nlines\n\n\tand a tab",
    "In 1234567 steps: 3.14159, 2^10",
    "naïve café — “quotes” … œuvre",
    "日本語のテキスト 한국어",
    "🦊👩‍👩‍👧‍👦 é é",
    "def f(x):\n    return x  # ok",
    "ﬁne Ａ \u200b zero width",
    "a" * 60,
)
"""Where tokenizers go wrong: spaces, digits, combining marks, normalisation forms, joined emoji, runs."""


@check(
    "ENG-003",
    feature="model-folder",
    bound="exact: token ids are integers",
    sources=(
        "https://github.com/huggingface/transformers/issues/25069",
        "https://github.com/01-ai/Yi-1.5/issues/37",
    ),
    timeout=60,
)
def test_eng_003(engine: EngineTarget, oracle: Oracle) -> None:
    """The server tokenizes as the folder's tokenizer does

    Everything above is conditioned on other tokens when this fails. Look first at the tokenizer's files (another
    revision, a slow against a fast one), at added prefix spaces, at unicode normalisation, at a BOS added or left out.
    """
    require(engine, "model-folder")
    for text in TEXTS:
        want = oracle.encode(text)
        if "tokenize" in engine.features:
            got = engine.tokenize(text)
            assert got == want, f"tokenizer: {text!r} became {got}, expected {want}: {difference(got, want, oracle)}"
        elif "native-generate" not in engine.features:
            usage = engine.completion(text, max_tokens=1).usage
            assert usage is not None, "tokenizer: an answer without usage"
            assert usage.prompt_tokens == len(want), (
                f"tokenizer: {text!r} was counted as {usage.prompt_tokens} tokens, expected {len(want)}"
            )
    if "native-generate" not in engine.features:
        return
    body = {"text": list(TEXTS), "sampling_params": {"max_new_tokens": 1, "temperature": 0}}
    for text, answer in zip(TEXTS, engine.generate_many(body), strict=True):
        want = oracle.encode(text)
        assert answer.prompt_tokens == len(want), (
            f"tokenizer: a generation counted {answer.prompt_tokens} prompt tokens for {text!r}, expected {len(want)}"
        )


def difference(got: tuple[int, ...], want: tuple[int, ...], oracle: Oracle) -> str:
    """Name the commonest ways in which two token lists differ."""
    tokenizer = oracle.tokenizer
    if tokenizer.bos_token_id is not None and got == (tokenizer.bos_token_id, *want):
        return "a BOS was added"
    if want and want[0] == tokenizer.bos_token_id and got == want[1:]:
        return "the BOS is missing"
    if tokenizer.eos_token_id is not None and got == (*want, tokenizer.eos_token_id):
        return "an EOS was added"
    split = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
    return f"first difference at token {split}, after {oracle.decode(want[:split])!r}"
