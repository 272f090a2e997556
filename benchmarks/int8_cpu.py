"""INT8 against fp32 on a CPU: milliseconds a decode step, prompt tokens a second, bytes of weights, resident memory.

``python benchmarks/int8_cpu.py --model PATH [--threads 2] [--rounds 12] [--peers transformers,torchao]``

Every contender decodes greedily behind prompts of 64 tokens, and computes prompts of 512 at once. Rounds are
interleaved: each contender takes some steps, then the next one, so that a busy machine slows all of them. Printed are
the median of all steps and, in brackets, the fastest and the 90th percentile; the gain is the median over rounds of
fp32's time by the contender's in the same round. Ours are steps of the whole engine without HTTP; the peers are
forward passes of transformers with its cache, argmax included. Weights are rounded plainly: calibration changes their
values, not their speed. Memory comes from a process of its own for each; ours reads its INT8 weights from a file.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gaugeblock.fixtures.targets.weight_bytes import held_bytes
from gaugeblock.reference.engine.build import build_kv
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.engine.scheduler import Scheduler
from gaugeblock.reference.engine.sequence import Sequence as Request
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, SamplingParams
from gaugeblock.reference.hybrid import int8_file
from gaugeblock.reference.hybrid.recipe import Recipe, quantize_model

PROMPT, LONG, STEPS = 64, 512, 4  # tokens, tokens, steps a round
TOKENS = 2048  # of KV
REVISION = "benchmark"
OURS = ("fp32", "int8")
PEERS = ("transformers", "transformers-bf16", "torchao")
MEMORY_SECONDS = 600.0


def prompt(number: int, length: int) -> tuple[int, ...]:
    """Return token ids, other ones for each number."""
    return tuple(100 + (7919 * number + 31 * i) % 10_000 for i in range(length))


class Ours:
    """The reference engine's scheduler, stepped by hand."""

    def __init__(self, path: Path, name: str, saved: Path) -> None:
        config = load_config(path)
        weights = int8_file.load_weights(saved, config, REVISION) if name == "int8" else load_weights(path, config)
        self.model = LlamaModel(config, weights)
        self.tokenizer = Tokenizer(str(path))
        self.config = EngineConfig(
            str(path), max_total_tokens=TOKENS, chunked_prefill_size=LONG, prefix_cache=False, max_running_requests=8
        )
        self.scheduler = Scheduler(self.model, build_kv(self.config, config, name), self.config)

    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return held_bytes(self.model)

    def begin(self, batch: int, length: int) -> None:
        """Forget what runs and compute ``batch`` prompts."""
        self.scheduler.abort(None, "the next measurement")
        sampling = SamplingParams(max_new_tokens=1024, temperature=0.0, ignore_eos=True)
        for number in range(batch):
            request = GenerateRequest(str(number), prompt(number, length), sampling)
            self.scheduler.add(Request(request, lambda _: None, self.tokenizer, ()))
        while self.scheduler.waiting or any(s.remaining > 1 for s in self.scheduler.running):
            self.scheduler.step()

    def step(self) -> None:
        """Decode one token of each."""
        self.scheduler.step()


class Peer:
    """transformers, as it is or quantised by torchao."""

    def __init__(self, path: Path, name: str) -> None:
        from transformers import AutoModelForCausalLM

        dtype = torch.bfloat16 if name == "transformers-bf16" else torch.float32
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
        if name == "torchao":
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

            quantize_(self.model, Int8DynamicActivationInt8WeightConfig())
        self.ids = torch.empty(0)
        self.cache: Any = None

    def weight_bytes(self) -> int:
        """Bytes of the weights, those inside of torchao's tensors included."""
        parts = {id(p): p for p in self.model.parameters()}
        return sum(_bytes(part) for part in parts.values())

    @torch.inference_mode()
    def begin(self, batch: int, length: int) -> None:
        """Compute ``batch`` prompts anew."""
        ids = torch.tensor([prompt(number, length) for number in range(batch)])
        out = self.model(ids, use_cache=True, logits_to_keep=1)
        self.cache, self.ids = out.past_key_values, out.logits[:, -1:].argmax(-1)

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one token of each."""
        out = self.model(self.ids, past_key_values=self.cache, use_cache=True)
        self.ids = out.logits[:, -1:].argmax(-1)


def _bytes(tensor: torch.Tensor) -> int:
    names = getattr(tensor, "tensor_data_names", None)
    if names is None:
        return tensor.nbytes
    inner = (getattr(tensor, name) for name in names)
    return sum(part.nbytes for part in inner if part is not None)


def quantise(path: Path, saved: Path) -> None:
    """Write a model's INT8 weights."""
    config = load_config(path)
    recipe = Recipe(calibrate=False)
    int8_file.save_weights(saved, quantize_model(load_weights(path, config), config, (), recipe), REVISION, recipe)


def make(path: Path, name: str, saved: Path) -> Ours | Peer:
    """Return a contender."""
    return Ours(path, name, saved) if name in OURS else Peer(path, name)


def seconds(call: Callable[[], None], times: int = 1) -> list[float]:
    """Return how long each call took."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return found


def measure(contenders: dict[str, Ours | Peer], rounds: int, batch: int) -> dict[str, list[list[float]]]:
    """Return each contender's seconds a decode step, by round."""
    times: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for one in contenders.values():
        one.begin(batch, PROMPT)
        one.step()
    for _ in range(rounds):
        for name, one in contenders.items():
            times[name].append(seconds(one.step, STEPS))
    return times


def measure_prefill(contenders: dict[str, Ours | Peer], rounds: int) -> dict[str, list[list[float]]]:
    """Return each contender's seconds for one long prompt, by round."""
    times: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, one in contenders.items():
            times[name].append(seconds(lambda one=one: one.begin(1, LONG)))  # type: ignore[misc] # bound at once
    return times


def gain(times: dict[str, list[list[float]]], name: str) -> float:
    """Return the median over rounds of fp32's median by the contender's."""
    pairs = zip(times["fp32"], times[name], strict=True)
    return statistics.median(statistics.median(ours) / statistics.median(its) for ours, its in pairs)


def tell(title: str, times: dict[str, list[list[float]]], show: Callable[[float], str]) -> None:
    """Print one table."""
    print(f"\n{title}")
    for name, by_round in times.items():
        all_of = sorted(value for one in by_round for value in one)
        spread = f"{show(all_of[0])} to {show(all_of[9 * len(all_of) // 10])}"
        print(f"  {name:18s} {show(statistics.median(all_of)):>9s}  ({spread})  {gain(times, name):5.2f} x fp32")


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def memory(path: Path, name: str, saved: Path) -> None:
    """Print what one contender holds: bytes of weights, and growth of resident memory after some steps."""
    before = resident()
    one = make(path, name, saved)
    one.begin(1, PROMPT)
    one.step()
    gc.collect()
    print(f"  {name:18s} weights {one.weight_bytes() / 1e6:7.1f} MB, resident {(resident() - before) / 1e6:7.1f} MB")


def names_of(text: str) -> Sequence[str]:
    """Return the peers named, checked."""
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"unknown peer {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    return names


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--peers", type=names_of, default=list(PEERS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--memory-of", choices=(*OURS, *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--saved", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        memory(options.model, options.memory_of, options.saved)
        return
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "int8.safetensors"
        quantise(options.model, saved)
        compare(options, saved)


def compare(options: argparse.Namespace, saved: Path) -> None:
    """Measure and print."""
    names = (*OURS, *options.peers)
    print(f"{options.model.name}, {options.threads} threads, torch {torch.__version__}, {options.rounds} rounds")
    contenders = {name: make(options.model, name, saved) for name in names}
    for batch in options.batch:
        times = measure(contenders, options.rounds, batch)
        tell(f"decode, {batch} at once: ms a step", times, lambda value: f"{1e3 * value:.1f}")
    times = measure_prefill(contenders, max(3, options.rounds // 4))
    tell(f"prompts of {LONG}: tokens a second", times, lambda value: f"{LONG / value:.0f}")
    print("\nmemory, each in a process of its own")
    for name in names:
        command = [sys.executable, __file__, "--model", str(options.model), "--memory-of", name, "--saved", str(saved)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEMORY_SECONDS, check=True)
        print(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
