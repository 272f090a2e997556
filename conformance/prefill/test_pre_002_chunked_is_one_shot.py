"""PRE-002."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

PAGE = 16
LENGTH = 5 * PAGE + 3
COMPOSITIONS = (  # sizes of the first chunks; the last size goes on
    [LENGTH],
    [LENGTH - 1, 1],
    [1, LENGTH - 2, 1],
    [PAGE],
    [PAGE - 1],
    [PAGE + 1],
    [4 * PAGE],
    [5 * PAGE, 3],
    [2 * PAGE, 7, 2 * PAGE, 7],
    [3, 5, 7, 11, 13],
    [*[1] * (PAGE + 1), LENGTH - PAGE - 1],
)


@check(
    "PRE-002",
    feature="chunked-prefill",
    bound=WHY,
    sources=(
        "https://github.com/huggingface/transformers/issues/43082",
        "https://github.com/huggingface/transformers/issues/46741",
        "https://github.com/pytorch/executorch/issues/21857",
        "https://github.com/sgl-project/sglang/issues/36855",
    ),
)
def test_pre_002(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Any composition of a prompt into chunks gives the logprobs of one shot

    Chunk and page boundaries are where it breaks: positions that start anew in every chunk, a mask that forgets the
    earlier ones or sees the future, KV that was not written. The message names the first wrong position and its chunk.
    """
    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("chunks", LENGTH)
    wanted = inprocess.one_shot(prompt)
    worst, most = 0.0, 0
    for sizes in COMPOSITIONS:
        lab = inprocess.lab(chunked_prefill_size=sizes[-1], page_size=PAGE)
        answer = lab.ask("chunked", prompt, sizes)
        chunks = lab.chunks("chunked")
        assert sum(chunks) == LENGTH, f"chunks {chunks} do not make up the prompt of {LENGTH} tokens"
        assert chunks[: len(sizes)] == sizes[: len(chunks)], f"chunks of {sizes} tokens wanted, {chunks} computed"
        worst = max(worst, require_same(f"chunks of {sizes[:4]}", answer.rows(lab.vocab), wanted, chunks))
        most = max(most, len(chunks))
    assert most > 2, f"no prompt took more than {most} chunks: nothing was checked"
    record_property("evidence", f"{len(COMPOSITIONS)} compositions, largest difference {worst:.1e} nats")
