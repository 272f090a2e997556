"""The embedded model is the one that its provenance describes, and good enough to stand for a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from gaugeblock import golden

FOLDER = Path(next(iter(golden.__path__))) / "tiny-llama"
BOS, EOS, IM_START, IM_END, PAD = range(256, 261)
CHAT = [{"role": "user", "content": "Repeat: hello 日本 world"}]


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True, dtype=torch.float32).eval()


def test_every_file_has_the_digest_of_the_provenance() -> None:
    digests = read("provenance.json")["sha256"]
    files = {p.name for p in FOLDER.iterdir() if not p.name.lower().startswith("provenance")}
    assert set(digests) == files
    for name, digest in digests.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


def test_size(model: Any) -> None:
    assert sum(p.numel() for p in model.parameters()) == read("provenance.json")["parameters"] == 3_033_344
    assert (FOLDER / "model.safetensors").stat().st_size < 8_000_000


@pytest.mark.parametrize(("source", "bound"), [("text", 1.6), ("repeat", 0.5), ("chat", 1.2)])
def test_held_out_loss_is_far_below_the_uniform_one(model: Any, source: str, bound: float) -> None:
    # Second halves: a repetition starts with random strings that nothing predicts. The bounds leave room for two short
    # rows; provenance.json has the loss of 64 long ones. Uniform is 5.77.
    losses = []
    for row in read("heldout.json"):
        if row["source"] == source:
            ids = torch.tensor(row["ids"])
            with torch.inference_mode():
                logits = model(ids[None, :-1]).logits[0]  # [tokens - 1, vocab]
            losses.append(cross_entropy(logits, ids[1:], reduction="none")[len(ids) // 2 :])
    assert len(losses) == 2
    mean = torch.cat(losses).mean().item()
    assert mean < bound


def test_a_plain_prompt_gets_one_bos_and_bytes_are_ids(tokenizer: Any) -> None:
    assert tokenizer.encode("hé") == [BOS, *"hé".encode()]
    assert tokenizer.encode("hé", add_special_tokens=False) == [*"hé".encode()]
    assert tokenizer.model_max_length == 2048
    assert len(tokenizer) == read("config.json")["vocab_size"] == 320


@pytest.mark.parametrize("text", [bytes(range(128)).decode(), " lead  a ,b .\n\n\tend ", "日本語 héllo 🙂👍🏽 ½ ñ"])
def test_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_chat_template_in_both_places(tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|bos|><|im_start|>user\nRepeat: hello 日本 world<|im_end|>\n<|im_start|>assistant\n"
    assert read("tokenizer_config.json")["chat_template"] == (FOLDER / "chat_template.jinja").read_text("utf-8")
    ids = tokenizer.encode(rendered, add_special_tokens=False)
    assert ids[:2] == [BOS, IM_START]
    assert ids.count(BOS) == ids.count(IM_END) == 1


def test_greedy_chat_obeys_and_ends(model: Any, tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40)[0, ids.shape[1] :].tolist()
    assert tokenizer.decode(out) == "hello 日本 world<|im_end|>"
    assert read("generation_config.json")["eos_token_id"] == read("config.json")["eos_token_id"] == [IM_END, EOS]
