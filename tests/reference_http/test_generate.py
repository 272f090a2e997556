"""``/generate``: shapes, batches, streams, log probabilities."""

from __future__ import annotations

import json
from typing import Any

import pytest


def ask(client: Any, **body: Any) -> Any:
    reply = client.post("/generate", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def events(reply: Any) -> list[Any]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    frames = [frame for frame in reply.text.split("\n\n") if frame]
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


def test_one_prompt_gives_one_object(client: Any) -> None:
    answer = ask(client, text="abc", rid="mine", sampling_params={"max_new_tokens": 5})
    assert answer["text"] == "abcab"
    assert answer["output_ids"] == list(b"abcab")
    meta = answer["meta_info"]
    assert meta.pop("e2e_latency") > 0
    assert meta == {
        "id": "mine",
        "finish_reason": {"type": "length", "length": 5},
        "prompt_tokens": 4,  # with BOS
        "weight_version": "default",
        "completion_tokens": 5,
        "cached_tokens": 1,
    }


def test_token_ids_are_taken_as_they_are(client: Any, fake: Any) -> None:
    ask(client, input_ids=[104, 105], sampling_params={"max_new_tokens": 1})
    assert fake.submitted[0].input_ids == (104, 105)


def test_stop_names_what_matched(client: Any) -> None:
    by_text = ask(client, text="abc", sampling_params={"stop": ["c"]})
    by_id = ask(client, text="abc", sampling_params={"stop_token_ids": [98]})
    assert by_text["meta_info"]["finish_reason"] == {"type": "stop", "matched": "c"}
    assert by_id["meta_info"]["finish_reason"] == {"type": "stop", "matched": 98}


@pytest.mark.parametrize("name", ["text", "input_ids"])
def test_a_batch_keeps_its_order(client: Any, name: str) -> None:
    prompts: list[Any] = ["ab", "xyz", "q"]
    given = prompts if name == "text" else [list(p.encode()) for p in prompts]
    answers = ask(client, **{name: given}, rid="b", sampling_params={"max_new_tokens": 3})
    assert [a["text"] for a in answers] == ["aba", "xyz", "qqq"]
    assert [a["meta_info"]["id"] for a in answers] == ["b_0", "b_1", "b_2"]


def test_a_batch_of_one_is_a_list(client: Any) -> None:
    assert isinstance(ask(client, text=["a"], sampling_params={"max_new_tokens": 1}), list)


def test_each_prompt_may_have_its_own_parameters(client: Any) -> None:
    answers = ask(client, text=["a", "b"], sampling_params=[{"max_new_tokens": 1}, {"max_new_tokens": 2}])
    assert [a["text"] for a in answers] == ["a", "bb"]


def test_seeded_samples_differ_and_the_first_is_that_of_n_1(client: Any) -> None:
    sampling = {"max_new_tokens": 12, "sampling_seed": 7}
    several = [a["text"] for a in ask(client, text="x", sampling_params={**sampling, "n": 3})]
    assert len(set(several)) == 3
    assert ask(client, text="x", sampling_params=sampling)["text"] == several[0]
    assert [a["text"] for a in ask(client, text="x", sampling_params={**sampling, "n": 3})] == several


def test_zero_tokens_is_zero_tokens(client: Any) -> None:
    answer = ask(client, text="abc", sampling_params={"max_new_tokens": 0})
    assert (answer["text"], answer["output_ids"]) == ("", [])
    assert answer["meta_info"]["finish_reason"] == {"type": "length", "length": 0}


def test_zeros_reach_the_engine(client: Any, fake: Any) -> None:
    zeros = {"logprob_start_len": 0, "top_logprobs_num": 0}
    sampling = {"temperature": 0, "sampling_seed": 0, "max_new_tokens": 1}
    ask(client, text="a", sampling_params=sampling, return_logprob=True, **zeros)
    request = fake.submitted[0]
    assert (request.sampling.temperature, request.sampling.seed, request.logprob_start_len) == (0.0, 0, 0)


def test_a_default_length_is_cut_to_what_fits(client: Any, fake: Any) -> None:
    ask(client, text="a" * 59)
    assert fake.submitted[0].sampling.max_new_tokens == 64 - 60


def test_logprobs_have_sglangs_shape(client: Any) -> None:
    answer = ask(client, text="ab", sampling_params={"max_new_tokens": 2}, return_logprob=True, logprob_start_len=0,
                 top_logprobs_num=2, return_text_in_logprobs=True)  # fmt: skip
    meta = answer["meta_info"]
    assert meta["input_token_logprobs"] == [[None, 256, "<bos>"], [-1.0, 97, "a"], [-1.0, 98, "b"]]
    assert meta["output_token_logprobs"] == [[-0.5, 97, "a"], [-0.5, 98, "b"]]
    assert meta["input_top_logprobs"] == [None, [[-1.0, 97, "a"]], [[-1.0, 98, "b"]]]
    assert meta["output_top_logprobs"][0] == [[-0.5, 97, "a"], [-1.5, 98, "b"]]


def test_logprobs_without_text_and_prompt(client: Any) -> None:
    meta = ask(client, text="ab", sampling_params={"max_new_tokens": 1}, return_logprob=True)["meta_info"]
    assert meta["input_token_logprobs"] == []
    assert meta["output_token_logprobs"] == [[-0.5, 97, None]]
    assert "output_top_logprobs" not in meta


def test_a_probability_of_zero_is_valid_json(client: Any) -> None:
    meta = ask(client, text="!", sampling_params={"max_new_tokens": 1}, return_logprob=True)["meta_info"]
    assert meta["output_token_logprobs"] == [[None, 33, None]]


def test_a_stream_is_cumulative_and_ends_as_the_whole_answer(client: Any) -> None:
    body = {"text": "héé→", "sampling_params": {"max_new_tokens": 11}, "return_logprob": True}
    parts = events(client.post("/generate", json={**body, "stream": True}))
    whole = ask(client, **body)
    shown = ""
    for part in parts:
        assert part["text"].startswith(shown)
        assert "\ufffd" not in part["text"]
        shown = part["text"]
    for one in (parts[-1], whole):
        del one["meta_info"]["id"], one["meta_info"]["e2e_latency"]
    assert parts[-1] == whole
    assert all(part["meta_info"]["finish_reason"] is None for part in parts[:-1])


def test_a_streamed_batch_names_each_place(client: Any) -> None:
    body = {"text": ["a", "b"], "sampling_params": {"max_new_tokens": 2, "n": 2}, "stream": True}
    last = {part["index"]: part for part in events(client.post("/generate", json=body))}
    assert {index: part["text"] for index, part in last.items()} == {0: "aa", 1: "aa", 2: "bb", 3: "bb"}
    assert all(part["meta_info"]["finish_reason"] for part in last.values())
