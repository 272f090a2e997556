"""Urgent requests to the GPU lane, patient ones to the CPU lane in INT8, with what the guide's sketch leaves out.

    python examples/ch07_hybrid_serving.py [--url URL]

Without a URL the reference engine is started as two lanes (`gaugeblock serve hybrid`; the GPU lane is on the host where
there is no GPU). Each row is an answer's own word of who served it: by priority, by a quality floor, with too little
time, and under overload, where urgent requests go on in the CPU lane.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import requests

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.launch import free_port, start_server

CROWD = 12  # urgent requests at once: more than the GPU lane's 8 places
TOLD = ("x-gaugeblock-lane", "x-gaugeblock-lane-quality", "x-gaugeblock-degraded")


def start_lanes(stack: ExitStack) -> str:
    """Start the reference engine as lanes and return its URL."""
    port = free_port()
    fields = {"model_path": str(tiny_model()), "host": "127.0.0.1", "port": port}
    command = [sys.executable, "-m", "gaugeblock.fixtures.serve", "hybrid", json.dumps(fields)]
    return stack.enter_context(start_server("lanes", command, port=port)).url


def ask(url: str, tokens: int = 8, **asked: str) -> tuple[str, ...]:
    """Send a request and return what its answer says of the lane."""
    headers = {"x-" + name.replace("_", "-"): value for name, value in asked.items()}
    sampling = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}
    body = {"text": "def main(arguments):\n    return ", "sampling_params": sampling}
    reply = requests.post(f"{url}/generate", json=body, headers=headers, timeout=60)
    if not reply.ok:
        return "refused", str(reply.status_code), reply.json()["message"]
    return tuple(reply.headers.get(name, "-") for name in TOLD)


def main() -> None:
    """Ask in each way and print who served."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    given = parser.parse_args().url
    with ExitStack() as stack:
        url = given or start_lanes(stack)
        print("asked for                            lane     quality  degraded")
        for asked in (
            {"priority": "high"},
            {"priority": "low"},
            {"priority": "low", "quality_floor": "bf16"},
            {"priority": "high", "request_timeout": "0.0001"},
        ):
            shown = ", ".join(f"{name} {value}" for name, value in asked.items())
            print(f"{shown:36} {'  '.join(f'{word:7}' for word in ask(url, **asked))}")
        with ThreadPoolExecutor(CROWD) as crowd:
            answers = Counter(crowd.map(lambda _: ask(url, 200, priority="high"), range(CROWD)))
        for words, count in sorted(answers.items(), reverse=True):
            print(f"{f'{count} of {CROWD} urgent ones at once':36} {'  '.join(f'{word:7}' for word in words)}")


if __name__ == "__main__":
    main()
