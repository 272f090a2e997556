"""PRE-011."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    import torch

    from gaugeblock.fixtures.targets.inprocess import InProcess, Lab

PAGE = 8
LENGTH = 4 * PAGE + 5
KV_BOUND = 1e-4
CHUNKS = ([LENGTH], [PAGE + 1], [1, PAGE - 1, 2 * PAGE, 7])  # the last size goes on


@check(
    "PRE-011",
    feature="chunked-prefill",
    bound=f"KV within {KV_BOUND}: fp32 sums in another order differ by 7.2e-6 on the tiny model, its values reach 15; "
    "after a move: equal bits",
    sources=(
        "https://github.com/vllm-project/vllm/issues/45704",
        "https://github.com/huggingface/transformers/issues/43082",
    ),
)
def test_pre_011(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """The KV of every layer and position is that of one shot, and the same bits after a trip to the host

    Logprobs see KV through a softmax that may hide a wrong row; here each row is held to its own. The message names the
    layer, K or V, and the position. Look at positions, at what a chunk writes last, and at the order of layers in a
    page that moves.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("layers", LENGTH)
    worst, moved = 0.0, 0
    for window in (None, PAGE + 3):
        target = inprocess.windowed(window)
        wanted = target.one_shot_kv(prompt)
        for sizes in CHUNKS:
            lab = target.lab(
                chunked_prefill_size=sizes[-1], page_size=PAGE, max_total_tokens=8 * PAGE, host_kv_tokens=8 * PAGE
            )
            label = f"window {window}, chunks of {sizes[:3]}"
            first, kv = _computed(lab, "a", prompt, sizes)
            assert kv.shape[2] >= min(LENGTH, window or LENGTH) - 1, f"{label}: KV of {kv.shape[2]} positions is held"
            worst = max(worst, _require_close(label, kv, wanted[:, :, first:], first))
            lab.run()
            if window is None:
                moved += _require_moved(lab, label, prompt, kv)
    assert moved, "no page came back from the host, nothing was checked"
    record_property("evidence", f"largest difference {worst:.1e}, {moved} tokens came back from the host bit-equal")


def _computed(lab: Lab, rid: str, prompt: tuple[int, ...], sizes: list[int]) -> tuple[int, torch.Tensor]:
    """Compute a prompt and return its KV while it is held, from its first position on."""
    lab.add(rid, prompt, new=2, logprobs_from=len(prompt) - 1, tops=False)
    for number in range(len(prompt)):
        lab.step(sizes[min(number, len(sizes) - 1)])
        if lab.answers[rid].ids:
            return lab.kv(rid)
    raise AssertionError(f"no token after {len(prompt)} steps over a prompt of {len(prompt)}")


def _require_close(label: str, kv: torch.Tensor, wanted: torch.Tensor, first: int) -> float:
    off = (kv - wanted).abs().amax(dim=(3, 4))  # [2, layers, tokens]
    wrong = (~(off <= KV_BOUND)).nonzero()  # NaN fails
    if len(wrong):
        half, layer, token = wrong[wrong[:, 2].argmin()].tolist()
        raise AssertionError(
            f"{label}: {'KV'[half]} of layer {layer} at position {first + token} differs from one shot by "
            f"{float(off[half, layer, token]):.2g}; {len(wrong)} of {off.numel()} rows are off"
        )
    return float(off.max())


def _require_moved(lab: Lab, label: str, prompt: tuple[int, ...], before: torch.Tensor) -> int:
    """Push the prompt's pages to the host by another prompt, get them back, and compare bits."""
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    lab.ask("other", mixed_prompt("other", 7 * PAGE), logprobs_from=7 * PAGE - 1, tops=False)
    _, after = _computed(lab, "again", prompt, [LENGTH])
    came = lab.stats().promoted_tokens_total
    wrong = (after[:, :, :came] != before[:, :, :came]).nonzero()
    assert not len(wrong), (
        f"{label}: {len(wrong)} values changed on the way to the host and back, first {wrong[0].tolist()}"
    )
    lab.run()
    return came
