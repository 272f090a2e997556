"""ENG-033."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.refusal import must_refuse, must_still_answer
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-033",
    feature="native-generate",
    bound="status 4xx, never 5xx and never 200; a message in the body",
    sources=("https://github.com/sgl-project/sglang/issues/3805",),
)
def test_eng_033(engine: EngineTarget) -> None:
    """A body that is not a JSON object is refused with a message.

    The parser's error became a 500, or a closed connection, or took the worker with it. Look at where the body is
    parsed: before or inside the handler that turns errors into answers.
    """
    for path in ("/generate", "/v1/chat/completions", "/v1/completions"):
        for body in (b"{", b"", b"[1]", b"\xff\xfe"):
            must_refuse(engine, f"{path} with body {body!r}", path, body)
    must_still_answer(engine)
