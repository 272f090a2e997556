"""Wrong answers are faults of the target that name what is wrong."""

import json

import pytest

from gaugeblock.fixtures.errors import EnvironmentFault, TargetFault
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.workers.hostile import pieces, say

MODELS = say(200, b'{"data": [{"id": "m", "owned_by": "x", "max_model_len": 64}]}')
META = {"finish_reason": {"type": "length"}, "prompt_tokens": 1, "completion_tokens": 1}


def answer(**changes):
    meta = {**META, **changes.pop("meta_info", {})}
    return {"text": "a", "output_ids": [5], "meta_info": meta, **changes}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x00\xff garbage", "not JSON"),
        (b"[]", "field 'meta_info' is missing"),
        (b"NaN", "NaN is not JSON"),
        (answer(text=3), "'text' must be str, got 3"),
        (answer(output_ids=[1, -2]), "'output_ids' must be a list of token ids"),
        (answer(output_ids=["1"]), "'output_ids' must be a list of token ids"),
        (answer(meta_info={"finish_reason": None}), "finish_reason' is missing or null"),
        (
            answer(meta_info={"finish_reason": {"type": "done"}}),
            "one of ['abort', 'length', 'stop'], got 'done'",
        ),
        (answer(meta_info={"prompt_tokens": "1"}), "'prompt_tokens' must be int, got '1'"),
        (answer(meta_info={"completion_tokens": True}), "'completion_tokens' must be int, got True"),
        (answer(meta_info={"cached_tokens": -1}), "cached_tokens is negative"),
        (answer(meta_info={"output_token_logprobs": [[1.0]]}), "'output_token_logprobs.0' must be [logprob, token id"),
        (answer(meta_info={"output_token_logprobs": [["x", 1]]}), "must start with a number or null"),
        (answer(meta_info={"output_top_logprobs": [7]}), "'output_top_logprobs.0' must be a list or null"),
    ],
)
def test_a_wrong_shape_is_named(hostile, body, words):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(TargetFault) as caught:
        EngineTarget(hostile({"/generate": say(200, raw)}).url).generate(text="x")
    assert words in str(caught.value)


def test_a_right_shape_is_read(hostile):
    body = json.dumps(answer(meta_info={"output_token_logprobs": [[-0.5, 5, None]], "cached_tokens": 0})).encode()
    got = EngineTarget(hostile({"/generate": say(200, body)}).url).generate(text="x")
    assert (got.text, got.ids, got.cached_tokens, got.input_logprobs) == ("a", (5,), 0, None)
    assert got.output_logprobs is not None
    assert got.output_logprobs[0].logprob == -0.5


def test_an_error_status_is_shown_with_its_body(hostile):
    target = EngineTarget(hostile({"/generate": say(500, b"it broke")}).url)
    with pytest.raises(TargetFault, match=r"expected status 200, got 500 from http.*/generate: 'it broke'"):
        target.generate(text="x")


def test_a_web_page_is_not_an_engine(hostile):
    url = hostile({"/v1/models": say(200, b"<html>hello</html>", "text/html")}).url
    with pytest.raises(EnvironmentFault, match=r"is not an engine.*<html>hello"):
        assert EngineTarget(url).probed


def test_a_refused_key_names_the_variable_and_not_the_key(hostile):
    url = hostile({"/v1/models": say(401, b'{"error": "bad key s3cret-key"}')}).url
    with pytest.raises(EnvironmentFault, match="GAUGEBLOCK_API_KEY") as caught:
        assert EngineTarget(url, api_key="s3cret-key").probed
    assert "s3cret-key" not in str(caught.value)


def test_an_echoed_key_is_in_no_message(hostile):
    server = hostile(
        {
            "/generate": say(500, b"bearer s3cret-key refused"),
            "/get_model_info": say(200, b"s3cret-key"),
            "/stream": pieces(b"s3cret-key is no field\n\n"),
        }
    )
    target = EngineTarget(server.url, api_key="s3cret-key")

    def stream():
        with target.stream("/stream", {}) as events:
            list(events)

    for call in (lambda: target.generate(text="x"), target.model_info, stream):
        with pytest.raises(TargetFault) as caught:
            call()
        assert "***" in str(caught.value)
        assert "s3cret-key" not in str(caught.value)
    assert "s3cret-key" not in repr(target)
    assert b"authorization: bearer s3cret-key" in server.received[0].lower()


def test_what_offers_no_native_api_is_plain_openai(hostile):
    probed = EngineTarget(hostile({"/v1/models": MODELS, "/v1/chat/completions": say(400, b"{}")}).url).probed
    assert probed.dialect == "openai"
    assert probed.features == {"endpoint", "chat"}
    assert probed.context_length == 64


def test_a_batch_answered_short_is_named(hostile):
    body = json.dumps([answer()]).encode()
    target = EngineTarget(hostile({"/generate": say(200, body)}).url)
    with pytest.raises(TargetFault, match="2 prompts were answered by 1 items"):
        target.generate_batch([[1], [2]])
