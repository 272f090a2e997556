"""ENG-001: the smoke gate."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.fixtures.targets.engine import EngineTarget

PROMPT = "The capital of France is"


@check(
    "ENG-001",
    feature="endpoint",
    bound="exact: four tokens asked for, at most four given, at least one, and the count agrees",
    gate=True,
    timeout=90,
)
def test_eng_001(engine: EngineTarget, note: Note) -> None:
    """The engine is alive and generates

    Nothing else is worth looking at while this fails. Look first at the server's log, then at the served model's name.
    """
    engine.get("/health").expect(200)
    if "native-generate" in engine.features:
        answer = engine.generate(text=PROMPT, sampling={"max_new_tokens": 4})
        text, tokens, finish = answer.text, answer.completion_tokens, answer.finish and answer.finish.type
    else:
        reply = engine.completion(PROMPT, max_tokens=4)
        assert reply.usage is not None, f"an answer without usage: {reply.raw}"
        text, tokens, finish = reply.text, reply.usage.completion_tokens, reply.choices[0].finish
    assert 1 <= tokens <= 4, f"{tokens} tokens came for max 4: {text!r}"
    assert finish in ("length", "stop"), f"a plain generation ended with {finish!r}"
    assert finish == "stop" or tokens == 4, f"ended for length after {tokens} of 4 tokens: {text!r}"
    assert text or finish == "stop", f"{tokens} tokens came without any text"
    note(f"{engine.probed.dialect} {engine.probed.version or ''}: {PROMPT!r} → {text!r}")
