"""ENG-040."""

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import COUNT
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.wire import Limits


@check(
    "ENG-040",
    feature="native-generate",
    bound="10 s: ten times the second that SGLang's /health takes for its own generation",
    sources=("https://github.com/vllm-project/production-stack/issues/749",),
)
def test_eng_040(engine: EngineTarget) -> None:
    """Health answers while requests run.

    /health or /v1/models stalled behind a running generation: the router will call this engine dead when it is only
    busy. Look at what blocks the HTTP loop: tokenising, detokenising or a lock that the scheduler holds.
    """
    tokens = min((engine.probed.context_length or 2048) - 200, 1800)
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    limits = Limits(idle=10.0, total=10.0)
    with engine.stream("/generate", {"text": COUNT, "stream": True, "sampling_params": sampling}) as events:
        next(events)
        for path in ("/health", "/v1/models"):
            engine.get(path, limits=limits).expect(200)
            assert engine.running() >= 1, f"{path} answered only after the request of {tokens} tokens had ended"
    engine.idle(10)
