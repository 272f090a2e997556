"""PRE-012."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.prefill.judging import WHY

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

NEW = 5
LENGTHS = (1, 4, 5, 6, 23, 40)  # shorter than the window, as long, longer
WINDOWS = (1, 5)


@check(
    "PRE-012",
    feature="sliding-window",
    bound=f"{WHY}; the KV that is read: finite",
    sources=(
        "https://github.com/huggingface/transformers/issues/37574",
        "https://github.com/vllm-project/vllm/issues/31210",
    ),
)
def test_pre_012(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Ragged batches under a sliding window change nothing, and nothing in them is NaN

    Each request's window starts in another page, so that block tables are padded and every row has a mask of its own.
    A row that sees nothing gives NaN, and NaN in a padding page reaches all that read it: 0 x NaN is NaN. Look at the
    first position of each table, and at what padding rows write.
    """
    import torch

    from gaugeblock.conformance.prefill.judging import require_same
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    worst, most = 0.0, 0
    for window in WINDOWS:
        target = inprocess.windowed(window)
        lab = target.lab(chunked_prefill_size=24, page_size=4)
        for length in LENGTHS:
            lab.add(f"{length}", mixed_prompt(f"ragged {length}", length), new=NEW, logprobs_from=length - 1)
        answers = lab.run()
        storage = lab.scheduler.kv.storage
        bad = [int((~half.isfinite()).sum()) for half in (storage.k, storage.v)]
        assert bad == [0, 0], f"window {window}: {bad[0]} values of K and {bad[1]} of V are not finite"
        padding = torch.stack((storage.k[:, storage.pad_page], storage.v[:, storage.pad_page]))
        assert not padding.any(), f"window {window}: the padding page was written"
        for rid, answer in answers.items():
            rows = answer.rows(lab.vocab)
            wanted = target.one_shot([*answer.prompt, *answer.ids[:-1]])[len(answer.prompt) - 1 :]
            worst = max(worst, require_same(f"window {window}, prompt of {rid} in a batch", rows, wanted))
        most = max(most, *(len(plan) for plan in lab.scheduler.plans))
    assert most == len(LENGTHS), f"the largest batch had {most} of {len(LENGTHS)} requests, nothing was checked"
    record_property("evidence", f"batches of up to {most} requests, largest difference {worst:.1e} nats")
