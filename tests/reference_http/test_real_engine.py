"""The front before the real engine, on the tiny model that the repository ships."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.http.server import build_app
from gaugeblock.reference.engine.types import EngineConfig

TINY = Path(__file__).parents[2] / "golden" / "tiny-llama"
TEXT = "def main(arguments):\n    return "
GREEDY = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}
USER = [{"role": "user", "content": "What is a gauge block?"}]


@pytest.fixture(scope="module")
def real() -> Iterator[TestClient]:
    engine = Engine(EngineConfig(str(TINY), max_total_tokens=4096, max_running_requests=4, max_queued_requests=4))
    engine.start()
    with TestClient(build_app(engine)) as client:
        yield client
    engine.stop()


def wait_for(condition: Any) -> None:
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("not within 10 s")


def ask(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_stream_is_the_whole_answer(real: TestClient) -> None:
    whole = ask(real, "/generate", text=TEXT, sampling_params=GREEDY)
    reply = real.post("/generate", json={"text": TEXT, "sampling_params": GREEDY, "stream": True})
    parts = [json.loads(f.removeprefix("data: ")) for f in reply.text.split("\n\n")[:-2]]
    assert (parts[-1]["text"], parts[-1]["output_ids"]) == (whole["text"], whole["output_ids"])
    assert all(later["text"].startswith(part["text"]) for part, later in itertools.pairwise(parts))


def test_a_repeated_prompt_is_cached_and_a_flush_forgets_it(real: TestClient) -> None:
    prompt = TEXT * 3
    real.post("/flush_cache")
    first, again = (ask(real, "/generate", text=prompt, sampling_params=GREEDY) for _ in range(2))
    assert first["meta_info"]["cached_tokens"] == 0
    assert again["meta_info"]["cached_tokens"] >= 64
    assert again["output_ids"] == first["output_ids"]
    assert real.post("/flush_cache").status_code == 200
    assert ask(real, "/generate", text=prompt, sampling_params=GREEDY)["meta_info"]["cached_tokens"] == 0


def test_echoed_logprobs_are_those_of_the_native_api(real: TestClient) -> None:
    echo = ask(real, "/v1/completions", prompt=TEXT, max_tokens=3, temperature=0, echo=True, logprobs=2)
    native = ask(real, "/generate", text=TEXT, sampling_params={**GREEDY, "max_new_tokens": 3}, return_logprob=True,
                 logprob_start_len=0, top_logprobs_num=2)  # fmt: skip
    meta = native["meta_info"]
    rows = meta["input_token_logprobs"] + meta["output_token_logprobs"]
    assert echo["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx([row[0] for row in rows], abs=1e-4)
    assert echo["choices"][0]["text"] == TEXT + native["text"]


def test_chat_is_the_template_encoded_once(real: TestClient) -> None:
    ids = ask(real, "/tokenize", messages=USER)["tokens"]
    chat = ask(real, "/v1/chat/completions", messages=USER, max_tokens=8, temperature=0)
    native = ask(real, "/generate", input_ids=ids, sampling_params={"temperature": 0, "max_new_tokens": 8})
    response = ask(real, "/v1/responses", input=USER[0]["content"], max_output_tokens=8, temperature=0)
    assert chat["usage"]["prompt_tokens"] == len(ids) == response["usage"]["input_tokens"]
    assert chat["choices"][0]["message"]["content"] == native["text"] == response["output"][0]["content"][0]["text"]


def test_seeded_samples_differ_and_come_again(real: TestClient) -> None:
    sampling = {"temperature": 1.0, "max_new_tokens": 12, "sampling_seed": 5, "n": 3, "ignore_eos": True}
    texts = [[a["output_ids"] for a in ask(real, "/generate", text=TEXT, sampling_params=sampling)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len({tuple(ids) for ids in texts[0]}) == 3


def test_what_the_engine_refuses_is_a_400(real: TestClient) -> None:
    length = real.get("/v1/models").json()["data"][0]["max_model_len"]
    for body in ({"text": "a" * (length + 5)}, {"input_ids": [10**6]}, {"text": ""}):
        assert real.post("/generate", json=body).status_code == 400
    assert ask(real, "/generate", text="a", sampling_params={"max_new_tokens": 0})["output_ids"] == []


def test_an_aborted_request_gives_its_pages_back(real: TestClient) -> None:
    replies: list[Any] = []
    body = {"text": TEXT, "rid": "long", "sampling_params": {**GREEDY, "max_new_tokens": 900}}
    thread = threading.Thread(target=lambda: replies.append(real.post("/generate", json=body)), daemon=True)
    thread.start()
    wait_for(lambda: real.get("/get_load").json()[0]["num_reqs"] == 1)
    assert real.post("/abort_request", json={"rid": "long"}).status_code == 200
    thread.join(20)
    assert replies[0].json()["meta_info"]["finish_reason"]["type"] == "abort"
    state = real.get("/get_server_info").json()["internal_states"][0]
    assert (state["running"], state["queued"]) == (0, 0)
    assert state["free_tokens"] + state["cached_tokens"] == state["total_tokens"]
