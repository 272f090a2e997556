"""The QoS front over scripted lanes."""

import asyncio

import pytest

from gaugeblock.fixtures.targets.lane_bench import LaneBench
from gaugeblock.reference.engine.types import GenerateRequest, RequestError, SamplingParams
from gaugeblock.reference.hybrid.jobs import FrontConfig, Qos
from gaugeblock.reference.hybrid.lanes import Lane


def test_priorities_have_their_lanes():
    bench = LaneBench()
    high, low = bench.ask("high", priority="high"), bench.ask("low", priority="low")
    assert (bench.where("high"), bench.where("low")) == ("gpu", "cpu")
    bench.finish()
    assert high.whole
    assert low.whole
    assert high.served == {"lane": "gpu", "lane_quality": "fp32", "degraded": None}
    assert low.served == {"lane": "cpu", "lane_quality": "int8", "degraded": None}


def test_overload_degrades_and_then_waits():
    bench = LaneBench()
    clients = [bench.ask(f"{n}", priority="high") for n in range(5)]
    assert [bench.where(f"{n}") for n in range(5)] == ["gpu", "gpu", "cpu", "cpu", None]
    assert bench.front.waiting()["high"] == 1
    bench.finish()
    assert all(client.whole for client in clients)
    assert clients[2].served["degraded"] == "overload"
    assert bench.metric("degraded_total", lane="cpu", reason="overload") == 2


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_a_fault_is_made_good_by_the_other_lane(tokens):
    bench = LaneBench()
    client = bench.ask("one", priority="high")
    for _ in range(tokens):
        bench.lanes["gpu"].step()
    bench.lanes["gpu"].fail()
    assert bench.where("one") == "cpu"
    bench.lanes["gpu"].late("one")
    bench.finish()
    assert client.whole, (client.tokens, client.ends)
    assert client.served["lane"] == "cpu"
    assert client.served["degraded"] == "fault"
    assert client.served.get("lanes") == (["gpu", "cpu"] if tokens else None)
    assert sum(event.prompt_tokens for event in client.events) == 3
    assert bench.metric("requests_total", lane="gpu", end="fault") == 1
    assert bench.metric("continued_total", lane="cpu") == bool(tokens)


def test_a_fault_within_submit():
    bench = LaneBench()
    bench.lanes["gpu"].down = True
    client = bench.ask("one", priority="high")
    bench.finish()
    assert client.whole


def test_a_full_engine_is_no_fault():
    bench = LaneBench(breaker_failures=1)
    bench.lanes["gpu"].full = True
    client = bench.ask("one", priority="high")
    bench.finish()
    assert client.whole
    assert bench.front.states[0].breaker.allows()


def test_the_quality_floor_forbids_going_on():
    bench = LaneBench()
    client = bench.ask("one", priority="high", floor="fp32")
    bench.lanes["gpu"].step()
    bench.lanes["gpu"].fail()
    assert [end.status for end in client.ends] == [503]
    assert "'gpu' failed after 1 tokens" in client.end.message
    assert "no other lane reaches fp32" in client.end.message
    assert not bench.lanes["cpu"].got


def test_two_faults_end_it():
    bench = LaneBench()
    client = bench.ask("one", priority="high")
    bench.lanes["gpu"].fail()
    bench.lanes["cpu"].fail()
    assert [end.status for end in client.ends] == [503]
    assert "'gpu'" in client.end.message
    assert "'cpu'" in client.end.message


def test_a_floor_that_no_lane_reaches():
    bench = LaneBench([{"name": "cpu", "tier": "cpu", "quality": "int8"}])
    client = bench.ask("one", floor="bf16")
    assert client.end.status == 400
    assert "bf16" in client.end.message
    assert "cpu (int8)" in client.end.message
    assert bench.metric("refused_total", reason="quality") == 1


def test_a_deadline_ends_what_runs_and_what_waits():
    bench = LaneBench([{"name": "gpu", "tier": "gpu", "quality": "fp32", "capacity": 1}])
    running, waiting = bench.ask("running", timeout=2.0), bench.ask("waiting", timeout=1.0)
    bench.lanes["gpu"].step()
    bench.wait(1.0)
    assert waiting.end.status == 504
    bench.wait(1.0)
    assert running.end.status == 504
    assert "'gpu', after 1 tokens" in running.end.message
    assert bench.lanes["gpu"].aborted == ["running/0"]
    assert [len(c.ends) for c in (running, waiting)] == [1, 1]


def test_what_cannot_be_in_time_is_not_begun():
    bench = LaneBench([{"name": "gpu", "tier": "gpu", "quality": "fp32"}])
    bench.ask("measure", new=11)
    for _ in range(11):
        bench.now += 0.1
        bench.lanes["gpu"].step()
    late = bench.ask("late", new=100, timeout=5.0)
    assert late.end.status == 429
    assert "100 new tokens take about 9.96 s, and 5 s are left" in late.end.message
    assert len(bench.lanes["gpu"].got) == 1
    bench.ask("soon", new=20, timeout=5.0)
    assert bench.where("soon") == "gpu"
    bench.wait(60.0)
    assert bench.front.states[0].view.decode is None, "an old measurement refuses nobody for ever"


def test_a_silent_lane_is_left():
    bench = LaneBench(idle_timeout=5.0)
    client = bench.ask("one", priority="high")
    bench.wait(5.0)
    assert bench.where("one") == "cpu"
    bench.finish()
    assert client.whole


def test_the_breaker_opens_probes_and_closes():
    bench = LaneBench(breaker_failures=2, breaker_cooldown=10.0)
    bench.lanes["gpu"].down = True
    for n in range(4):
        bench.ask(f"{n}", priority="high")
        bench.finish()
    assert len(bench.lanes["gpu"].got) == 2
    assert bench.metric("breaker_state", lane="gpu") == 2
    bench.lanes["gpu"].down = False
    bench.wait(10.0)
    assert bench.metric("breaker_state", lane="gpu") == 1
    bench.ask("probe", priority="high")
    bench.ask("other", priority="high")
    assert (bench.where("probe"), bench.where("other")) == ("gpu", "cpu")
    bench.finish()
    assert bench.metric("breaker_state", lane="gpu") == 0


def test_an_urgent_request_waits_for_the_only_lane_good_enough():
    bench = LaneBench(breaker_failures=1, breaker_cooldown=10.0)
    bench.ask("fault", priority="high")
    bench.lanes["gpu"].fail()
    client = bench.ask("exact", priority="high", floor="fp32")
    assert bench.where("exact") is None
    bench.wait(10.0)
    assert bench.where("exact") == "gpu"
    bench.finish()
    assert client.whole


def test_patient_requests_get_through():
    bench = LaneBench([{"name": "cpu", "tier": "cpu", "quality": "int8", "capacity": 1}], patience=3)
    bench.ask("first", new=1, priority="high")
    low = bench.ask("low", new=1, priority="low")
    for n in range(10):
        bench.ask(f"{n}", new=1, priority="high")
    bench.finish()
    order = [request.rid for request in bench.lanes["cpu"].got]
    assert order.index("low/0") == 4
    assert low.whole


def test_waiting_has_limits():
    bench = LaneBench([{"name": "gpu", "tier": "gpu", "quality": "fp32", "capacity": 1}], queue_size=1, queue_timeout=2)
    bench.ask("runs")
    waits, over = bench.ask("waits"), bench.ask("over")
    assert over.end.status == 429
    assert not waits.ends
    bench.wait(2.0)
    assert waits.end.status == 429


def test_an_abort_reaches_the_lane_and_the_queue():
    bench = LaneBench([{"name": "gpu", "tier": "gpu", "quality": "fp32", "capacity": 1}])
    runs, waits = bench.ask("runs"), bench.ask("waits")
    bench.front.abort("waits")
    bench.front.abort("runs")
    bench.front.abort("unknown")
    assert [[end.type for end in client.ends] for client in (runs, waits)] == [["abort"], ["abort"]]
    assert bench.front.states[0].running == 0


def test_stop_ends_everybody():
    bench = LaneBench()
    clients = [bench.ask(f"{n}") for n in range(6)]
    bench.front.start()
    bench.front.stop()
    assert all([end.type for end in client.ends] == ["abort"] for client in clients)


def test_a_sink_that_fails_takes_nobody_along():
    bench = LaneBench()
    sampling = SamplingParams(max_new_tokens=3)

    def sink(event):
        raise OSError("the client has left")

    bench.front.submit(GenerateRequest("gone", (1,), sampling), sink)
    other = bench.ask("other")
    bench.finish()
    assert other.whole
    assert bench.front.states[0].running == 0


@pytest.mark.parametrize(
    ("qos", "said"),
    [
        ({"priority": "urgent"}, "high, normal, low"),
        ({"floor": "fp31"}, "int4, int8, fp8, bf16, fp16, fp32"),
        ({"timeout": 0.0}, "> 0"),
        ({"timeout": float("nan")}, "> 0"),
    ],
)
def test_what_cannot_be_understood(qos, said):
    bench = LaneBench()
    with pytest.raises(RequestError, match=said):
        bench.ask("one", **qos)
    bench.ask("one")
    with pytest.raises(RequestError, match="in use"):
        bench.ask("one")


@pytest.mark.parametrize(
    ("lanes", "said"),
    [
        ([{"name": "a", "tier": "tpu", "quality": "fp32"}], "gpu, cpu"),
        ([{"name": "a", "tier": "gpu", "quality": "fp33"}], "int4"),
        ([{"name": "a", "tier": "gpu", "quality": "fp32", "capacity": 0}], "capacity must be a whole number >= 1"),
        ([{"name": "a", "tier": "gpu", "quality": "fp32", "low_capacity": 3}], "low_capacity"),
        ([{"name": "a b", "tier": "gpu", "quality": "fp32"}], "letters"),
        ([{"name": "a", "tier": "gpu", "quality": "fp32"}] * 2, "different names"),
        (
            [
                {"name": "gpu", "tier": "gpu", "quality": "fp32"},
                {"name": "cpu", "tier": "cpu", "quality": "int8", "revision": "two"},
            ],
            "'cpu' serves another revision of the model than the lane 'gpu'",
        ),
    ],
)
def test_lanes_that_cannot_be(lanes, said):
    with pytest.raises(ValueError, match=said):
        LaneBench(lanes)


def test_low_priority_takes_a_quarter_of_a_gpu_lane():
    lane = Lane("gpu", None, "gpu", "fp32", "one", capacity=8)
    assert lane.low_capacity == 2
    assert Lane("cpu", None, "cpu", "fp32", "one", capacity=8).low_capacity == 8


def test_config_says_what_is_legal():
    with pytest.raises(ValueError, match="patience must be a whole number >= 1"):
        FrontConfig(patience=0)


def test_generate_yields_and_aborts():
    bench = LaneBench()
    request = GenerateRequest("one", (1, 2), SamplingParams(max_new_tokens=3))

    async def read(limit):
        stream = bench.front.generate(request, Qos("high"))
        read = []
        task = asyncio.ensure_future(anext(stream))
        for _ in range(limit):
            await asyncio.sleep(0)
            bench.lanes["gpu"].step()
            read.append(await task)
            task = asyncio.ensure_future(anext(stream, None))
        if limit < 3:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            assert await task is None
        await stream.aclose()
        return read

    events = asyncio.run(read(3))
    assert [event.finish is not None for event in events] == [False, False, True]
    assert len(asyncio.run(read(1))) == 1
    assert bench.front.states[0].running == 0
