"""The forward pass against transformers in fp32."""

import pytest
import torch
from transformers import LlamaForCausalLM

from gaugeblock.reference.engine.batch import Span, build_batch
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.kv.storage import KVShape, KVStorage

# fp32 sums of at most a few hundred terms in another order; logits here reach about 20.
ATOL = 1e-4


def load(folder):
    config = load_config(folder)
    return LlamaModel(config, load_weights(folder, config))


def expected(folder, ids):
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(ids[None]).logits[0]


VARIANTS = {
    "grouped-query": {},
    "tied": {"tie_word_embeddings": True},
    "multi-head": {"num_key_value_heads": 4},
    "multi-query": {"num_key_value_heads": 1},
    "derived head_dim": {"head_dim": None},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "eps": {"rms_norm_eps": 1e-2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_transformers(variant, make_model, tmp_path):
    folder = make_model(tmp_path, **VARIANTS[variant])
    ids = torch.randint(0, 256, (70,), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(load(folder).forward_full(ids), expected(folder, ids), atol=ATOL, rtol=0)


def test_golden_logits_equal_transformers(golden):
    ids = torch.tensor(list(b"def main() -> None:\n    return the value of the list"))
    torch.testing.assert_close(load(golden).forward_full(ids), expected(golden, ids), atol=ATOL, rtol=0)


def storage_for(model, pages):
    c = model.config
    return KVStorage(KVShape(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, 4), pages)


def paged_logits(model, storage, spans):
    spans = [Span(s.tokens, s.start, s.pages, range(len(s.tokens))) for s in spans]
    batch = build_batch(spans, 4, storage.pad_page)
    return model.logits(model.forward(batch, storage))


def test_scattered_pages_and_mixed_batches_equal_one_plain_sequence(folder):
    model = load(folder)
    storage = storage_for(model, 40)
    storage.k.fill_(1e3)  # what an earlier owner left must not be seen
    storage.v.fill_(1e3)
    a, b = (torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n)) for n in (23, 37))
    pages = torch.randperm(40, generator=torch.Generator().manual_seed(3)).tolist()
    first, second = pages[:6], pages[6:16]
    cuts_a, cuts_b = (0, 1, 9, 10, 23), (0, 16, 17, 36, 37)
    got_a, got_b = [], []
    for step in range(4):
        spans = [
            Span(a[cuts_a[step] : cuts_a[step + 1]].tolist(), cuts_a[step], first),
            Span(b[cuts_b[step] : cuts_b[step + 1]].tolist(), cuts_b[step], second),
        ]
        rows = paged_logits(model, storage, spans)
        got_a.append(rows[: len(spans[0].tokens)])
        got_b.append(rows[len(spans[0].tokens) :])
    torch.testing.assert_close(torch.cat(got_a), model.forward_full(a), atol=ATOL, rtol=0)
    torch.testing.assert_close(torch.cat(got_b), model.forward_full(b), atol=ATOL, rtol=0)


def test_single_tokens_of_different_lengths_share_one_call(folder):
    model = load(folder)
    storage = storage_for(model, 64)
    lengths = (1, 3, 4, 5, 20, 33)
    prompts = [torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]
    tables = [list(range(i * 9, i * 9 + 9)) for i in range(len(lengths))]
    for prompt, table in zip(prompts, tables, strict=True):
        if len(prompt) > 1:
            paged_logits(model, storage, [Span(prompt[:-1].tolist(), 0, table)])
    spans = [Span([int(p[-1])], len(p) - 1, t) for p, t in zip(prompts, tables, strict=True)]
    want = torch.stack([model.forward_full(p)[-1] for p in prompts])
    torch.testing.assert_close(paged_logits(model, storage, spans), want, atol=ATOL, rtol=0)
