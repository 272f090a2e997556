"""PRE-001."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess


@check(
    "PRE-001",
    feature="chunked-prefill",
    gate=True,
    bound="exact: the argmax of a plain forward pass, on a prompt whose best token leads by more than 1 nat",
    sources=("https://github.com/vllm-project/vllm/issues/29216",),
)
def test_pre_001(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """A prompt in one chunk gives the model's own next token

    Nothing works yet, or the logits of another position are sampled. Look at the row that the sampler gets.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("smoke", 40)
    wanted = inprocess.one_shot(prompt)[-1]
    second, best = sorted(wanted)[-2:]
    assert best - second > 1.0, f"the prompt is no good: its best token leads by {best - second:.2f} nats only"
    lab = inprocess.lab(chunked_prefill_size=64, page_size=16)
    answer = lab.ask("smoke", prompt)
    assert lab.chunks("smoke") == [40], f"a prompt of 40 tokens under a budget of 64 took chunks {lab.chunks('smoke')}"
    assert answer.ids == [int(wanted.argmax())], (
        f"the first token is {answer.ids}, the model's best is {int(wanted.argmax())} by {best - second:.1f} nats"
    )
    record_property("evidence", f"token {answer.ids[0]} leads by {best - second:.1f} nats")
