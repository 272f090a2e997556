"""ENG-037."""

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.refusal import must_refuse, must_still_answer
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-037",
    feature="native-generate",
    bound="status 4xx, never 5xx and never 200; a message in the body",
    sources=(
        "https://github.com/sgl-project/sglang/issues/3910",
        "https://github.com/mmcdermott/MEDS_EIC_AR/pull/172",
    ),
)
def test_eng_037(engine: EngineTarget) -> None:
    """A prompt longer than the context is refused with a message.

    The prompt was cut in silence, or hung in the queue for pages that will never be free, or crashed the engine.
    Look at the admission test: prompt against context length and against the whole KV pool.
    """
    length = engine.probed.context_length or 131072
    body = {"input_ids": [5] * (length + 8), "sampling_params": {"max_new_tokens": 2, "temperature": 0}}
    must_refuse(engine, f"{length + 8} tokens for a context of {length}", "/generate", body)
    must_still_answer(engine)
