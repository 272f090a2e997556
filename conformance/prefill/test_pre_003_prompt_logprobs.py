"""PRE-003."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import FP32_BOUND, WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

LENGTH = 61


@check(
    "PRE-003",
    feature="prompt-logprobs",
    bound=WHY,
    sources=(
        "https://github.com/vllm-project/vllm/issues/29216",
        "https://github.com/vllm-project/vllm/issues/18957",
    ),
)
def test_pre_003(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Prompt logprobs are those of the model, whatever the chunks and the first position wanted

    Each token after ``logprob_start_len`` has one, in order, none twice and none left out at a chunk's edge. Look at
    the offset between a chunk's logits and the tokens that they predict.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("logprobs", LENGTH)
    rows = inprocess.one_shot(prompt)
    worst = 0.0
    for size in (LENGTH, 16, 7):
        for start in (0, 1, 15, 16, 17, LENGTH - 1):
            lab = inprocess.lab(chunked_prefill_size=size, page_size=16)
            found = lab.ask("a", prompt, logprobs_from=start, tops=False).prompt_logprobs
            label = f"chunks of {size}, logprobs from {start}"
            tokens = [token for _, token in found]
            assert tokens == list(prompt[start:]), (
                f"{label}: {len(tokens)} tokens, not the prompt's last {LENGTH - start}"
            )
            assert found[0][0] is None, f"{label}: the first token has logprob {found[0][0]}, nothing predicts it"
            for position, (value, token) in enumerate(found[1:], start + 1):
                difference = abs((value if value is not None else float("nan")) - rows[position - 1, token])
                assert difference <= FP32_BOUND, (
                    f"{label}: logprob of the token at position {position} is {value}, the model's "
                    f"{rows[position - 1, token]:.4f}"
                )
                worst = max(worst, difference)
            assert size == LENGTH or len(lab.chunks("a")) > 2, f"{label}: chunks {lab.chunks('a')}, nothing was checked"
    record_property("evidence", f"18 requests, largest difference {worst:.1e} nats")
