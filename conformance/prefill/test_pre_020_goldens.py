"""PRE-020."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.goldens import LOGPROB, SKETCH

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess
    from gaugeblock.fixtures.targets.inprocess_golden import Prefill


@check(
    "PRE-020",
    feature="chunked-prefill",
    bound=f"token ids, positions and page keys: exact. KV sketches: {SKETCH[0]:g} {SKETCH[1]}. "
    f"Top logprobs: {LOGPROB[0]:g} {LOGPROB[1]}",
    sources=(
        "https://github.com/jzhang38/TinyLlama/issues/24",
        "https://github.com/LMCache/LMCache/issues/2136",
        "https://github.com/vllm-project/vllm-ascend/pull/15900",
    ),
)
def test_pre_020(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Golden prompts give the KV, page keys and logprobs that transformers gave once

    The other checks hold the engine to its own plain pass, so what both get wrong alike shows here alone; so does KV
    that is right for the engine and wrong for everybody who reads its pages. Look at the first field that differs:
    positions, then keys, then K and V from the lowest layer up.
    """
    from gaugeblock.conformance.golden import goldens
    from gaugeblock.fixtures.targets.inprocess_golden import prefill

    worst_kv, worst_logprob, most_chunks, pages = 0.0, 0.0, 0, 0
    with goldens("prefill") as files:
        for case in files["chunks"]:
            found = prefill(inprocess, case["prompt"], case["chunks"], case["page_size"])
            _require_steps(found, case)
            keys = [key.hex() for key in found.keys]
            assert keys == case["page_keys"], _first_wrong_key(case, keys)
            worst_kv = max(worst_kv, _require_kv(found, case))
            worst_logprob = max(worst_logprob, _require_logprobs(found, case))
            most_chunks = max(most_chunks, len(case["chunks"]))
            pages += len(keys)
        count = len(files["chunks"].cases)
    assert most_chunks > 2, f"no golden prompt has more than {most_chunks} chunks: nothing was checked"
    assert pages > 2 * count, f"{pages} full pages in {count} golden prompts: nothing was checked"
    record_property(
        "evidence",
        f"{count} prompts, {pages} page keys equal; largest difference of a KV sketch {worst_kv:.1e}, "
        f"of a logprob {worst_logprob:.1e} nats",
    )


def _require_steps(found: Prefill, case: dict[str, Any]) -> None:
    wanted = [
        (case["prompt"][start : start + size], list(range(start, start + size)))
        for start, size in zip(case["first_positions"], case["chunks"], strict=True)
    ]
    for number, (actual, (ids, positions)) in enumerate(zip(found.steps, wanted, strict=False), 1):
        label = f"golden {case['id']}, chunk {number}"
        assert actual[0] == ids, f"{label}: {len(actual[0])} tokens {actual[0][:8]}…, not {len(ids)} tokens {ids[:8]}…"
        assert actual[1] == positions, f"{label}: positions {actual[1][:8]}…, not {positions[0]} to {positions[-1]}"
    assert len(found.steps) >= len(wanted), f"golden {case['id']}: {len(found.steps)} steps for {len(wanted)} chunks"


def _first_wrong_key(case: dict[str, Any], keys: list[str]) -> str:
    wanted = case["page_keys"]
    if len(keys) != len(wanted):
        return f"golden {case['id']}: {len(keys)} full pages are indexed, {len(wanted)} should be"
    number = next(i for i, (key, golden) in enumerate(zip(keys, wanted, strict=True)) if key != golden)
    return (
        f"golden {case['id']}: the key of page {number} is {keys[number][:16]}…, was {wanted[number][:16]}…: "
        "no page that another process or release has stored is found again"
    )


def _require_kv(found: Prefill, case: dict[str, Any]) -> float:
    """Compare layer by layer, K before V: the first that is off is the one to look at."""
    from gaugeblock.fixtures.goldens.prefill import sketch

    worst = 0.0
    for layer in range(len(case["k"])):
        for half, rows in zip("kv", found.kv, strict=True):  # rows [layers, tokens, kv_heads, head_dim]
            sums = sketch(rows[layer], case["page_size"], f"{half}{layer}")
            for page, (value, golden) in enumerate(zip(sums, case[half][layer], strict=True)):
                difference = abs(value - golden)
                assert difference <= SKETCH[0], (
                    f"golden {case['id']}: {half.upper()} of layer {layer}, page {page} has the sketch {value:.4f}, "
                    f"the model's is {golden:.4f}"
                )
                worst = max(worst, difference)
    return worst


def _require_logprobs(found: Prefill, case: dict[str, Any]) -> float:
    import numpy as np

    worst = 0.0
    for position, (row, golden) in enumerate(zip(found.rows, case["top_logprobs"], strict=True)):
        wanted = np.array([value for _, value in golden])
        for what, actual in (
            ("logprobs of the golden best tokens", row[[token for token, _ in golden]]),
            ("best logprobs", np.sort(row)[::-1][: len(golden)]),
        ):
            difference = float(np.abs(actual - wanted).max())  # NaN stays NaN, and fails
            assert difference <= LOGPROB[0], (
                f"golden {case['id']}, position {position}: {what} are {np.round(actual, 4).tolist()}, "
                f"the model's {wanted.tolist()}"
            )
            worst = max(worst, difference)
    return worst
