"""Output tokens per second of several engines over HTTP, in one run: the embedded reference and any URL.

    python benchmarks/engines_over_http.py [http://127.0.0.1:31001 …] [--tokens 256] [--repeat 5]

All requests are greedy, of one length, with prompts of their own so that nothing comes from a prefix cache. The engines
take turns within each repeat, so a busy machine slows all of them; medians and ranges are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

from gaugeblock.fixtures.embedded import embedded_engine
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.parallel import parallel
from gaugeblock.fixtures.targets.wire import Limits

CONCURRENCY = (1, 8)
PROMPT_TOKENS = 128


def rate(engine: EngineTarget, concurrency: int, tokens: int, salt: int) -> float:
    """Return output tokens per second, from the first request's start to the last one's end."""
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    limits = Limits(idle=300.0, total=300.0)
    prompts = [[32 + (salt * 37 + i * 11 + j) % 90 for j in range(PROMPT_TOKENS)] for i in range(concurrency)]
    calls = [partial(engine.generate, input_ids=p, sampling=sampling, limits=limits) for p in prompts]
    begin = time.perf_counter()
    answers = parallel(calls)
    seconds = time.perf_counter() - begin
    made = sum(answer.completion_tokens for answer in answers)
    if made != concurrency * tokens:
        raise SystemExit(f"{engine.url}: {made} tokens came, {concurrency * tokens} were asked for")
    return made / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="*")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with embedded_engine() as reference:
        engines = {url: EngineTarget(url, timeout=300.0) for url in (reference, *options.urls)}
        names = {reference: "reference"} | {url: f"{engines[url].dialect} {url}" for url in options.urls}
        results: dict[tuple[str, int], list[float]] = {}
        for salt in range(options.repeat + 1):
            for concurrency in CONCURRENCY:
                for url, engine in engines.items():
                    measured = rate(engine, concurrency, options.tokens, salt)
                    if salt:  # the first round warms up
                        results.setdefault((url, concurrency), []).append(measured)
        for (url, concurrency), rates in results.items():
            spread = f"{min(rates):.0f} to {max(rates):.0f}"
            print(f"{names[url]:34s} {concurrency} at once: {statistics.median(rates):6.0f} tokens/s ({spread})")


if __name__ == "__main__":
    main()
