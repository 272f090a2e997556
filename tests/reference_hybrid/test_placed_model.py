"""A placed model: what is refused, what lies where, and a device that fails."""

import random
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.targets.inprocess import load_inprocess, mixed_prompt
from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget
from gaugeblock.reference.engine.batch import Span, build_batch
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.errors import DeviceFault
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, SamplingParams
from gaugeblock.reference.hybrid import int8
from gaugeblock.reference.hybrid.devices import PretendDevice, PretendTensor, open_device
from gaugeblock.reference.hybrid.operators import operator_names
from gaugeblock.reference.hybrid.placed_model import PlacedModel
from gaugeblock.reference.hybrid.placement import Placement, PlacementError
from gaugeblock.reference.kv.storage import KVShape, KVStorage

CONFIG = load_config(tiny_model())
WEIGHTS = load_weights(tiny_model(), CONFIG)
NAMES = operator_names(LlamaModel(CONFIG, WEIGHTS))
SHAPE = KVShape(CONFIG.num_hidden_layers, CONFIG.num_key_value_heads, CONFIG.head_dim, 4)
IDS = torch.arange(20)
QKV, ATTENTION = "model.layers.1.self_attn.qkv_proj", "model.layers.1.self_attn.attention"


def on_device(*names):
    return {name: "device" if name in names else "host" for name in NAMES}


def drawn(seed):
    draw = random.Random(seed)
    return {name: draw.choice(("host", "device")) for name in NAMES}


def run(model, storage, cuts=(0, 9, 10, 20)):
    rows = []
    for start, end in pairwise(cuts):
        span = Span(IDS[start:end].tolist(), start, list(range(5)), range(end - start))
        rows.append(model.logits(model.forward(build_batch([span], 4, storage.pad_page), storage)))
    return torch.cat(rows)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_model_on_the_host_in_every_bit(seed):
    host, placed = LlamaModel(CONFIG, WEIGHTS), PlacedModel(CONFIG, WEIGHTS, drawn(seed), PretendDevice())
    here, there = host.new_storage(SHAPE, 6), placed.new_storage(SHAPE, 6)
    assert torch.equal(run(placed, there), run(host, here))
    assert all(torch.equal(there.read_page(page), here.read_page(page)) for page in range(6))
    assert torch.equal(placed.forward_full(IDS), host.forward_full(IDS))
    assert torch.equal(placed.kv_full(IDS), host.kv_full(IDS))


def test_int8_operators_on_the_host_beside_others_on_the_device():
    layers = tuple(replace(layer, down=int8.quantize(layer.down)) for layer in WEIGHTS.layers)
    mixed = replace(WEIGHTS, layers=layers)
    placement = {name: "host" if name.endswith("down_proj") else "device" for name in NAMES}
    placed = PlacedModel(CONFIG, mixed, placement, PretendDevice())
    assert torch.equal(placed.forward_full(IDS), LlamaModel(CONFIG, mixed).forward_full(IDS))
    with pytest.raises(PlacementError, match=r"model.layers.0.mlp.down_proj has Int8Matrix weights, .* place it there"):
        PlacedModel(CONFIG, mixed, dict.fromkeys(NAMES, "device"), PretendDevice())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({QKV: "gpu"}, f"operator '{QKV}' is placed on 'gpu'; places are: host, device"),
        ({"model.head": "host"}, r"no such operators: model.head; the model has: model.embed_tokens, .*"),
    ],
)
def test_names_that_do_not_exist_are_refused(change, message):
    with pytest.raises(PlacementError, match=message):
        PlacedModel(CONFIG, WEIGHTS, {**on_device(), **change}, PretendDevice())


def test_an_operator_without_a_place_is_refused():
    missing = {name: place for name, place in on_device().items() if name != QKV}
    with pytest.raises(PlacementError, match=f"operators without a place: {QKV}"):
        PlacedModel(CONFIG, WEIGHTS, missing, PretendDevice())


def test_what_exceeds_the_budget_is_refused_before_anything_moves():
    nbytes = WEIGHTS.layers[1].qkv.nbytes
    device = PretendDevice(nbytes - 1)
    with pytest.raises(
        PlacementError, match=rf"{QKV} needs {nbytes} bytes .* {nbytes - 1} of its budget of {nbytes - 1}"
    ):
        PlacedModel(CONFIG, WEIGHTS, on_device(QKV), device)
    assert device.ledger.arrived.copies == device.ledger.total == 0
    device = PretendDevice(nbytes)
    placed = PlacedModel(CONFIG, WEIGHTS, on_device(QKV, ATTENTION), device)
    with pytest.raises(PlacementError, match=rf"{ATTENTION} needs 28672 bytes .* 0 of its budget of {nbytes}"):
        placed.new_storage(SHAPE, 6)
    assert device.ledger.held == {QKV: nbytes}


def test_a_shared_weight_is_held_once_and_all_is_given_back():
    device = PretendDevice()
    placed = PlacedModel(CONFIG, WEIGHTS, on_device("model.embed_tokens", "lm_head", ATTENTION), device)
    storage = placed.new_storage(SHAPE, 6)
    assert WEIGHTS.embed is WEIGHTS.head
    assert device.ledger.total == WEIGHTS.embed.nbytes + 2 * 7 * 4 * 2 * 64 * 4  # K and V, 7 pages of 4 tokens
    assert isinstance(storage, KVStorage)
    assert storage.k.shape[0] == 3, "the host lays out the other layers alone"
    placed.close()
    assert device.ledger.held == {}
    assert isinstance(placed.model.layers[0].mlp.down_proj.weight, torch.Tensor), "the host's weights stay"


def test_copies_share_no_memory_and_mixing_is_an_error():
    device, host = PretendDevice(), torch.ones(3)
    there = device.put(host)
    back = device.fetch(there)
    host.zero_()
    there.mul_(5)
    assert (there.sum().item(), back.sum().item()) == (15, 3)
    assert type(back) is torch.Tensor
    assert (device.ledger.arrived.nbytes, device.ledger.left.copies) == (12, 1)
    for mix in (lambda: there + host, lambda: torch.cat([there, host]), lambda: there[torch.tensor([0])]):
        with pytest.raises(RuntimeError, match="tensors of the host and of the device"):
            mix()
    assert isinstance(there.view(3, 1) @ there.new_ones(1, 3), PretendTensor)


def test_devices_by_name():
    assert open_device("pretend", 5).ledger.budget == 5
    with pytest.raises(PlacementError, match="no device 'tpu': choose one of auto, pretend, cuda"):
        open_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_auto_pretends_where_there_is_no_gpu():
    assert open_device().name == "pretend"
    with pytest.raises(PlacementError, match="no CUDA device here: choose the device 'pretend'"):
        open_device("cuda")


def test_a_failing_operator_and_a_failing_copy_are_named(monkeypatch):
    device = PretendDevice()
    placed = PlacedModel(CONFIG, WEIGHTS, on_device(QKV), device)
    operator = placed.get_submodule(QKV)
    with monkeypatch.context() as patch:
        patch.setattr(operator, "forward", lambda x: 1 / 0)
        with pytest.raises(DeviceFault, match=f"device 'pretend' failed at {QKV}: ZeroDivisionError") as caught:
            placed.forward_full(IDS)
        assert (caught.value.operator, caught.value.device) == (QKV, "pretend")
    for name, at in (("_put", QKV), ("_fetch", ATTENTION)):
        with monkeypatch.context() as patch:
            patch.setattr(device, name, lambda tensor: 1 / 0)
            with pytest.raises(DeviceFault, match=f"failed at {at}"):
                placed.forward_full(IDS)
    assert torch.equal(placed.forward_full(IDS), LlamaModel(CONFIG, WEIGHTS).forward_full(IDS))


def test_what_fails_on_the_host_is_no_device_fault(monkeypatch):
    placed = PlacedModel(CONFIG, WEIGHTS, on_device(QKV), PretendDevice())
    monkeypatch.setattr(placed.get_submodule("lm_head"), "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        placed.forward_full(IDS)


class Client:
    def __init__(self):
        self.events, self.done = [], threading.Event()

    def __call__(self, event):
        self.events.append(event)
        if event.finish:
            self.done.set()


def ask(engine, rid, prompt):
    client = Client()
    engine.submit(
        GenerateRequest(rid, prompt, SamplingParams(max_new_tokens=4, temperature=0.0, ignore_eos=True)), client
    )
    assert client.done.wait(30)
    return client.events


@pytest.mark.parametrize("whole", [True, False], ids=["a plan", "operators alone"])
def test_an_engine_serves_a_placement_file(tmp_path, whole):
    path, prompt = tmp_path / "placement.json", tuple(range(40))
    if whole:
        Placement("drawn", drawn(1), 0.0, 0, 0).save(path)
    else:
        path.write_text(str(drawn(1)).replace("'", '"'))
    answers = []
    for fields in ({}, {"placement_path": str(path), "device": "pretend"}):
        engine = Engine(EngineConfig(str(tiny_model()), max_total_tokens=160, **fields))
        engine.start()
        try:
            answers.append([[e.token_id for e in ask(engine, rid, prompt)] for rid in "ab"])
        finally:
            engine.stop()
    assert answers[0] == answers[1]
    assert engine.scheduler.model.device.ledger.held == {}


def test_an_engine_outlives_its_device(tmp_path, monkeypatch):
    path, prompt = tmp_path / "placement.json", tuple(range(40))
    Placement("drawn", drawn(1), 0.0, 0, 0).save(path)
    engine = Engine(EngineConfig(str(tiny_model()), max_total_tokens=160, placement_path=str(path), device="pretend"))
    engine.start()
    try:
        whole = [e.token_id for e in ask(engine, "before", prompt)]
        device = engine.scheduler.model.device
        with monkeypatch.context() as patch:
            patch.setattr(device, "_put", lambda tensor: 1 / 0)
            ends = [event.finish for event in ask(engine, "during", prompt)]
        assert [(end.type, end.status) for end in ends] == [("abort", 503)]
        assert "device 'pretend' failed at" in ends[0].message
        assert engine.healthy
        after = ask(engine, "after", prompt)
        assert [e.token_id for e in after] == whole
        assert after[0].cached_tokens == 0, "what was cached on the device is forgotten"
        assert engine.stats().device_faults_total == 1
    finally:
        engine.stop()


def test_a_placement_that_does_not_fit_is_refused_at_the_start(tmp_path):
    path = tmp_path / "placement.json"
    path.write_text(str(on_device(QKV)).replace("'", '"'))
    config = EngineConfig(str(tiny_model()), max_total_tokens=160, placement_path=str(path), device="pretend")
    with pytest.raises(PlacementError, match=f"{QKV} needs"):
        Engine(replace(config, device_budget=1000))
    with pytest.raises(ValueError, match="device_budget must be >= 1, got 0"):
        Engine(replace(config, device_budget=0))
    with pytest.raises(PlacementError, match="cannot read the placement"):
        Engine(replace(config, placement_path=str(tmp_path / "none.json")))


@pytest.mark.parametrize(("fails", "comes_back"), [("_fetch", False), ("_put", True)], ids=["leaves", "comes back"])
def test_a_device_that_fails_while_a_page_moves(fails, comes_back, monkeypatch):
    """The one that is admitted is ended, once; its pages are free, and the same request is served afterwards."""
    target, device = load_inprocess(), PretendDevice()
    lab = PlacedTarget(target).lab(on_device(ATTENTION), device, page_size=16, max_total_tokens=64, host_kv_tokens=256)
    prompts = [mixed_prompt(name, 50) for name in "ab"]
    lab.ask("first", prompts[0], tops=False)
    if comes_back:
        lab.ask("second", prompts[1], tops=False)  # the first one's pages are in the host tier now
    prompt = prompts[0 if comes_back else 1]
    lab.add("moved", prompt, new=3, logprobs_from=49)
    with monkeypatch.context() as patch:
        patch.setattr(device, fails, lambda tensor: 1 / 0)
        lab.step()
    finish = lab.answers["moved"].finish
    assert finish is not None
    assert finish.message == f"device 'pretend' failed at {ATTENTION}: ZeroDivisionError: division by zero"
    assert not lab.scheduler.has_work
    assert lab.scheduler.kv.pool.free == lab.scheduler.kv.pool.total
    again = lab.ask("again", prompt, new=3, logprobs_from=49)
    assert again.ids == target.lab(page_size=16).ask("host", prompt, new=3).ids
    assert (again.hit > 0) == comes_back, "the host tier keeps what it has"
