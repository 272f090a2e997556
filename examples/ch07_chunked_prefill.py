"""A prompt in chunks against the same prompt in one shot: logits, pages and steps.

    python examples/ch07_chunked_prefill.py [--tokens 700] [--chunk 64]

Each chunk attends to the KV of those before it, at its absolute positions, so the logprobs are those of one shot up to
fp32 rounding; what changes is the number of steps and how many tokens a step holds at once.
"""

from __future__ import annotations

import argparse

import numpy as np

from gaugeblock.fixtures.targets.inprocess import load_inprocess, mixed_prompt


def main() -> None:
    """Prefill in chunks, compare with one shot, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--chunk", type=int, default=64)
    options = parser.parse_args()
    target = load_inprocess()
    prompt = mixed_prompt("example", options.tokens)
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


if __name__ == "__main__":
    main()
