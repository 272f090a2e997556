"""Output tokens per second of the reference engine, in this process, without HTTP.

``python benchmarks/engine_throughput.py [--model golden/tiny-llama] [--threads 1] [--tokens 256] [--repeat 3]``

Every run uses prompts of its own, so that nothing comes from the prefix cache, and counts from the first submission to
the last event. On a busy machine the wall-clock columns measure the neighbours: there, tokens per second of this
process's CPU time say what one undisturbed thread would give at least.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import threading
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, SamplingParams, TokenEvent

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tiny-llama"
RUN_SECONDS = 600.0
PROMPT_TOKENS = 128


class Run:
    """Some requests at once, timed. Raises TimeoutError or RuntimeError when they do not all end well."""

    def __init__(self, engine: Engine, tag: str, concurrency: int, tokens: int) -> None:
        self.engine = engine
        self.open = concurrency
        self.first: dict[str, float] = {}
        self.count = 0
        self.done = threading.Event()
        self.begun, cpu = time.perf_counter(), time.process_time()
        for i in range(concurrency):
            engine.submit(self._request(f"{tag}/{i}", tokens), self._take)
        if not self.done.wait(RUN_SECONDS):
            raise TimeoutError(f"{tag}: no end within {RUN_SECONDS} s")
        self.seconds, self.cpu_seconds = time.perf_counter() - self.begun, time.process_time() - cpu
        if self.count != concurrency * tokens:
            raise RuntimeError(f"{tag}: {self.count} tokens instead of {concurrency * tokens}")

    def _request(self, rid: str, tokens: int) -> GenerateRequest:
        text = f"{rid} def total(values): return sum(value for value in values if value) " * 4
        ids = self.engine.tokenizer.encode(text)[:PROMPT_TOKENS]
        return GenerateRequest(rid, tuple(ids), SamplingParams(max_new_tokens=tokens, temperature=0.0, ignore_eos=True))

    def _take(self, event: TokenEvent) -> None:
        self.first.setdefault(event.rid, time.perf_counter() - self.begun)
        self.count += event.token_id is not None
        if event.finish is not None:
            self.open -= 1
            if not self.open:
                self.done.set()


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(GOLDEN))
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--tokens", type=int, default=256, help="new tokens a request")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    engine = Engine(EngineConfig(args.model))
    engine.start()
    try:
        table = Table(title=f"{Path(args.model).name}, {args.threads} torch thread(s), {platform.machine()}, fp32")
        for name in (
            "requests at once",
            "tokens/s best",
            "tokens/s median",
            "tokens/CPU s best",
            "first token ms (median)",
        ):
            table.add_column(name, justify="right")
        Run(engine, "warm-up", 1, 16)
        for concurrency in args.concurrency:
            runs = [Run(engine, f"{concurrency}/{i}", concurrency, args.tokens) for i in range(args.repeat)]
            rates = [run.count / run.seconds for run in runs]
            first = statistics.median(t for run in runs for t in run.first.values())
            of_cpu = max(run.count / run.cpu_seconds for run in runs)
            cells = (concurrency, max(rates), statistics.median(rates), of_cpu, first * 1e3)
            table.add_row(*(f"{cell:.0f}" for cell in cells))
        Console().print(table)
    finally:
        engine.stop()


if __name__ == "__main__":
    main()
