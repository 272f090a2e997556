"""What a chunk costs the host: operators started, beside transformers' own cache. Counted, so that no clock decides."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from gaugeblock.reference.engine import _streamed_layer
from gaugeblock.reference.engine._streamed_attention import Merged
from gaugeblock.reference.engine.chunked_prefill import chunked_prefill

LAYERS = 3
CHUNK = 4
CHUNKS = 5


class Operators(TorchDispatchMode):
    """The operators that compute or view, in their order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=97, num_hidden_layers=LAYERS, **small)).eval()


def started(call):
    with Operators() as seen:
        call()
    return len(seen.names)


def in_chunks_of_transformers(model, ids):
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        for start in range(0, ids.shape[1], CHUNK):
            model(ids[:, start : start + CHUNK], past_key_values=cache, use_cache=True, logits_to_keep=1)


def test_a_chunk_starts_fewer_operators_than_with_transformers_own_cache(llama, monkeypatch):
    """Where one call attends to all keys, as a GPU's FlashAttention does. Views count: on a host they cost as much."""
    ids = torch.randint(97, (1, CHUNKS * CHUNK))
    theirs = started(lambda: in_chunks_of_transformers(llama, ids))

    def attend_at_once(q, k, v, *, causal, scale):  # what that kernel is called with, whatever it answers
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, scale=scale)

    monkeypatch.setattr(_streamed_layer, "takes_lower_right", lambda q: True)
    monkeypatch.setattr(_streamed_layer, "attend", attend_at_once)
    ours = started(lambda: chunked_prefill(llama, ids, CHUNK).close())
    assert ours < theirs, f"{ours} operators, transformers alone {theirs}"


@pytest.mark.parametrize("segments", [2, 10])
def test_merging_segments_takes_five_operators_however_many_they_are(segments):
    merged = Merged()
    for _ in range(segments):
        merged.add(torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3))
    with Operators() as seen:
        merged.result()
    assert sorted(name for name in seen.names if name != "unsqueeze") == ["_softmax", "mul", "stack", "stack", "sum"]
