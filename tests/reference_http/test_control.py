"""Health, information, load, cache, abort, admission, tokens, models, metrics."""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ONE = {"text": "a", "sampling_params": {"max_new_tokens": 1}}
LONG = {"text": "a", "rid": "long", "sampling_params": {"max_new_tokens": 40}}
WAIT = 10.0


class Held:
    """A request that the gate holds, posted from a thread of its own."""

    def __init__(self, client: Any, fake: Any, body: dict[str, Any]) -> None:
        fake.gate.clear()
        self.reply: Any = None
        self.thread = threading.Thread(target=self._post, args=(client, body), daemon=True)
        before = len(fake.submitted)
        self.thread.start()
        wait_for(lambda: len(fake.submitted) > before)

    def _post(self, client: Any, body: dict[str, Any]) -> None:
        self.reply = client.post("/generate", json=body)

    def result(self) -> Any:
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        return self.reply


def wait_for(condition: Any) -> None:
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("not within 10 s")


def test_health(client: Any, fake: Any) -> None:
    for path in ("/health", "/health_generate"):
        reply = client.get(path)
        assert (reply.status_code, reply.content) == (200, b"")
    fake.healthy = False
    for path in ("/health", "/health_generate"):
        assert client.get(path).status_code == 503


def test_information(client: Any) -> None:
    info = client.get("/get_model_info").json()
    assert info == client.get("/model_info").json()
    assert (info["model_path"], info["model_type"], info["is_generation"]) == ("/models/echo", "fake", True)
    server = client.get("/get_server_info").json()
    assert server == client.get("/server_info").json()
    assert server["max_req_input_len"] == 63
    assert {"version", "max_total_num_tokens", "page_size", "chunked_prefill_size"} <= set(server)
    state = server["internal_states"][0]
    assert {"running", "queued", "free_tokens", "cached_tokens"} <= set(state)


def test_models(client: Any) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [(card["id"], card["max_model_len"]) for card in listed] == [("echo", 64)]
    assert client.get("/v1/models/echo").json() == listed[0]


def test_tokenize_and_back(client: Any) -> None:
    one = client.post("/tokenize", json={"prompt": "hé"}).json()
    assert one == {"tokens": [256, 104, 195, 169], "count": 4, "max_model_len": 64}
    plain = client.post("/tokenize", json={"prompt": ["h", ""], "add_special_tokens": False}).json()
    assert (plain["tokens"], plain["count"]) == ([[104], []], [1, 0])
    chat = client.post("/tokenize", json={"messages": [{"role": "user", "content": "x"}]}).json()
    assert bytes(chat["tokens"]).decode() == "[user]x\n[assistant]"
    assert client.post("/detokenize", json={"tokens": one["tokens"]}).json() == {"text": "hé"}
    assert client.post("/detokenize", json={"tokens": [[104], [105]]}).json() == {"text": ["h", "i"]}
    kept = client.post("/detokenize", json={"tokens": [256], "skip_special_tokens": False})
    assert kept.json() == {"text": "<bos>"}


def test_flush_is_refused_while_something_runs(client: Any, fake: Any) -> None:
    assert client.get("/flush_cache").status_code == client.post("/flush_cache").status_code == 200
    held = Held(client, fake, LONG)
    wait_for(lambda: fake.stats().running == 1)
    assert client.post("/flush_cache").status_code == 400
    fake.gate.set()
    held.result()


def test_flush_over_a_disk_that_does_not_answer_is_503(client: Any, fake: Any, monkeypatch: Any) -> None:
    def slow() -> bool:
        raise TimeoutError("1 writes to the disk tier did not end in 30 s")

    monkeypatch.setattr(fake, "flush_cache", slow)
    reply = client.post("/flush_cache")
    assert reply.status_code == 503
    assert "did not end in 30 s" in reply.text


def test_abort_by_rid_ends_the_request_as_aborted(client: Any, fake: Any) -> None:
    held = Held(client, fake, {**LONG, "sampling_params": {"max_new_tokens": 40, "n": 2}})
    assert client.post("/abort_request", json={"rid": "unknown"}).status_code == 200
    assert fake.aborted == []
    assert client.post("/abort_request", json={"rid": "long"}).status_code == 200
    reply = held.result()
    assert reply.status_code == 200
    assert [a["meta_info"]["finish_reason"]["type"] for a in reply.json()] == ["abort", "abort"]


def test_abort_all(client: Any, fake: Any) -> None:
    held = Held(client, fake, LONG)
    client.post("/abort_request", json={"abort_all": True})
    assert held.result().json()["meta_info"]["finish_reason"]["type"] == "abort"


def test_an_id_in_use_is_refused_and_free_again_afterwards(client: Any, fake: Any) -> None:
    held = Held(client, fake, LONG)
    again = client.post("/generate", json=LONG)
    assert (again.status_code, "still running" in again.json()["message"]) == (400, True)
    fake.gate.set()
    held.result()
    assert client.post("/generate", json=LONG).status_code == 200


def test_load_counts_what_runs(client: Any, fake: Any) -> None:
    held = Held(client, fake, LONG)
    wait_for(lambda: fake.stats().running == 1)
    assert client.get("/get_load").json()[0]["num_reqs"] == 1
    assert client.get("/v1/loads").json()["loads"][0]["num_running_reqs"] == 1
    fake.gate.set()
    held.result()
    assert client.get("/get_load").json()[0]["num_reqs"] == 0


def test_a_full_queue_is_503_with_retry_after(make_client: Any) -> None:
    client = make_client(max_running_requests=1, max_queued_requests=0)
    held = Held(client, client.engine, LONG)
    full = client.post("/generate", json=ONE)
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")
    assert "queue is full" in full.json()["message"]
    never = client.post("/generate", json={**ONE, "text": ["a", "b"]})
    assert never.status_code == 400
    client.engine.gate.set()
    assert held.result().status_code == 200
    assert client.post("/generate", json=ONE).status_code == 200


def test_an_engine_that_dies_is_503_and_not_a_hang(client: Any, fake: Any) -> None:
    held = Held(client, fake, LONG)
    fake.healthy = False
    assert held.result().status_code == 503
    assert client.post("/generate", json=ONE).status_code == 503


def test_a_bug_is_a_500_in_the_usual_shape(client: Any, fake: Any, monkeypatch: Any) -> None:
    def broken() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(fake, "stats", broken)
    reply = client.get("/get_load")
    assert (reply.status_code, reply.json()["type"]) == (500, "InternalServerError")
    assert "secret" not in reply.text


def test_metrics(client: Any) -> None:
    client.post("/generate", json={**ONE, "sampling_params": {"max_new_tokens": 3}})
    client.get("/no/such/path")
    text = client.get("/metrics").text
    samples = {
        (s.name, tuple(s.labels.values())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert samples["gaugeblock_engine_generation_tokens_total", ()] == 3
    assert samples["gaugeblock_engine_requests_total", ("length",)] == 1
    assert samples["gaugeblock_engine_time_to_first_token_seconds_count", ()] == 1
    assert samples["gaugeblock_engine_http_responses_total", ("generate", "200")] == 1
    assert samples["gaugeblock_engine_http_responses_total", ("none", "404")] == 1
    assert "no/such" not in text
