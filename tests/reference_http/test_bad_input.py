"""Every bad request gets a 4xx that says what is wrong and what is legal, and the next one works."""

from __future__ import annotations

import json
from typing import Any

import pytest

HUGE = "9" * 5000
CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]

RAW = [
    b"",
    b"{bad",
    b"[1]",
    b'"text"',
    b"null",
    b"\xff\xfe",
    b'{"text": NaN}',
    b'{"text": "a", "sampling_params": {"temperature": Infinity}}',
    b'{"text": "a", "sampling_params": {"temperature": 1e999}}',
    b'{"text": "a", "sampling_params": {"max_new_tokens": ' + HUGE.encode() + b"}}",
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"text": "\\ud800"}',
    b'{"\\ud800": 1}',
]

SAMPLING = [
    ({"max_new_tokens": -1}, ">= 0"),
    ({"max_new_tokens": "5"}, ">= 0"),
    ({"max_new_tokens": 1.5}, ">= 0"),
    ({"max_new_tokens": True}, ">= 0"),
    ({"max_new_tokens": 10**30}, "at most"),
    ({"min_new_tokens": -1}, ">= 0"),
    ({"min_new_tokens": 9, "max_new_tokens": 3}, "in [0, max]"),
    ({"temperature": -0.1}, "[0, 10000]"),
    ({"temperature": "hot"}, "a number"),
    ({"temperature": 10**400}, "a number"),
    ({"top_p": 0}, "(0, 1]"),
    ({"top_p": 1.1}, "(0, 1]"),
    ({"top_k": 0}, "-1 (all)"),
    ({"top_k": -2}, ">= -1"),
    ({"min_p": 2}, "[0, 1]"),
    ({"frequency_penalty": 3}, "[-2, 2]"),
    ({"presence_penalty": []}, "[-2, 2]"),
    ({"repetition_penalty": 0}, "(0, 2]"),
    ({"n": 0}, "[1, 128]"),
    ({"n": 129}, "[1, 128]"),
    ({"n": "two"}, "[1, 128]"),
    ({"stop": 5}, "a non-empty string"),
    ({"stop": [""]}, "a non-empty string"),
    ({"stop": ["a"] * 65}, "at most 64"),
    ({"stop_token_ids": 3}, "a list of token ids"),
    ({"stop_token_ids": [260]}, "[0, 259]"),
    ({"stop_token_ids": [True]}, "[0, 259]"),
    ({"logit_bias": {"260": 1}}, "[0, 259]"),
    ({"logit_bias": {"x": 1}}, "token ids"),
    ({"logit_bias": {"1": 101}}, "[-100, 100]"),
    ({"logit_bias": [1]}, "an object"),
    ({"ignore_eos": "yes"}, "true or false"),
    ({"sampling_seed": "lucky"}, "an integer"),
    ({"sampling_seed": 2**63}, "an integer in"),
    ({"temprature": 1}, "Did you mean temperature"),
    ({"regex": "a*"}, "not supported"),
]

GENERATE = [
    ({}, "text or input_ids"),
    ({"text": "a", "input_ids": [1]}, "not both"),
    ({"text": ""}, "non-empty string"),
    ({"text": []}, "non-empty string"),
    ({"text": ["a", ""]}, "text[1]"),
    ({"text": ["a", 1]}, "text[1]"),
    ({"text": 5}, "non-empty string"),
    ({"input_ids": []}, "non-empty list"),
    ({"input_ids": [[1], []]}, "input_ids[1]"),
    ({"input_ids": [1, "a"]}, "input_ids[1]"),
    ({"input_ids": [1.0]}, "input_ids[0]"),
    ({"input_ids": [260]}, "[0, 259]"),
    ({"input_ids": [-1]}, "[0, 259]"),
    ({"input_ids": [10**30]}, "[0, 259]"),
    ({"input_ids": "ab"}, "list of token ids"),
    ({"text": "a" * 63}, "64 tokens"),
    ({"text": "a" * 100_000}, "100001 tokens"),
    ({"text": "a", "sampling_params": 5}, "an object"),
    ({"text": ["a", "b"], "sampling_params": [{}]}, "a list of 2"),
    ({"text": "a", "stream": "yes"}, "true or false"),
    ({"text": "a", "return_logprob": 1}, "true or false"),
    ({"text": "a", "return_logprob": True, "logprob_start_len": -2}, ">= -1"),
    ({"text": "a", "return_logprob": True, "logprob_start_len": 3}, "behind the prompt"),
    ({"text": "a", "return_logprob": True, "top_logprobs_num": 8193}, "[0, 8192]"),
    ({"text": ["a", "b"], "return_logprob": [True]}, "one a prompt"),
    ({"text": "a", "rid": 5}, "a non-empty string"),
    ({"text": ["a", "b"], "rid": ["x", "x"]}, "twice"),
    ({"text": ["a", "b"], "rid": ["x"]}, "a list of 2"),
    ({"text": "a", "input_embeds": [[0.1]]}, "not supported"),
    ({"text": ["a"] * 289}, "at most 288"),
]

OPENAI = [
    ("/v1/completions", {}, "prompt is needed"),
    ("/v1/completions", {"prompt": ""}, "non-empty string"),
    ("/v1/completions", {"prompt": [[]]}, "prompt[0]"),
    ("/v1/completions", {"prompt": {"a": 1}}, "a non-empty string or a non-empty list"),
    ("/v1/completions", {"prompt": "a", "max_tokens": 0}, ">= 1"),
    ("/v1/completions", {"prompt": "a", "max_tokens": -1}, ">= 1"),
    ("/v1/completions", {"prompt": "a", "max_tokens": 64}, "at most 62"),
    ("/v1/completions", {"prompt": "a", "logprobs": 21}, "[0, 20]"),
    ("/v1/completions", {"prompt": "a", "best_of": 2}, "equal to n"),
    ("/v1/completions", {"prompt": "a", "suffix": "b"}, "not supported"),
    ("/v1/completions", {"prompt": "a", "stream_options": 1}, "an object"),
    ("/v1/completions", {"prompt": "a", "model": 5}, "a string"),
    (CHAT, {}, "non-empty list"),
    (CHAT, {"messages": []}, "non-empty list"),
    (CHAT, {"messages": "hi"}, "non-empty list"),
    (CHAT, {"messages": [5]}, "messages[0]"),
    (CHAT, {"messages": [{"role": "zz", "content": "a"}]}, "one of system"),
    (CHAT, {"messages": [{"content": "a"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (CHAT, {"messages": [{"role": "tool", "content": "a"}]}, "cannot start with a tool"),
    (CHAT, {"messages": USER, "max_tokens": -1}, ">= 0"),
    (CHAT, {"messages": USER, "max_tokens": -1, "max_completion_tokens": 5}, ">= 0"),
    (CHAT, {"messages": USER, "max_completion_tokens": 10**9}, "at most"),
    (CHAT, {"messages": USER, "top_logprobs": 2}, "needs logprobs"),
    (CHAT, {"messages": USER, "logprobs": True, "top_logprobs": 21}, "[0, 20]"),
    (CHAT, {"messages": USER, "tools": [{}]}, "not supported"),
    (CHAT, {"messages": USER, "response_format": {"type": "json_object"}}, "'text'"),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 100}]}, "tokens"),
    ("/v1/responses", {}, "non-empty string"),
    ("/v1/responses", {"input": ""}, "non-empty string"),
    ("/v1/responses", {"input": "a", "max_output_tokens": 0}, ">= 1"),
    ("/v1/responses", {"input": "a", "stream": True, "background": True}, "cannot be combined"),
    ("/v1/responses", {"input": "a", "store": False, "background": True}, "must be stored"),
    ("/v1/responses", {"input": "a", "metadata": 5}, "an object"),
    ("/tokenize", {}, "a string"),
    ("/tokenize", {"prompt": 5}, "a string"),
    ("/detokenize", {}, "a list"),
    ("/detokenize", {"tokens": [260]}, "[0, 259]"),
    ("/abort_request", {}, "rid must be"),
    ("/abort_request", {"rid": 5}, "rid must be"),
]


def refused(client: Any, reply: Any, legal: str, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error = reply.json()
    assert set(error) == {"object", "message", "type", "param", "code"}
    assert (error["object"], error["code"]) == ("error", status)
    assert legal in error["message"]
    ok = client.post("/generate", json={"text": "a", "sampling_params": {"max_new_tokens": 1}})
    assert ok.json()["text"] == "a"
    return error


@pytest.mark.parametrize("path", ["/generate", "/v1/completions", CHAT, "/v1/responses", "/tokenize", "/abort_request"])
def test_what_is_no_json_object(client: Any, path: str) -> None:
    for raw in RAW[:12]:
        refused(client, client.post(path, content=raw), "")


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: str(raw[:20]))
def test_raw_bodies(client: Any, raw: bytes) -> None:
    refused(client, client.post("/generate", content=raw), "")


@pytest.mark.parametrize(("sampling", "legal"), SAMPLING, ids=lambda v: str(v)[:40])
def test_sampling_parameters(client: Any, sampling: dict[str, Any], legal: str) -> None:
    raw = json.dumps({"text": "a", "sampling_params": sampling})
    refused(client, client.post("/generate", content=raw), legal)


@pytest.mark.parametrize(("body", "legal"), GENERATE, ids=lambda v: str(v)[:40])
def test_generate(client: Any, body: dict[str, Any], legal: str) -> None:
    refused(client, client.post("/generate", json=body), legal)


@pytest.mark.parametrize(("path", "body", "legal"), OPENAI, ids=lambda v: str(v)[:40])
def test_openai_and_the_rest(client: Any, path: str, body: dict[str, Any], legal: str) -> None:
    refused(client, client.post(path, json=body), legal)


@pytest.mark.parametrize("path", ["/v1/completions", CHAT, "/v1/responses", "/tokenize"])
def test_an_unknown_model_is_404(client: Any, path: str) -> None:
    body = {"model": "nope", "prompt": "a", "messages": USER, "input": "a"}
    assert refused(client, client.post(path, json=body), "echo", 404)["param"] == "model"


def test_unknown_paths_methods_and_ids(client: Any) -> None:
    refused(client, client.post("/nope", json={}), "POST /nope", 404)
    refused(client, client.get("/generate"), "allowed: POST", 405)
    refused(client, client.get("/v1/models/nope"), "echo", 404)
    refused(client, client.get("/v1/responses/nope"), "nope", 404)
    refused(client, client.post("/v1/responses/nope/cancel"), "nope", 404)
    refused(client, client.post("/v1/responses", json={"input": "a", "previous_response_id": "x"}), "'x'", 404)


def test_nothing_runs_on_when_one_of_a_batch_is_refused(client: Any, fake: Any) -> None:
    fake.gate.clear()
    body = {"text": ["a", "b"], "sampling_params": [{"max_new_tokens": 5}, {"min_new_tokens": 9, "max_new_tokens": 1}]}
    reply = client.post("/generate", json=body)
    assert reply.status_code == 400
    assert fake.aborted == [fake.submitted[0].rid]
    fake.gate.set()
    assert client.get("/get_load").json()[0]["num_reqs"] in (0, 1)
    assert client.app.state.front._live == {}


def test_a_body_over_the_limit_is_413(make_client: Any) -> None:
    client = make_client(app={"max_body_bytes": 1000})
    refused(client, client.post("/generate", json={"text": "a" * 2000}), "1000 bytes", 413)
    refused(client, client.post("/generate", content=iter([b"a" * 600] * 3)), "1000 bytes", 413)
    refused(client, client.post("/generate", content=b"a" * 20_000), "1000 bytes", 413)


def test_a_key_is_asked_for(make_client: Any) -> None:
    client = make_client(app={"api_key": "s3cret"})
    body = {"text": "a", "sampling_params": {"max_new_tokens": 1}}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
        reply = client.post("/generate", json=body, headers=headers)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert "API key" in reply.json()["message"]
        assert "s3cret" not in reply.text
    assert client.get("/v1/models").status_code == 401
    assert client.get("/health").status_code == 200
    assert client.post("/generate", json=body, headers={"Authorization": "Bearer s3cret"}).status_code == 200
