"""Sliding windows against transformers' Mistral: every path, every chunking, and the KV that is held meanwhile."""

import json
import queue
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, MistralForCausalLM

from gaugeblock.reference.engine.batch import Span, build_batch, sliding_pages
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, RequestError, SamplingParams, TokenEvent

ATOL = 1e-4  # as without a window: fp32 sums in another order, over logits of about 20
WINDOWS = (1, 2, 5, 15, 16, 17, 69, 70, 71, 4096)


@pytest.fixture(scope="module")
def mistral_folder(make_model, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("mistral"), sliding_window=16)


@pytest.fixture(scope="module")
def mistral(mistral_folder):
    """Return transformers' logits of [tokens] ids under a window: its mask follows the config at every call."""
    model = MistralForCausalLM.from_pretrained(mistral_folder).eval()

    def logits(ids, window):
        model.config.sliding_window = window
        with torch.inference_mode():
            return model(torch.tensor(ids)[None]).logits[0]

    return logits


@pytest.fixture(scope="module")
def slide(mistral_folder, make_lab):
    return lambda window, **fields: make_lab(mistral_folder, window=window, **fields)


def tokens(length, seed=7):
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("window", [*WINDOWS, None])
def test_one_plain_pass_equals_transformers(make_model, mistral, tmp_path, window):
    folder = make_model(tmp_path, sliding_window=window)
    config = load_config(folder)
    assert (config.architectures, config.sliding_window) == (("MistralForCausalLM",), window)
    ids = tokens(70)
    got = LlamaModel(config, load_weights(folder, config)).forward_full(torch.tensor(ids))
    torch.testing.assert_close(got, mistral(ids, window), atol=ATOL, rtol=0)
    changed = (got - mistral(ids, None)).abs().max()
    assert (changed > 0.1) == (window is not None and window < 70), f"a window of {window} moves logits by {changed}"


def test_without_a_window_it_is_a_llama(mistral_folder, mistral):
    ids = tokens(70)
    with torch.inference_mode():
        want = LlamaForCausalLM.from_pretrained(mistral_folder).eval()(torch.tensor(ids)[None]).logits[0]
    torch.testing.assert_close(mistral(ids, None), want, atol=ATOL, rtol=0)


def test_a_config_that_does_not_say_has_mistrals_own_window(mistral_folder, tmp_path):
    copy = shutil.copytree(mistral_folder, tmp_path / "copy")
    raw = json.loads((copy / "config.json").read_text())
    del raw["sliding_window"]
    (copy / "config.json").write_text(json.dumps(raw))
    assert load_config(copy).sliding_window == MistralForCausalLM.config_class().sliding_window == 4096


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 60), chunk=st.integers(1, 70), window=st.integers(1, 70), page=st.sampled_from([1, 3, 4, 16])
)
def test_any_chunk_and_window_give_transformers_logprobs_within_the_hot_set(
    slide, mistral, length, chunk, window, page
):
    hot = sliding_pages(window, chunk, page)
    total = length + 6
    pool = min(hot, -(-total // page))
    lab = slide(window, page_size=page, chunked_prefill_size=chunk, max_total_tokens=pool * page)
    answer = lab.ask("a", tokens(length), max_new_tokens=6, logprob_start_len=0)
    full = [*tokens(length), *answer.ids]
    want = mistral(full, window).log_softmax(-1)[:-1].gather(1, torch.tensor(full[1:])[:, None])[:, 0]
    got = torch.tensor([*answer.prompt_logprobs[1:], *answer.logprobs])
    torch.testing.assert_close(got, want, atol=ATOL, rtol=0)
    assert sum(n for plan in lab.plans for _, n in plan) == total - 1, "each token once: nothing was retracted"
    assert max(lab.held) <= pool
    lab.at_rest()


def test_a_long_prompt_needs_no_more_pages_than_a_short_one(slide):
    lab = slide(16, page_size=4, chunked_prefill_size=7)
    lab.ask("a", tokens(400), max_new_tokens=40)
    assert max(lab.held) == sliding_pages(16, 7, 4) == 7
    assert max(lab.held[-39:]) == sliding_pages(16, 1, 4) == 5, "while it decodes, the window alone"


@pytest.mark.parametrize(
    ("window", "chunk", "page", "pages"), [(1, 1, 1, 1), (1, 1, 16, 1), (2, 1, 16, 2), (4, 4, 4, 3)]
)
def test_hot_pages_are_the_most_that_the_positions_can_touch(window, chunk, page, pages):
    count = window - 1 + chunk
    touched = max((start + count - 1) // page - start // page + 1 for start in range(page))
    assert sliding_pages(window, chunk, page) == touched == pages


def test_a_prompt_within_the_window_is_cached_and_a_longer_one_takes_nothing(slide):
    lab = slide(24, page_size=4, chunked_prefill_size=8)
    short = tokens(20)
    cold = lab.ask("cold", short, max_new_tokens=4)
    warm = lab.ask("warm", short, max_new_tokens=4)
    assert (warm.events[0].cached_tokens, warm.ids) == (16, cold.ids)
    longer = lab.ask("longer", short, max_new_tokens=5)
    assert (longer.events[0].cached_tokens, longer.ids[:4]) == (0, cold.ids), "one token more, and the window slides"
    long = lab.ask("long", [*short, *tokens(40)], max_new_tokens=5)
    assert long.events[0].cached_tokens == 0
    lab.at_rest()
    assert lab.ask("again", short, max_new_tokens=4).events[0].cached_tokens == 16


def test_many_share_a_pool_that_holds_few(slide):
    alone = {n: slide(10).ask("a", tokens(n, n), max_new_tokens=16).ids for n in (2, 3, 5, 40, 4, 61, 7)}
    lab = slide(10, page_size=4, chunked_prefill_size=12, max_total_tokens=4 * sliding_pages(10, 12, 4))
    for n in alone:
        lab.add(str(n), tokens(n, n), max_new_tokens=16)
    assert {int(rid): answer.ids for rid, answer in lab.run().items()} == alone
    assert lab.scheduler.stats.retracted_total > 0, "the pool was never short: nothing was checked"
    lab.at_rest()


def test_a_pool_of_the_hot_set_serves_a_context_of_any_length(mistral_folder):
    config = EngineConfig(str(mistral_folder), page_size=4, chunked_prefill_size=8, max_total_tokens=28)
    assert Engine(config).context_len == 512
    smaller = EngineConfig(str(mistral_folder), page_size=4, chunked_prefill_size=8, max_total_tokens=24)
    assert Engine(smaller).context_len == 24


def test_an_engine_serves_a_prompt_of_many_times_its_pool(mistral_folder, slide):
    prompt = tokens(300)
    engine = Engine(EngineConfig(str(mistral_folder), page_size=4, chunked_prefill_size=8, max_total_tokens=28))
    events: queue.SimpleQueue[TokenEvent] = queue.SimpleQueue()
    engine.start()
    try:
        sampling = SamplingParams(max_new_tokens=10, temperature=0.0, ignore_eos=True)
        engine.submit(GenerateRequest("long", tuple(prompt), sampling), events.put)
        answer = [events.get(timeout=30).token_id for _ in range(10)]
        assert answer == slide(16).ask("a", prompt, max_new_tokens=10).ids
        with pytest.raises(RequestError, match="exceed the context of 512"):
            engine.submit(GenerateRequest("longer", tuple(tokens(510)), sampling), events.put)
    finally:
        engine.stop()
    stats = engine.stats()
    assert (stats.total_tokens, stats.free_tokens, stats.retracted_total) == (28, 28, 0)


def test_every_row_sees_itself_and_no_padding():
    spans = [Span([1], start, range(50), window=7) for start in (0, 3, 6, 7, 40)]
    spans += [Span([1] * 9, start, range(50), window=7) for start in (0, 5, 31)]
    batch = build_batch(spans, 4, pad_page=50)
    assert batch.mask[:, 0, 0].sum(-1).tolist() == [1, 4, 7, 7, 7]
    assert not batch.mask[:, 0, 0][batch.tables.repeat_interleave(4, dim=1) == 50].any()
    for chunk, span in zip(batch.chunks, spans[5:], strict=True):
        assert chunk.mask.sum(-1).tolist() == [min(7, position + 1) for position in range(span.start, span.end)]
