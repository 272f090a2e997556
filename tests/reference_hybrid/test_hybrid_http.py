"""Lanes of the real engine on the tiny model, behind HTTP."""

import json
import queue
import threading
import time

import pytest
import torch
from starlette.testclient import TestClient

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, RequestError, SamplingParams
from gaugeblock.reference.hybrid.engine_lanes import DEFAULT_LANES, HybridEngine, LaneSpec, load_lanes
from gaugeblock.reference.hybrid.jobs import FrontConfig
from gaugeblock.reference.hybrid.server import hybrid_app

CONFIG = EngineConfig(str(tiny_model()), max_total_tokens=2048)
BOTH_FP32 = (LaneSpec("gpu", "gpu", "fp32"), LaneSpec("cpu", "cpu", "fp32"))
TEXT = "def main(arguments):\n    return "
SAMPLING = {"max_new_tokens": 12, "temperature": 0.8, "sampling_seed": 3, "ignore_eos": True}


@pytest.fixture(scope="module")
def hybrid():
    engine = HybridEngine(CONFIG)
    engine.start()
    with TestClient(hybrid_app(engine)) as client:
        yield client
    engine.stop()


def ask(client, status=200, headers=None, **body):
    body = {"text": TEXT, "sampling_params": {"max_new_tokens": 4, "temperature": 0}, **body}
    reply = client.post("/generate", json=body, headers=headers or {})
    assert reply.status_code == status, reply.text
    return reply


def fail_at(model, count, monkeypatch, after=None):
    """Let a model's forward pass fail once, the ``count``-th time and ``after`` an event; returns the calls."""
    forward, calls = model.forward, []

    def fails(*args):
        calls.append(1)
        if len(calls) == count:
            assert after is None or after.wait(20)
            raise RuntimeError("a matrix was lost")
        return forward(*args)

    monkeypatch.setattr(model, "forward", fails)
    return calls


def telling(app, sent):
    """An app that sets an event once a piece of an answer is sent."""

    async def told(scope, receive, send):
        async def tell(message):
            await send(message)
            if message.get("body"):
                sent.set()

        await app(scope, receive, tell)

    return told


def answer(engine, request):
    events = queue.Queue()
    engine.submit(request, events.put)
    got = [events.get(timeout=20)]
    while got[-1].finish is None:
        got.append(events.get(timeout=20))
    return [event.token_id for event in got], "".join(event.text for event in got), got[-1].finish


@pytest.mark.parametrize(("priority", "lane", "quality"), [("high", "gpu", "fp32"), ("low", "cpu", "int8")])
def test_the_answer_names_the_lane(hybrid, priority, lane, quality):
    reply = ask(hybrid, headers={"x-priority": priority})
    assert reply.headers["x-gaugeblock-lane"] == lane
    assert reply.headers["x-gaugeblock-lane-quality"] == quality
    assert "x-gaugeblock-degraded" not in reply.headers
    meta = reply.json()["meta_info"]
    assert (meta["lane"], meta["lane_quality"], meta["degraded"]) == (lane, quality, None)
    assert f'gaugeblock_lane_requests_total{{end="length",lane="{lane}"}}' in hybrid.get("/metrics").text


def test_a_stream_and_a_chat_name_it_too(hybrid):
    reply = ask(hybrid, headers={"x-priority": "low"}, stream=True)
    assert reply.headers["x-gaugeblock-lane"] == "cpu"
    frames = [json.loads(part.removeprefix("data: ")) for part in reply.text.split("\n\n")[:-2]]
    assert {frame["meta_info"]["lane"] for frame in frames} == {"cpu"}
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    reply = hybrid.post("/v1/chat/completions", json=body, headers={"x-priority": "low"})
    assert reply.headers["x-gaugeblock-lane"] == "cpu"


def test_a_floor_is_kept(hybrid):
    reply = ask(hybrid, headers={"x-priority": "low", "x-quality-floor": "bf16"})
    assert reply.headers["x-gaugeblock-lane"] == "gpu"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-priority": "urgent"}, "high, normal, low"),
        ({"x-quality-floor": "exact"}, "int4, int8"),
        ({"x-request-timeout": "soon"}, "seconds > 0; got 'soon'"),
    ],
)
def test_a_header_that_cannot_be_understood(hybrid, headers, said):
    assert said in ask(hybrid, 400, headers).json()["message"]


def test_a_late_answer_is_an_error(hybrid):
    slow = {"max_new_tokens": 1500, "temperature": 0, "ignore_eos": True}
    reply = hybrid.post("/generate", json={"text": TEXT, "sampling_params": slow}, headers={"x-request-timeout": "0.1"})
    assert reply.status_code in (429, 504)  # 429 once the lanes' speed has been measured
    assert "time" in reply.json()["message"]


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_an_engine_goes_on_where_another_stopped(cut):
    engine = Engine(CONFIG)
    engine.start()
    try:
        prompt = tuple(engine.tokenizer.encode(TEXT))
        sampling = SamplingParams(
            max_new_tokens=12, temperature=0.8, seed=3, ignore_eos=True, repetition_penalty=1.2, min_new_tokens=7
        )
        whole, text, finish = answer(engine, GenerateRequest("whole", prompt, sampling))
        rest, tail, end = answer(engine, GenerateRequest("rest", prompt, sampling, output_ids=tuple(whole[:cut])))
        assert whole[cut:] == rest
        assert text.endswith(tail)
        assert finish == end
        with pytest.raises(RequestError, match="12 tokens already"):
            engine.submit(GenerateRequest("done", prompt, sampling, output_ids=tuple(whole)), print)
        with pytest.raises(RequestError, match="outside the vocabulary"):
            engine.submit(GenerateRequest("bad", prompt, sampling, output_ids=(10**6,)), print)
    finally:
        engine.stop()


def test_a_crash_of_the_gpu_lane_shows_no_seam(monkeypatch):
    hybrid = HybridEngine(CONFIG, BOTH_FP32)
    hybrid.start()
    try:
        with TestClient(hybrid_app(hybrid)) as client:
            right = ask(client, sampling_params=SAMPLING).json()
            calls = fail_at(hybrid.engines[0].scheduler.model, 6, monkeypatch)
            reply = ask(client, sampling_params=SAMPLING)
            assert reply.json()["output_ids"] == right["output_ids"]
            assert reply.json()["text"] == right["text"]
            meta = reply.json()["meta_info"]
            assert (meta["lane"], meta["degraded"], meta["lanes"]) == ("cpu", "fault", ["gpu", "cpu"])
            assert reply.headers["x-gaugeblock-degraded"] == "fault"
            assert len(calls) == 6
    finally:
        hybrid.stop()


def wait_for(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.02)


def lanes_of(client, status=200):
    reply = client.get("/health")
    assert reply.status_code == status, reply.text
    return {lane["lane"]: lane for lane in reply.json()["lanes"]}


def test_a_stream_that_nobody_may_go_on_with_says_so(monkeypatch):
    hybrid, sent = HybridEngine(CONFIG, front=FrontConfig(restarts=0)), threading.Event()
    hybrid.start()
    try:
        with TestClient(telling(hybrid_app(hybrid), sent)) as client:
            fail_at(hybrid.engines[0].scheduler.model, 3, monkeypatch, after=sent)  # before it, the answer is a 503
            reply = ask(client, headers={"x-quality-floor": "bf16"}, stream=True)
            frames = [part.removeprefix("data: ") for part in reply.text.split("\n\n")[:-1]]
            assert frames[-1] == "[DONE]"
            error = json.loads(frames[-2])["error"]
            assert error["code"] == 503
            assert "the lane 'gpu' failed after 2 tokens" in error["message"]
            assert "no other lane reaches bf16" in error["message"]
            refused = ask(client, 503, headers={"x-quality-floor": "bf16"})
            assert refused.headers["retry-after"] == "1"
            assert "the lane 'gpu' is down: RuntimeError: a matrix was lost" in refused.json()["message"]
            assert ask(client).headers["x-gaugeblock-degraded"] == "fault"
            lanes = lanes_of(client)
            assert lanes["gpu"]["condition"] == "down"
            assert lanes["gpu"]["why"] == "the lane 'gpu' is down: RuntimeError: a matrix was lost"
            assert (lanes["cpu"]["condition"], lanes["cpu"]["why"]) == ("serves", None)
            assert 'gaugeblock_lane_condition{lane="gpu"} 2.0' in client.get("/metrics").text
            counted = 'gaugeblock_lane_crashes_total{error="RuntimeError",lane="gpu"} 1.0'
            wait_for(lambda: counted in client.get("/metrics").text)  # the front looks when it ticks
            fail_at(hybrid.engines[1].scheduler.model, 1, monkeypatch)
            assert "'cpu' failed after 0 tokens" in ask(client, 503).json()["message"]
            assert lanes_of(client, 503)["cpu"]["condition"] == "down"
    finally:
        hybrid.stop()


def test_a_lane_that_crashed_serves_again(monkeypatch):
    hybrid = HybridEngine(CONFIG, BOTH_FP32, FrontConfig(restart_pause=0.2, breaker_failures=9))
    hybrid.start()
    try:
        with TestClient(hybrid_app(hybrid)) as client:
            right = ask(client, sampling_params=SAMPLING).json()
            fail_at(hybrid.engines[0].scheduler.model, 6, monkeypatch)
            moved = ask(client, sampling_params=SAMPLING).json()
            assert moved["meta_info"]["lanes"] == ["gpu", "cpu"]
            wait_for(lambda: lanes_of(client)["gpu"]["condition"] == "serves")
            again = ask(client, sampling_params=SAMPLING).json()
            assert again["meta_info"]["lane"] == "gpu"
            assert again["meta_info"]["cached_tokens"] == 0
            assert moved["output_ids"] == again["output_ids"] == right["output_ids"]
    finally:
        hybrid.stop()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_lane_on_a_gpu():
    hybrid = HybridEngine(CONFIG)
    assert hybrid.engines[0].scheduler.model.device.name == "cuda"
    hybrid.start()
    try:
        with TestClient(hybrid_app(hybrid)) as client:
            first, second = (ask(client, headers={"x-priority": "high"}) for _ in range(2))
            assert first.headers["x-gaugeblock-lane"] == "gpu"
            assert first.json()["output_ids"] == second.json()["output_ids"]
            assert ask(client, headers={"x-priority": "low"}).headers["x-gaugeblock-lane"] == "cpu"
    finally:
        hybrid.stop()


def test_a_device_that_fails_is_left_and_used_again(monkeypatch):
    specs = (LaneSpec("gpu", "gpu", "fp32", device="pretend"), BOTH_FP32[1])
    hybrid = HybridEngine(CONFIG, specs)
    assert hybrid.about == "gpu (fp32 on pretend), cpu (fp32 on the host)"
    hybrid.start()
    try:
        with TestClient(hybrid_app(hybrid)) as client:
            right = ask(client, sampling_params=SAMPLING).json()
            model, calls = hybrid.engines[0].scheduler.model, []
            norm = model.get_submodule("model.norm")
            forward = norm.forward

            def fails_once(*args):
                calls.append(1)
                if len(calls) == 6:
                    raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
                return forward(*args)

            monkeypatch.setattr(norm, "forward", fails_once)
            moved, again = (ask(client, sampling_params=SAMPLING).json() for _ in range(2))
            assert moved["output_ids"] == again["output_ids"] == right["output_ids"]
            assert moved["meta_info"]["lanes"] == ["gpu", "cpu"]
            assert again["meta_info"]["lane"] == "gpu", "one fault opens no breaker, and ends no engine"
    finally:
        hybrid.stop()


def test_files_of_lanes(tmp_path):
    path = tmp_path / "lanes.toml"
    path.write_text('[front]\npatience = 4\n[[lanes]]\nname = "a"\ntier = "cpu"\nquality = "int8"\ncapacity = 2\n')
    specs, front = load_lanes(str(path))
    assert specs == (LaneSpec("a", "cpu", "int8", 2),)
    assert front.patience == 4
    path.write_text("")
    assert load_lanes(str(path))[0] == DEFAULT_LANES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read .*lanes.toml: No such file"),
        ("lanes = 3", "lanes.toml: lanes must be a list of tables"),
        ("[lane]", "one of front, lanes"),
        ('[[lanes]]\nname = "a"\ntier = "cpu"\nquality = "bf16"', r"lane 1 \('a'\): quality must be one of fp32, int8"),
        ('[[lanes]]\nname = "a"', "needs a tier"),
        ('[[lanes]]\nname = "a"\ntier = "cpu"\nquality = "fp32"\ndevice = "cuda"', "for a lane of tier gpu"),
        ('[[lanes]]\nname = "a"\ntier = "gpu"\nquality = "int8"\ndevice = "cuda"', "INT8 runs on the host: give a pl"),
        ('[[lanes]]\nname = "a"\ntier = "gpu"\nquality = "fp32"\ndevice = "tpu"', "auto, host, pretend, cuda"),
        ("[front]\nqueue = 3", "has no field 'queue'"),
        ("[front", "lanes.toml: "),
    ],
)
def test_files_that_are_wrong(tmp_path, text, said):
    path = tmp_path / "lanes.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=said):
        load_lanes(str(path))


def test_a_lane_of_another_model_is_refused(tmp_path):
    for file in tiny_model().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    specs = (LaneSpec("gpu", "gpu", "fp32"), LaneSpec("cpu", "cpu", "int8", model=str(tmp_path)))
    with pytest.raises(ValueError, match="'cpu' serves another revision of the model"):
        HybridEngine(CONFIG, specs)
