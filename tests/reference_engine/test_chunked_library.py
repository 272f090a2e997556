"""chunked_prefill against the same transformers model called once."""

import gc
import warnings
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from gaugeblock.reference.engine.chunked_prefill import chunked_prefill

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
TOKEN_BYTES = 3 * 2 * 2 * 8 * 4  # layers, K and V, heads, head_dim, fp32


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


@pytest.fixture(scope="module")
def mistral():
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(sliding_window=9, head_dim=8, **SMALL)).eval()


@pytest.fixture(scope="module")
def mixed():
    """Full attention below, a sliding window above."""
    torch.manual_seed(0)
    config = Qwen2Config(use_sliding_window=True, sliding_window=9, max_window_layers=1, **SMALL)
    return Qwen2ForCausalLM(config).eval()


def prompt_of(length, seed=0):
    return torch.randint(0, 97, (length,), generator=torch.Generator().manual_seed(seed))


def once(model, ids):
    with torch.no_grad():
        return model(ids[None], use_cache=False).logits


def close(got, wanted):
    torch.testing.assert_close(got, wanted, atol=5e-4, rtol=1e-4)


sizes = st.integers(1, 40)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 60), chunk=sizes, window=sizes, overlap=st.sampled_from([False, True, "delayed"]))
def test_any_window_gives_one_shot_within_its_memory(llama, length, chunk, window, overlap):
    ids = prompt_of(length)
    with chunked_prefill(
        llama, ids, chunk, window=window, offload="host", overlap=overlap, all_logits=True, prompt_logprobs=True
    ) as result:
        wanted = once(llama, ids)
        close(result.all_logits, wanted)
        close(result.logits, wanted[:, -1])
        close(result.prompt_logprobs, wanted[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0])
        assert result.peak_kv_bytes <= 1.05 * (window + chunk) * TOKEN_BYTES
        assert max(result.hot_tokens) <= window + chunk
        assert len(result.hot_tokens) == len(result.hot_kv_bytes) == result.stats.steps == -(-length // chunk)
        assert max(result.hot_kv_bytes) <= result.peak_kv_bytes


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 60), chunk=sizes)
def test_a_sliding_window_drops_what_it_hides(mistral, length, chunk):
    ids = prompt_of(length)
    result = chunked_prefill(mistral, ids, chunk, all_logits=True)
    close(result.all_logits, once(mistral, ids))
    assert result.peak_kv_bytes <= min(8 + chunk, length) * TOKEN_BYTES
    assert result.stats.bytes_out == 0


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(20, 60), chunk=sizes, window=st.integers(8, 30))
def test_layers_of_both_kinds(mixed, length, chunk, window):
    ids = prompt_of(length)
    with chunked_prefill(mixed, ids, chunk, window=window, offload="host", all_logits=True) as result:
        assert [layer.is_sliding for layer in result.cache.layers] == [False, True, True]
        close(result.all_logits, once(mixed, ids))
        assert result.peak_kv_bytes <= 1.05 * (window + chunk) * TOKEN_BYTES


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["llama", "mistral", "mixed"]),
    chunk=st.integers(2, 20),
    steps=st.lists(st.booleans(), max_size=8),
)
def test_decoding_goes_on_in_any_mixture_of_both_attentions(request, kind, chunk, steps):
    model = request.getfixturevalue(kind)
    text = prompt_of(30 + 2 * len(steps))
    window = {"llama": {"window": 11, "offload": "host"}, "mistral": {}, "mixed": {"window": 11, "offload": "host"}}[
        kind
    ]
    with chunked_prefill(model, text[:30], chunk, **window) as result, torch.no_grad():
        for number, streaming in enumerate(steps):
            ids = text[None, 30 + 2 * number :][:, :2]
            if streaming:
                with result.streaming():
                    out = model(ids, past_key_values=result.cache)
            else:
                out = model(ids, past_key_values=result.cache)
            close(out.logits, once(model, text[: 32 + 2 * number])[:, -2:])
        assert result.cache.get_seq_length() == len(text)


def test_generate_takes_the_cache(llama):
    ids = prompt_of(40)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with warnings.catch_warnings(), chunked_prefill(llama, ids[:-1], 8, window=10, offload="host") as result:
        warnings.simplefilter("ignore")  # of generate's own settings
        wanted = llama.generate(ids[None], **options)
        assert llama.generate(ids[None], past_key_values=result.cache, **options).tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_as_close_as_its_own_rounding(dtype):
    torch.manual_seed(0)
    config = LlamaConfig(**{**SMALL, "initializer_range": 0.1})
    model, ids = LlamaForCausalLM(config).to(dtype).eval(), prompt_of(60)
    with chunked_prefill(model, ids, 16, window=16, offload="host", all_logits=True) as result:
        assert result.logits.dtype == dtype
        with torch.no_grad():
            wanted = model.float()(ids[None], use_cache=False).logits
    assert (result.all_logits.float() - wanted).abs().max() < 40 * torch.finfo(dtype).eps * wanted.abs().max()


def test_kv_is_the_same_bytes_wherever_it_was(llama):
    ids = prompt_of(50)
    plain = chunked_prefill(llama, ids, 10)
    with chunked_prefill(llama, ids, 10, window=10, offload="host") as streamed:
        for layer in range(3):
            pairs = zip(plain.cache.read(layer), streamed.cache.read(layer), strict=True)
            if layer == 0:  # no attention below it: nothing was summed in another order
                assert all(torch.equal(a, b) for a, b in pairs)
            else:
                for a, b in pairs:
                    close(a, b)


def test_the_model_is_left_as_it_was(llama):
    before = llama.config._attn_implementation
    ids = prompt_of(20)
    wanted = once(llama, ids)
    chunked_prefill(llama, ids, 5)
    assert llama.config._attn_implementation == before
    assert torch.equal(once(llama, ids), wanted)


def test_works_in_inference_mode_and_decodes_outside_of_it(llama):
    text = prompt_of(40)
    with torch.inference_mode():
        result = chunked_prefill(llama, text[:30], 7, window=9, offload="host")
    with result, result.streaming():
        out = llama(text[None, 30:37], past_key_values=result.cache)  # with gradients, which the cache does not take
    close(out.logits.detach(), once(llama, text[:37])[:, -7:])


def test_statistics_count_what_moved(llama):
    with chunked_prefill(llama, prompt_of(50), 10, window=10, offload="host", overlap=False) as result:
        stats = result.stats
        left = sum(stop - start for layer in result.cache.layers for start, stop in layer.runs)
        assert stats.bytes_out == left * TOKEN_BYTES // 3 > 0
        assert stats.copies_out > 0
        assert stats.bytes_in > stats.bytes_out
        assert stats.pieces == stats.copies_in
        assert stats.transfer_seconds == pytest.approx(stats.waited_seconds)
        assert stats.overlap_efficiency == 0
    assert chunked_prefill(llama, prompt_of(5), 10).stats.overlap_efficiency is None


def test_closing_frees_the_memory_without_a_garbage_collection(llama):
    gc.collect()
    gc.disable()
    try:
        with chunked_prefill(llama, prompt_of(40), 8) as result:
            rings = [weakref.ref(layer.ring) for layer in result.cache.layers]
            assert all(ring() is not None and ring().numel() for ring in rings)
        assert not any(ring() is not None for ring in rings), "the keys and values outlive their prefill"
    finally:
        gc.enable()
