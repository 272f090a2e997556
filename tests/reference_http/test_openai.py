"""``/v1/completions`` and ``/v1/chat/completions``: shapes, streams, usage, log probabilities."""

from __future__ import annotations

import json
from typing import Any

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "hé"}]
RENDERED = "[user]hé\n[assistant]"


def ask(client: Any, path: str, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def chunks(client: Any, path: str, **body: Any) -> list[Any]:
    reply = client.post(path, json={**body, "stream": True})
    assert reply.status_code == 200, reply.text
    frames = [frame for frame in reply.text.split("\n\n") if frame]
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


def test_completion(client: Any) -> None:
    answer = ask(client, "/v1/completions", model="echo", prompt="abc", max_tokens=2)
    assert (answer["object"], answer["model"]) == ("text_completion", "echo")
    assert answer["choices"] == [
        {"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length", "matched_stop": None}
    ]
    assert answer["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 2,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 1},
        "reasoning_tokens": 0,
    }


def test_completion_defaults_to_sixteen_tokens(client: Any) -> None:
    assert ask(client, "/v1/completions", prompt="a")["usage"]["completion_tokens"] == 16


def test_prompts_and_samples_are_numbered_through(client: Any) -> None:
    answer = ask(client, "/v1/completions", prompt=["ab", "xy"], max_tokens=2, n=2)
    assert [(c["index"], c["text"]) for c in answer["choices"]] == [(0, "ab"), (1, "ab"), (2, "xy"), (3, "xy")]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (6, 8)


def test_token_id_prompts(client: Any) -> None:
    one = ask(client, "/v1/completions", prompt=[97, 98], max_tokens=2, echo=True)
    two = ask(client, "/v1/completions", prompt=[[97], [98]], max_tokens=1)
    assert one["choices"][0]["text"] == "abab"
    assert [c["text"] for c in two["choices"]] == ["a", "b"]


def test_echo_with_logprobs_covers_the_prompt(client: Any) -> None:
    answer = ask(client, "/v1/completions", prompt="ab", max_tokens=1, echo=True, logprobs=1)
    choice = answer["choices"][0]
    assert choice["text"] == "aba"
    assert choice["logprobs"] == {
        "tokens": ["<bos>", "a", "b", "a"],
        "token_logprobs": [None, -1.0, -1.0, -0.5],
        "top_logprobs": [None, {"a": -1.0}, {"b": -1.0}, {"a": -0.5}],
        "text_offset": [0, 5, 6, 7],
    }


def test_logprobs_zero_gives_the_tokens_own(client: Any) -> None:
    logprobs = ask(client, "/v1/completions", prompt="a", max_tokens=1, logprobs=0)["choices"][0]["logprobs"]
    assert (logprobs["token_logprobs"], logprobs["top_logprobs"]) == ([-0.5], [])


def test_a_probability_of_zero_is_the_floor(client: Any) -> None:
    answer = ask(client, "/v1/completions", prompt="!", max_tokens=1, logprobs=0)
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [-9999.0]


def test_a_completion_streams_what_it_answers_whole(client: Any) -> None:
    body = {"prompt": ["hé→", "ab"], "max_tokens": 7, "echo": True, "logprobs": 1, "n": 2}
    whole = ask(client, "/v1/completions", **body)
    parts = chunks(client, "/v1/completions", **body, stream_options={"include_usage": True})
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        mine = [c for p in parts for c in p["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["length"]
        for key, values in choice["logprobs"].items():
            assert [v for c in mine for v in c["logprobs"][key]] == values


def test_chat(client: Any, fake: Any) -> None:
    answer = ask(client, CHAT, messages=USER, max_tokens=6, stop=["]"])
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "[user]"
    assert (answer["choices"][0]["finish_reason"], answer["choices"][0]["matched_stop"]) == ("stop", "]")
    assert fake.submitted[0].input_ids == tuple(RENDERED.encode())  # no second BOS
    assert answer["usage"]["prompt_tokens"] == len(RENDERED.encode())


def test_chat_reads_text_parts(client: Any, fake: Any) -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "é"}]
    ask(client, CHAT, messages=[{"role": "user", "content": parts}], max_tokens=1)
    assert fake.submitted[0].input_ids == tuple(RENDERED.encode())


def test_chat_without_a_limit_may_fill_the_context(client: Any, fake: Any) -> None:
    ask(client, CHAT, messages=USER)
    assert fake.submitted[0].sampling.max_new_tokens == 64 - len(RENDERED.encode())


def test_chat_zero_tokens(client: Any) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = ask(client, CHAT, messages=USER, **{name: 0})
        assert answer["choices"][0]["message"]["content"] == ""
        assert answer["usage"]["completion_tokens"] == 0


def test_chat_logprobs(client: Any) -> None:
    answer = ask(client, CHAT, messages=USER, max_tokens=1, logprobs=True, top_logprobs=2)
    assert answer["choices"][0]["logprobs"]["content"] == [
        {
            "token": "[",
            "logprob": -0.5,
            "bytes": [91],
            "top_logprobs": [
                {"token": "[", "logprob": -0.5, "bytes": [91]},
                {"token": "\\", "logprob": -1.5, "bytes": [92]},
            ],
        }
    ]


def test_chat_streams_role_content_finish_and_usage(client: Any) -> None:
    body = {"messages": USER, "max_tokens": 9, "n": 2, "logprobs": True}
    whole = ask(client, CHAT, **body)
    parts = chunks(client, CHAT, **body, stream_options={"include_usage": True})
    assert parts[-1]["usage"] == whole["usage"]
    assert {part["object"] for part in parts} == {"chat.completion.chunk"}
    for choice in whole["choices"]:
        mine = [c for p in parts for c in p["choices"] if c["index"] == choice["index"]]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in mine) == choice["message"]["content"]
        assert all("\ufffd" not in c["delta"].get("content", "") for c in mine)
        assert (mine[-1]["delta"], mine[-1]["finish_reason"]) == ({}, "length")
        assert sum(len(c["logprobs"]["content"]) for c in mine if c["logprobs"]) == 9


def test_chat_samples_of_one_seed_differ(client: Any) -> None:
    choices = ask(client, CHAT, messages=USER, max_tokens=9, n=3, seed=0)["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 3
