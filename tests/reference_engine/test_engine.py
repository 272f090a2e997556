"""The engine on its thread: submission, abort, flush, trouble. Every wait is bounded."""

import threading
from dataclasses import replace

import pytest
import torch

from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, QueueFull, RequestError, SamplingParams
from gaugeblock.reference.kv.pages import KVError

SECONDS = 20.0


class Client:
    """A sink that can be waited for."""

    def __init__(self):
        self.events = []
        self.begun = threading.Event()
        self.ended = threading.Event()

    def __call__(self, event):
        self.events.append(event)
        self.begun.set()
        if event.finish is not None:
            self.ended.set()

    def wait(self):
        assert self.ended.wait(SECONDS), f"no end within {SECONDS} s after {len(self.events)} events"
        return self.events[-1].finish


def request(rid="a", prompt=range(20), **fields):
    outer = {k: fields.pop(k) for k in ("logprob_start_len", "top_logprobs_num") if k in fields}
    sampling = SamplingParams(**{"temperature": 0.0, "max_new_tokens": 8, "ignore_eos": True, **fields})
    return GenerateRequest(rid, tuple(prompt), sampling, **outer)


@pytest.fixture
def make(folder):
    engines = []

    def build(start=True, **fields):
        engine = Engine(EngineConfig(str(folder), **fields))
        engines.append(engine)
        if start:
            engine.start()
        return engine

    yield build
    for engine in engines:
        engine.stop()


def ask(engine, **fields):
    client = Client()
    engine.submit(request(**fields), client)
    client.wait()
    return client


def test_many_clients_at_once(make):
    engine = make()
    clients = [Client() for _ in range(12)]
    threads = [
        threading.Thread(target=engine.submit, args=(request(str(i), range(i, i + 10)), client))
        for i, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    for i, client in enumerate(clients):
        assert client.wait().type == "length"
        assert {e.rid for e in client.events} == {str(i)}
        assert len(client.events) == 8
        assert sum(e.prompt_tokens for e in client.events) == 10
    stats = engine.stats()
    assert (stats.running, stats.queued, stats.generation_tokens_total) == (0, 0, 96)
    assert stats.free_tokens + stats.cached_tokens == stats.total_tokens


def test_public_facts(make):
    engine = make()
    assert engine.healthy
    assert engine.model_config.architectures == ("LlamaForCausalLM",)
    assert engine.model_config.model_type == "llama"
    assert (engine.context_len, engine.eos_token_ids) == (512, (258,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ()}, "empty"),
        ({"prompt": (5, 272)}, "token id 272 is outside the vocabulary of 272"),
        ({"prompt": (-1,)}, "token id -1 is outside"),
        ({"prompt": [1] * 512}, "512 tokens, the context holds 512"),
        ({"max_new_tokens": 493}, "20 prompt tokens and max_new_tokens 493 exceed the context of 512"),
        ({"logprob_start_len": 20}, r"logprob_start_len must be in \[-1, 19\], got 20"),
        ({"top_logprobs_num": -1}, "top_logprobs_num must be in"),
        ({"temperature": -0.1}, "temperature must be"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_and_the_next_one_works(make, fields, message):
    engine = make()
    with pytest.raises(RequestError, match=message):
        engine.submit(request(**fields), Client())
    assert ask(engine).events[-1].finish.type == "length"


def test_the_longest_legal_request_ends(make):
    client = ask(make(max_total_tokens=64), prompt=range(40), max_new_tokens=24)
    assert len(client.events) == 24


def test_the_pool_limits_the_context(make):
    with pytest.raises(RequestError, match="context of 64"):
        make(max_total_tokens=64).submit(request(prompt=range(60)), Client())


def test_an_id_may_be_used_again_only_after_its_end(make):
    engine = make(start=False)
    first = Client()
    engine.submit(request("a"), first)
    with pytest.raises(RequestError, match="'a' is in use"):
        engine.submit(request("a"), Client())
    engine.start()
    first.wait()
    ask(engine, rid="a")


def test_a_full_queue_refuses(make):
    engine = make(start=False, max_running_requests=1, max_queued_requests=2)
    clients = [Client() for _ in range(3)]
    for i, client in enumerate(clients):
        engine.submit(request(str(i)), client)
    with pytest.raises(QueueFull, match="3 requests"):
        engine.submit(request("late"), Client())
    engine.start()
    for client in clients:
        client.wait()
    ask(engine, rid="late")


def test_abort_ends_a_running_request(make):
    engine, client = make(), Client()
    engine.submit(request(max_new_tokens=400), client)
    assert client.begun.wait(SECONDS)
    engine.abort("a")
    finish = client.wait()
    assert (finish.type, len(client.events) < 400) == ("abort", True)
    assert engine.stats().aborted_total == 1
    ask(engine, rid="b")


def test_flush_waits_for_nobody(make):
    engine, client = make(), Client()
    engine.submit(request(max_new_tokens=400), client)
    assert client.begun.wait(SECONDS)
    assert engine.flush_cache() is False
    engine.abort(None)
    client.wait()
    assert engine.flush_cache() is True
    assert engine.stats().free_tokens == engine.stats().total_tokens


def test_a_failing_sink_loses_its_own_request_only(make):
    engine, good = make(), Client()
    seen = []

    def bad(event):
        seen.append(event)
        raise ConnectionError("the client is gone")

    engine.submit(request("bad", max_new_tokens=300), bad)
    engine.submit(request("good", max_new_tokens=30), good)
    assert good.wait().type == "length"
    assert ask(engine, rid="next").events[-1].finish.type == "length"
    assert engine.healthy
    assert 1 <= len(seen) < 300


def test_stop_ends_what_runs(make):
    engine, running, queued = make(max_running_requests=1), Client(), Client()
    engine.submit(request("a", max_new_tokens=400), running)
    engine.submit(request("b"), queued)
    assert running.begun.wait(SECONDS)
    engine.stop()
    assert [c.wait().message for c in (running, queued)] == ["the engine was stopped"] * 2
    assert not engine.healthy
    late = Client()
    engine.submit(request("late"), late)
    assert (late.wait().type, engine.flush_cache()) == ("abort", False)


def test_stop_before_start_ends_what_waits(make):
    engine, client = make(start=False), Client()
    engine.submit(request(), client)
    engine.stop()
    assert client.wait().type == "abort"


def test_a_crash_ends_every_request_and_shows_in_health(make):
    engine = make(start=False, max_running_requests=1)
    clients = [Client() for _ in range(3)]
    for i, client in enumerate(clients):
        engine.submit(request(str(i)), client)
    forward, calls = engine.scheduler.model.forward, []

    def broken(batch, storage):
        calls.append(batch)
        if len(calls) == 4:
            raise ArithmeticError("bad matrix")
        return forward(batch, storage)

    engine.scheduler.model.forward = broken
    engine.start()
    for client in clients:
        finish = client.wait()
        assert finish.type == "abort"
        assert "ArithmeticError: bad matrix" in finish.message
    assert not engine.healthy
    assert str(engine.crash) == "bad matrix"
    stats = engine.stats()
    assert (stats.running, stats.queued, stats.free_tokens) == (0, 0, stats.total_tokens)
    late = Client()
    engine.submit(request("late"), late)
    assert "bad matrix" in late.wait().message


def test_an_engine_that_crashed_starts_again_from_nothing(make):
    engine = make()
    with pytest.raises(RuntimeError, match="only an engine that has crashed"):
        engine.restart()
    right = ask(engine)
    forward, calls = engine.scheduler.model.forward, []

    def broken(batch, storage):
        calls.append(batch)
        if len(calls) == 4:
            for page in range(4):
                storage.write_page(page, torch.full(storage.shape.page_form.shape, 9.0))
            raise ArithmeticError("bad matrix")
        return forward(batch, storage)

    engine.scheduler.model.forward = broken
    clients = [Client() for _ in range(2)]
    for number, client in enumerate(clients):
        engine.submit(request(str(number), prompt=range(number, 30)), client)
    for client in clients:
        assert client.wait().type == "abort"
        assert len([event for event in client.events if event.finish is not None]) == 1
    engine._thread.join(SECONDS)
    engine.restart()
    assert engine.healthy
    assert engine.crash is None
    again = ask(engine)
    assert again.events == right.events  # to the count of cached tokens: none
    engine.scheduler.kv.recount()
    engine.stop()
    with pytest.raises(RuntimeError, match="only an engine that has crashed"):
        engine.restart()


def test_an_engine_whose_pages_do_not_add_up_stays_down(make):
    engine = make()

    def broken(batch, storage):
        engine.scheduler.kv.pool.refs[3] += 1
        raise ArithmeticError("bad matrix")

    engine.scheduler.model.forward = broken
    assert ask(engine).events[-1].finish.type == "abort"
    engine._thread.join(SECONDS)
    with pytest.raises(KVError, match="refcounts differ"):
        engine.restart()
    assert not engine.healthy
    assert str(engine.crash) == "bad matrix"


def test_two_engines_of_one_model_agree(make):
    one, two = ask(make()), ask(make(page_size=4, chunked_prefill_size=5))
    assert [replace(e, cached_tokens=0) for e in one.events] == [replace(e, cached_tokens=0) for e in two.events]
