"""What chunked_prefill refuses, what its tiers do when a disk does not, and the lanes that copies run on."""

import os
import threading

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from gaugeblock.reference.engine import _streamed_disk
from gaugeblock.reference.engine._streamed_disk import FolderTier, StoreTier
from gaugeblock.reference.engine._streamed_lanes import DelayedLane, InlineLane, ThreadLane, finish
from gaugeblock.reference.engine._streamed_plan import plan_stream
from gaugeblock.reference.engine._streamed_tiers import HostTier
from gaugeblock.reference.engine.chunked_prefill import PrefillError, chunked_prefill
from gaugeblock.reference.kv.disk.store import DiskStore

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
IDS = list(range(40))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (IDS, {"chunk_size": 0}, "chunk_size must be a whole number of tokens, at least 1, not 0"),
        (IDS, {"chunk_size": 2.5}, "not 2.5"),
        (IDS, {"chunk_size": True}, "not True"),
        (IDS, {"window": 0, "offload": "host"}, "window must be .* at least 1, not 0 .None: everything stays"),
        (
            IDS,
            {"window": 39},
            "would drop KV that full attention needs.*offload='host' or a folder, a window of at least 40",
        ),
        (IDS, {"offload": "host"}, "needs a window"),
        (IDS, {"window": 4, "offload": ""}, "give 'host' or the path of a folder"),
        (IDS, {"window": 4, "offload": 7}, "offload=7: give 'host'"),
        (IDS, {"overlap": "late"}, "give True, False, 'delayed'"),
        ([], {}, "the prompt is empty"),
        ([[1, 2], [3, 4]], {}, r"input_ids \[2, 2\]: one sequence a call"),
        ([1.5], {}, "must be integers"),
        (["a"], {}, "must be token ids"),
        ([0, 97], {}, "token ids must be 0 to 96, not 97"),
        ([-1], {}, "not -1"),
        ([1] * 65, {}, "65 tokens, the model's max_position_embeddings is 64"),
    ],
)
def test_bad_calls_name_what_is_legal(llama, ids, options, message):
    with pytest.raises(PrefillError, match=message):
        chunked_prefill(llama, ids, **{"chunk_size": 8, **options})
    assert llama.config._attn_implementation == "sdpa"


def test_a_window_of_the_prompts_length_needs_no_tier(llama):
    assert chunked_prefill(llama, IDS, 8, window=40).stats.bytes_out == 0


def test_a_window_below_the_models_own_is_refused():
    model = MistralForCausalLM(MistralConfig(sliding_window=20, head_dim=8, **SMALL)).eval()
    with pytest.raises(PrefillError, match="at least 19 tokens"):
        chunked_prefill(model, IDS, 8, window=18)
    assert max(chunked_prefill(model, IDS, 8, window=19).hot_tokens) == 27


def test_a_model_without_weights_is_refused():
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SMALL))
    with pytest.raises(PrefillError, match="weights on one device"):
        chunked_prefill(model, IDS, 8)


def test_attention_that_cannot_be_replaced_is_refused(llama, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "_can_set_attn_implementation", classmethod(lambda cls: False))
    with pytest.raises(PrefillError, match=r"cannot be replaced.*AttentionInterface"):
        chunked_prefill(llama, IDS, 8)


def test_another_architecture_works_or_says_why_not():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval()
    with torch.no_grad():
        wanted = model(torch.tensor([IDS]), use_cache=False).logits
    with chunked_prefill(model, IDS, 8, window=10, offload="host", all_logits=True) as result:
        torch.testing.assert_close(result.all_logits, wanted, atol=5e-5, rtol=1e-4)


def test_rotary_embeddings_that_depend_on_the_length_are_refused():
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = LlamaConfig(**SMALL, rope_parameters={**rope, "original_max_position_embeddings": 32})
    model = LlamaForCausalLM(config).eval()
    with pytest.raises(PrefillError, match="at most 32 tokens"):
        chunked_prefill(model, IDS, 8)
    chunked_prefill(model, IDS[:32], 8)


def test_a_streaming_step_takes_no_more_than_a_chunk(llama):
    with (
        chunked_prefill(llama, IDS, 8, window=10, offload="host") as result,
        result.streaming(),
        pytest.raises(PrefillError, match="chunk_size=8"),
    ):
        llama(torch.tensor([IDS[:9]]), past_key_values=result.cache)


def test_the_cache_refuses_what_it_cannot_do(llama):
    result = chunked_prefill(llama, IDS, 8)
    for call in (
        lambda: result.cache.crop(-1),
        lambda: result.cache.reorder_cache(torch.tensor([0])),
        lambda: result.cache.batch_repeat_interleave(2),
        result.cache.reset,
    ):
        with pytest.raises(PrefillError, match="a cache of chunked_prefill"):
            call()


def test_a_folder_that_cannot_be_written_is_refused(llama, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PrefillError, match="cannot be written"):
        chunked_prefill(llama, IDS, 8, window=10, offload=tmp_path / "file")


def test_files_go_when_the_result_is_closed(llama, tmp_path):
    with chunked_prefill(llama, IDS, 8, window=10, offload=tmp_path) as result:
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 2
        assert sum(file.stat().st_size for file in folder.iterdir()) == result.stats.bytes_out
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_the_call_and_leaves_nothing(llama, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(_streamed_disk.os, "pwrite", full)
    with pytest.raises(PrefillError, match=r"cannot write KV.*No space left"):
        chunked_prefill(llama, IDS, 8, window=10, offload=tmp_path)
    assert not list(tmp_path.iterdir())
    assert llama.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("overlap", [False, True])
def test_damaged_kv_is_an_error_and_never_data(llama, tmp_path, overlap):
    with chunked_prefill(llama, IDS, 8, window=10, offload=tmp_path, overlap=overlap) as result, torch.no_grad():
        (folder,) = tmp_path.iterdir()
        with (folder / "layer-0001.kv").open("r+b") as file:
            file.seek(100)
            byte = file.read(1)[0]
            file.seek(100)
            file.write(bytes([byte ^ 1]))
        with pytest.raises(PrefillError, match=r"KV of layer 1, tokens 0 to .* is damaged"):
            llama(torch.tensor([[1]]), past_key_values=result.cache)


def test_a_tier_of_the_callers_own(llama):
    class Counting(HostTier):
        calls = 0

        def store(self, layer, start, rows):
            self.calls += 1
            super().store(layer, start, rows)

    tier = Counting(CPU, 4, 4)
    with chunked_prefill(llama, IDS, 8, window=10, offload=tier) as result:
        wanted = chunked_prefill(llama, IDS, 8).logits
        torch.testing.assert_close(result.logits, wanted, atol=5e-5, rtol=1e-4)
        assert tier.calls == result.stats.copies_out > 0


@pytest.mark.parametrize("make", [lambda folder: HostTier(CPU, 5, 3), lambda folder: FolderTier(folder, CPU)])
def test_tiers_return_the_bytes_of_each_run(make, tmp_path):
    tier = make(tmp_path)
    rows = torch.randn(20, 2, 2, 4, dtype=torch.bfloat16)
    runs = [(0, 4), (4, 11), (11, 12), (12, 20)]
    for layer in (0, 3):
        for start, stop in runs:
            tier.store(layer, start, rows[start:stop] + layer)
    for layer in (3, 0):
        for first in range(4):
            for last in range(first, 4):
                group = runs[first : last + 1]
                into = torch.full((group[-1][1] - group[0][0], 2, 2, 4), torch.nan, dtype=torch.bfloat16)
                tier.load(layer, group, into)
                assert torch.equal(into, rows[group[0][0] : group[-1][1]] + layer)
    tier.close()
    assert not list(tmp_path.iterdir())


def test_a_disk_store_holds_the_pages_of_a_call_until_it_is_closed(llama, tmp_path):
    store = DiskStore(tmp_path / "store", "tests")
    with chunked_prefill(llama, IDS, 8, window=10, offload=store) as result:
        torch.testing.assert_close(result.logits, chunked_prefill(llama, IDS, 8).logits, atol=5e-5, rtol=1e-4)
        assert len(store.entries()) == result.stats.copies_out > 0
        assert store.bytes_written == result.stats.bytes_out
        assert store.bytes_read == result.stats.bytes_in
    assert store.entries() == []
    store.close()


def test_a_page_that_is_gone_from_a_store_is_an_error(tmp_path):
    store = DiskStore(tmp_path / "store", "tests")
    tier = StoreTier(store, CPU)
    tier.store(2, 0, torch.ones(3, 2, 2, 4))
    store.delete([page.key for page in store.entries()])
    with pytest.raises(PrefillError, match="KV of layer 2, tokens 0 to 3, is damaged in the disk store"):
        tier.load(2, [(0, 3)], torch.empty(3, 2, 2, 4))
    store.close()


def test_a_delayed_lane_runs_in_order_and_only_when_waited_for():
    lane, done = DelayedLane(), []
    jobs = [lane.run(lambda n=n: done.append(n)) for n in range(4)]
    assert done == []
    finish(jobs[2])
    assert done == [0, 1, 2]
    finish(jobs[1])
    assert done == [0, 1, 2]
    lane.close()


@pytest.mark.parametrize("lane", [InlineLane(), ThreadLane(), DelayedLane()])
def test_a_job_that_fails_tells_who_waits(lane):
    def fail():
        raise PrefillError("broken")

    with pytest.raises(PrefillError, match="broken"):
        finish(lane.run(fail))
    lane.close()


def test_a_copy_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr("gaugeblock.reference.engine._streamed_lanes.TIMEOUT", 0.01)
    lane, gate = ThreadLane(), threading.Event()
    try:
        with pytest.raises(PrefillError, match="did not end"):
            finish(lane.run(lambda: gate.wait(10)))
    finally:
        gate.set()
        lane.close()


def test_a_disk_that_hangs_ends_the_call_and_its_files_stay_open_for_it(llama, tmp_path, monkeypatch):
    """A file descriptor that is closed under a hanging write may be another file's when the write goes on."""
    monkeypatch.setattr("gaugeblock.reference.engine._streamed_lanes.TIMEOUT", 0.2)
    monkeypatch.setattr("gaugeblock.reference.engine._streamed_lanes.CLOSE_SECONDS", 0.2)
    go, tiers, real = threading.Event(), [], FolderTier._write

    def hanging(self, *args):
        tiers.append(self)
        assert go.wait(60)
        real(self, *args)

    monkeypatch.setattr(FolderTier, "_write", hanging)
    with pytest.raises(PrefillError, match="did not end within"):
        chunked_prefill(llama, list(range(40)), 4, window=8, offload=tmp_path)
    assert tiers[0].folder.is_dir()
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("chunked-prefill-copies"):
            thread.join(30)
    tiers[0].close()
    assert not tiers[0].folder.exists()


def test_no_thread_is_left(llama):
    before = threading.active_count()
    with chunked_prefill(llama, IDS, 8, window=10, offload="host"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


@pytest.mark.parametrize("layers", [1, 2, 5, 30])
def test_the_plan_fits_its_budget_whatever_the_sizes(layers):
    for window in (1, 2, 3, 8, 100, 1000, 4096):
        for chunk in (1, 2, 7, 64, 512):
            plan = plan_stream(window, chunk, layers)
            assert plan.piece >= 1
            assert plan.buffers in (1, 2)
            assert 0 <= plan.keep <= window
            total = plan.limit * layers + plan.buffers * plan.piece
            assert total <= 1.05 * (window + chunk) * layers, (window, chunk, plan)


def test_a_deep_model_gives_up_nothing_of_its_window():
    plan = plan_stream(1024, 512, 30)
    assert (plan.keep, plan.piece, plan.buffers) == (1024, 1152, 2)
