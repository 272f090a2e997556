"""Two engines and a router in front of them: sessions stay where their KV cache is hot.

    python examples/ch07_sglang_multinode.py [--engine-url URL --engine-url URL]

Without URLs two reference engines are started on loopback ports; with them, yours are used. Everything that is started
ends with the script. Each turn of a session sends the whole conversation; the router's receipt tells which engine got
it and why, the engine's usage how much of the prompt it found in its cache.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack

import requests

from gaugeblock.fixtures.embedded import embedded_engine
from gaugeblock.fixtures.launch import free_port, start_server

TURNS = 3


def start_router(stack: ExitStack, engine_urls: list[str]) -> str:
    """Start the reference router before the engines and return its URL."""
    port = free_port()
    fields = {"worker_urls": engine_urls, "policy": "cache_aware", "host": "127.0.0.1", "port": port}
    command = [sys.executable, "-m", "gaugeblock.fixtures.serve", "router", json.dumps(fields)]
    return stack.enter_context(start_server("router", command, port=port, ready_path="/readiness")).url


def main() -> None:
    """Route two sessions and print where each turn went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine-url", action="append", default=[])
    given = parser.parse_args().engine_url
    with ExitStack() as stack:
        urls = given or [stack.enter_context(embedded_engine()) for _ in range(2)]
        router = start_router(stack, urls)
        histories: dict[str, list[dict[str, str]]] = {"alice": [], "bob": []}
        print("session  turn  engine                   reason            prompt tokens  from cache")
        for turn in range(TURNS):
            for session, messages in histories.items():
                messages.append({"role": "user", "content": f"Repeat: {session} says hello number {turn}"})
                body = {"messages": messages, "max_tokens": 24, "temperature": 0}
                headers = {"x-session-id": session}
                reply = requests.post(f"{router}/v1/chat/completions", json=body, headers=headers, timeout=60)
                reply.raise_for_status()
                data = reply.json()
                messages.append({"role": "assistant", "content": data["choices"][0]["message"]["content"]})
                usage = data["usage"]
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", "?")
                engine, reason = reply.headers["x-gaugeblock-worker"], reply.headers["x-gaugeblock-reason"]
                print(f"{session:8} {turn:4}  {engine:24} {reason:17} {usage['prompt_tokens']:13}  {cached}")


if __name__ == "__main__":
    main()
