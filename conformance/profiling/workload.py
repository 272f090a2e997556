"""A model from a folder, and the work that is profiled: one prefill, then decode steps, always over the same tokens.

The tokens of the decode steps are fixed, not sampled: every variant of the model does the same work, and two variants
can be compared position by position.
"""

from __future__ import annotations

import inspect
import logging
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gaugeblock.conformance.profiling.trace import PHASE
from gaugeblock.fixtures.embedded import given_model
from gaugeblock.fixtures.errors import EnvironmentFault, KitError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SEED = 0
RECORDED = 3
"""Runs of which the fastest is recorded, and runs of which the median is the wall time."""


@dataclass(frozen=True)
class Workload:
    """Token ids ``[1, prompt + decode]`` on the model's device; the first ``prompt`` are one prefill."""

    ids: torch.Tensor
    prompt: int

    @property
    def decode(self) -> int:
        """Decode steps."""
        return int(self.ids.shape[1]) - self.prompt


@dataclass(frozen=True)
class Seconds:
    """Wall time of the prefill, and of one decode step."""

    prefill: float
    decode: float


def load_model(folder: Path, dtype: str, device: str) -> Any:
    """Load a transformers model for inference.

    Raises:
        KitError: no model folder, or transformers cannot read it.
        EnvironmentFault: no GPU for ``device`` cuda.
    """
    given_model(folder)
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault("--device cuda: PyTorch sees no GPU here; use --device cpu")
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers ships no types
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=DTYPES[dtype])
    except Exception as error:  # transformers raises whatever its parts raise
        line = str(error).strip().partition("\n")[0]
        raise KitError(f"transformers cannot load {str(folder)!r}: {type(error).__name__}: {line}") from None
    return model.eval().to(device)  # type: ignore[no-untyped-call] # transformers ships no types


def make_workload(model: Any, prompt: int, decode: int) -> Workload:
    """Return random token ids, drawn on the CPU: the same on every device.

    Raises:
        KitError: more tokens than the model has positions, or too few to measure.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if prompt < 2 or decode < 1:
        raise KitError(f"{prompt} prompt and {decode} decode tokens: give at least 2 and 1")
    if limit is not None and prompt + decode > limit:
        raise KitError(f"{prompt} prompt and {decode} decode tokens are more than the model's {limit} positions")
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(0, model.config.vocab_size, (1, prompt + decode), generator=generator)
    return Workload(ids.to(model.device), prompt)


def synchronize(device: torch.device | str) -> None:
    """Wait for the GPU; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def run(
    model: Any,
    work: Workload,
    *,
    annotate: bool = False,
    every_position: bool = False,
    before_step: Callable[[], object] = lambda: None,
) -> tuple[Seconds, list[torch.Tensor]]:
    """Run prefill and decode; return the times and the logits ``[1, tokens, vocab]`` of every step.

    ``annotate`` marks the phases in a profile. Logits of the prompt are those of its last token alone, as a server
    computes them, unless ``every_position``. The device is waited for at the end of each phase only. ``before_step`` is
    called before the prefill and before each decode step.
    """
    device = model.device
    keep = {"logits_to_keep": 1} if not every_position and _keeps(model) else {}
    prompt, following = work.ids[:, : work.prompt], work.ids[:, work.prompt :]
    synchronize(device)
    start = time.perf_counter()
    with _phase("prefill", annotate):
        before_step()
        out = model(prompt, use_cache=True, **keep)
        logits = [out.logits]
        synchronize(device)
    middle = time.perf_counter()
    with _phase("decode", annotate):
        for step in range(work.decode):
            before_step()
            out = model(following[:, step : step + 1], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits)
        synchronize(device)
    end = time.perf_counter()
    return Seconds(middle - start, (end - middle) / work.decode), logits


def walls(model: Any, work: Workload) -> dict[str, float]:
    """Return microseconds of each phase when nothing is recorded: the median of a few runs."""
    found = [run(model, work)[0] for _ in range(RECORDED)]
    prefill, decode = (statistics.median(getattr(s, name) for s in found) for name in ("prefill", "decode"))
    return {"prefill": prefill * 1e6, "decode": decode * work.decode * 1e6}


def _keeps(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _phase(name: str, annotate: bool) -> AbstractContextManager[Any]:
    return torch.profiler.record_function(PHASE + name) if annotate else nullcontext()
