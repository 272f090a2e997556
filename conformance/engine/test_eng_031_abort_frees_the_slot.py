"""ENG-031."""

import threading

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.prompts import COUNT
from gaugeblock.fixtures.targets.engine import EngineTarget


@check(
    "ENG-031",
    feature="abort",
    bound="the aborted request ends and nothing runs within 10 s of the abort, a hundred decode steps of a slow engine",
    sources=(
        "https://github.com/sgl-project/sglang/issues/38319",
        "https://github.com/sgl-project/sglang/issues/8177",
    ),
)
def test_eng_031(engine: EngineTarget) -> None:
    """An aborted request ends as aborted and gives its slot back.

    /abort_request left the request running, or its client hanging, or answered it as a normal end. Look at whether the
    rid of the abort is the one that the scheduler knows, and whether every state (queued, prefill, decode) can abort.
    """
    rid = "gaugeblock-abort"
    body = {
        "text": COUNT,
        "rid": rid,
        "stream": True,
        "sampling_params": {"temperature": 0, "max_new_tokens": 1200, "ignore_eos": True},
    }
    reply: list[int] = []
    with engine.stream("/generate", body) as events:
        next(events)
        aborter = threading.Thread(target=lambda: reply.append(engine.abort(rid).status))
        aborter.start()
        finishes = [event.json()["meta_info"]["finish_reason"] for event in events if not event.done]
        aborter.join(10)
    assert reply == [200], f"/abort_request answered {reply or 'nothing'}"
    kind = (finishes[-1] or {}).get("type") if finishes else None
    assert kind == "abort", f"the aborted request ended with finish_reason {finishes[-1] if finishes else None}"
    engine.idle(10)
