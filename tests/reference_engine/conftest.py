"""Tiny random Llama and Mistral folders, transformers as the oracle, and a scheduler that is stepped by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from gaugeblock.reference.engine.build import build_scheduler
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.scheduler import Scheduler
from gaugeblock.reference.engine.sequence import Sequence
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, SamplingParams, TokenEvent

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tiny-llama"
SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>")
EOS = 258
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}\n<|{{ m['role'] }}|>{{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STEP_LIMIT = 5000  # far more than any test needs: a livelock fails instead of hanging


def byte_tokenizer() -> RawTokenizer:
    """256 bytes as a merge-free BPE, then five special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = RawTokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def save_model(folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> Path:
    """Save a random model; its wide weights make logits peaked, so that greedy picks are no near-ties.

    One with a ``sliding_window`` (None, too) is a Mistral, any other a Llama.
    """
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "vocab_size": 272,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "bos_token_id": 257,
        "eos_token_id": EOS,
        "pad_token_id": 256,
        **fields,
    }
    mistral = "sliding_window" in fields
    config = MistralConfig(**settings) if mistral else LlamaConfig(**settings)
    (MistralForCausalLM if mistral else LlamaForCausalLM)(config).to(dtype).save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    named = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[0]}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


@dataclass
class Answer:
    """What came of one request."""

    events: list[TokenEvent] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [e.token_id for e in self.events if e.token_id is not None]

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events)

    @property
    def finish(self):
        return self.events[-1].finish

    @property
    def logprobs(self) -> list[float | None]:
        return [e.logprob for e in self.events]

    @property
    def prompt_logprobs(self) -> list[float | None]:
        return [value for value, _ in self.events[0].input_token_logprobs]


class Lab:
    """A scheduler without a thread. Every step is followed by a recount of the KV cache."""

    def __init__(self, folder: Path, window: int | None = None, **fields: object) -> None:
        self.config = EngineConfig(str(folder), **fields)
        self.model_config = replace(load_config(folder), sliding_window=window)
        self.scheduler: Scheduler = build_scheduler(self.config, self.model_config, folder)
        self.tokenizer = Tokenizer(str(folder))
        self.answers: dict[str, Answer] = {}
        self.plans: list[list[tuple[str, int]]] = []
        self.held: list[int] = []  # pages held while each step computes
        self._plan = self.scheduler.plan
        self.scheduler.plan = self._recorded_plan

    def _recorded_plan(self):
        plan = self._plan()
        self.plans.append([(work.sequence.rid, work.length) for work in plan])
        self.held.append(self.scheduler.kv.pool.held)
        return plan

    def add(self, rid: str, prompt: list[int], **options: object) -> Sequence:
        logprobs = {k: options.pop(k) for k in ("logprob_start_len", "top_logprobs_num") if k in options}
        sampling = SamplingParams(**{"temperature": 0.0, "max_new_tokens": 8, "ignore_eos": True, **options})
        request = GenerateRequest(rid, tuple(prompt), sampling, return_logprob=True, **logprobs)
        sequence = Sequence(request, lambda event: None, self.tokenizer, self.tokenizer.eos_token_ids)
        self.answers[rid] = Answer()
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> None:
        self.take(self.scheduler.step())

    def take(self, events) -> None:
        for sequence, event in events:
            self.answers[sequence.rid].events.append(event)
        self.scheduler.kv.recount()

    def run(self) -> dict[str, Answer]:
        for _ in range(STEP_LIMIT):
            if not self.scheduler.has_work:
                return self.answers
            self.step()
        raise AssertionError(f"no end after {STEP_LIMIT} steps: {self.scheduler.count()}")

    def ask(self, rid: str, prompt: list[int], **options: object) -> Answer:
        self.add(rid, prompt, **options)
        return self.run()[rid]

    def at_rest(self) -> None:
        stats = self.scheduler.count()
        assert stats.running == stats.queued == 0, stats
        assert stats.free_tokens + stats.cached_tokens == stats.total_tokens, stats


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def oracle(folder) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN  # it ships with the kit: without it the tests fail, and must


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    return save_model


@pytest.fixture(scope="session")
def make_lab() -> Callable[..., Lab]:
    return Lab


@pytest.fixture
def lab(folder) -> Callable[..., Lab]:
    return lambda **fields: Lab(folder, **fields)


@pytest.fixture(scope="session")
def prompts() -> dict[int, list[int]]:
    """Random prompts by length, around every boundary of a page of 16 and a chunk of 64."""
    generator = torch.Generator().manual_seed(1)
    lengths = (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200)
    return {n: torch.randint(0, 256, (n,), generator=generator).tolist() for n in lengths}
