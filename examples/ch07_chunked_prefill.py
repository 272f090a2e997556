"""A prompt in chunks against the same prompt in one shot: in the engine, and as a call on a transformers model.

    python examples/ch07_chunked_prefill.py [--tokens 700] [--chunk 64] [--window 128]

Each chunk attends to the KV of those before it, at its absolute positions, so the logprobs are those of one shot up to
fp32 rounding; what changes is the number of steps and how many tokens a step holds at once. With a window the call
keeps that many tokens of KV and a chunk on the device; older KV goes to host memory and is streamed back for attention.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from gaugeblock.fixtures.targets.inprocess import InProcess, load_inprocess, mixed_prompt
from gaugeblock.reference.engine.chunked_prefill import chunked_prefill


def main() -> None:
    """Prefill in chunks in both ways, compare with one shot, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--window", type=int, default=128)
    options = parser.parse_args()
    target = load_inprocess()
    prompt = mixed_prompt("example", options.tokens)
    in_the_engine(target, prompt, options)
    on_a_transformers_model(target, prompt, options)


def in_the_engine(target: InProcess, prompt: tuple[int, ...], options: argparse.Namespace) -> None:
    """The reference engine's scheduler: paged KV, one chunk a step."""
    one_shot = target.one_shot(prompt)  # [tokens, vocab] log probabilities
    for chunk in (options.tokens, options.chunk):
        lab = target.lab(chunked_prefill_size=chunk, max_total_tokens=2048, prefix_cache=False)
        answer = lab.ask("example", prompt)
        got = np.array([value for value, _ in answer.prompt_logprobs[1:]])
        want = one_shot[np.arange(len(prompt) - 1), list(prompt[1:])]
        print(
            f"chunks of {chunk:4}: {len(lab.chunks('example')):3} steps, "
            f"largest difference of a prompt logprob {np.abs(got - want).max():.1e} nats"
        )


def on_a_transformers_model(target: InProcess, prompt: tuple[int, ...], options: argparse.Namespace) -> None:
    """The library call: any causal LM of transformers, a hot window of KV, and decoding from the cache after it."""
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(target.folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
    want = logprobs[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    for window, offload in ((None, None), (options.window, "host")):
        with chunked_prefill(
            model, prompt, options.chunk, window=window, offload=offload, prompt_logprobs=True
        ) as result:
            print(
                f"transformers, window {window}: {result.stats.steps} steps, {result.peak_kv_bytes} bytes of KV, "
                f"{result.stats.bytes_in} streamed back, "
                f"largest difference of a prompt logprob {(result.prompt_logprobs - want).abs().max():.1e} nats"
            )
            assert decode(result, 8) == decode(chunked_prefill(model, prompt, len(prompt)), 8)


def decode(result, count: int) -> list[int]:
    """Greedy tokens after a prefill, within its window."""
    tokens = [int(result.logits.argmax())]
    with torch.no_grad(), result.streaming():
        while len(tokens) < count:
            logits = result.model(torch.tensor([tokens[-1:]]), past_key_values=result.cache).logits
            tokens.append(int(logits[0, -1].argmax()))
    return tokens


if __name__ == "__main__":
    main()
