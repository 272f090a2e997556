"""HYB-017."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess, Rows

LENGTH = 40
TOP = 5
SLACK = 1e-9


@check(
    "HYB-017",
    feature="similarity",
    bound="exact: the numbers of the answer, each at its position",
    sources=(
        "https://github.com/vllm-project/vllm/issues/29216",
        "https://github.com/vllm-project/vllm/issues/31210",
    ),
)
def test_hyb_017(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """What an engine says of a prompt is read at the position it was said of, in every dialect

    An answer names beside each token what was predicted for it, one position earlier. Read one off, two engines still
    agree, and a third does not. An answer about other tokens than were sent is refused. Look at the first entry, which
    is null.
    """
    from gaugeblock.fixtures.targets import forced
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt

    prompt = mixed_prompt("forced", LENGTH)
    rows = inprocess.one_shot(prompt)
    names = forced.Names()
    vocab = rows.shape[-1]
    read = {
        "sglang": forced.read_sglang(prompt, _sglang(prompt, rows), "sglang", vocab),
        "vllm": forced.read_vllm(prompt, _vllm(prompt, rows), "vllm", vocab),
        "openai": forced.read_openai(prompt, _openai(prompt, rows), "openai", names),
    }
    for dialect, answer in read.items():
        assert len(answer.rows) == LENGTH - 1, f"{dialect}: {len(answer.rows)} rows of {LENGTH} tokens"
        for position, row in enumerate(answer.rows):
            number = names.numbers if dialect == "openai" else {_name(t): t for t in range(vocab)}
            wanted = {number[_name(t)]: float(rows[position, t]) for t in _told(prompt, rows, position)}
            off = {t: row.logprobs.get(t) for t in wanted if abs(row.logprobs.get(t, 1.0) - wanted[t]) > SLACK}
            assert (off, len(row.logprobs)) == ({}, len(wanted)), (
                f"{dialect}: after position {position} the engine said {wanted}, read was {dict(row.logprobs)}"
            )
    other = mixed_prompt("another", LENGTH)
    foreign = _sglang(other, inprocess.one_shot(other))
    assert _fault(lambda: forced.read_sglang(prompt, foreign, "sglang", vocab)), "sglang: another prompt's is accepted"
    foreign = _vllm(other, inprocess.one_shot(other))
    assert _fault(lambda: forced.read_vllm(prompt, foreign, "vllm", vocab)), "vllm: another prompt's is accepted"
    record_property("evidence", f"{LENGTH - 1} positions of {', '.join(read)}")


def _told(prompt: tuple[int, ...], rows: Rows, position: int) -> list[int]:
    """Tokens that an engine tells after a position: the best ones, and the one that follows."""
    best = (-rows[position]).argsort(kind="stable")[:TOP].tolist()
    return [*best, *([] if prompt[position + 1] in best else [prompt[position + 1]])]


def _name(token: int) -> str:
    return f"<{token}>"


def _sglang(prompt: tuple[int, ...], rows: Rows) -> dict[str, Any]:
    own: list[Any] = [[None, prompt[0], None]]
    tops: list[Any] = [None]
    for i, token in enumerate(prompt[1:]):
        own.append([float(rows[i, token]), token, None])
        tops.append([[float(rows[i, t]), t, None] for t in _told(prompt, rows, i)[:TOP]])
    meta = {"id": "x", "finish_reason": {"type": "length", "length": 1}, "prompt_tokens": len(prompt),
            "completion_tokens": 1, "input_token_logprobs": own, "input_top_logprobs": tops}  # fmt: skip
    return {"text": "", "output_ids": [0], "meta_info": meta}


def _vllm(prompt: tuple[int, ...], rows: Rows) -> dict[str, Any]:
    listed: list[Any] = [None]
    for i in range(len(prompt) - 1):
        order = (-rows[i]).argsort(kind="stable").tolist()
        listed.append(
            {str(t): {"logprob": float(rows[i, t]), "rank": order.index(t) + 1} for t in _told(prompt, rows, i)}
        )
    return {"index": 0, "prompt_logprobs": listed}


def _openai(prompt: tuple[int, ...], rows: Rows) -> dict[str, Any]:
    generated = int(rows[-1].argmax())
    values = [None, *(float(rows[i, t]) for i, t in enumerate(prompt[1:])), float(rows[-1, generated])]
    tops = [
        None,
        *({_name(t): float(rows[i, t]) for t in _told(prompt, rows, i)[:TOP]} for i in range(len(prompt) - 1)),
    ]
    tokens = [*map(_name, prompt), _name(generated)]
    return {"logprobs": {"tokens": tokens, "token_logprobs": values, "top_logprobs": [*tops, {_name(generated): -0.1}]}}


def _fault(call: Callable[[], object]) -> bool:
    from gaugeblock.fixtures.errors import TargetFault

    try:
        call()
    except TargetFault:
        return True
    return False
