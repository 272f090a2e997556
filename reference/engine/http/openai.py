"""What the endpoints of OpenAI's API share: usage, finish reasons, log probabilities, stream options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.control import WEIGHT_VERSION
from gaugeblock.reference.engine.http.fields import Fields
from gaugeblock.reference.engine.http.sampling import refuse_unsupported
from gaugeblock.reference.engine.types import TokenLogprob

MAX_TOP_LOGPROBS = 20
FLOOR = -9999.0  # what OpenAI writes for a probability of zero
METADATA = {"weight_version": WEIGHT_VERSION}
TokenText = Callable[[int], str]


def usage(answers: Iterable[Answer]) -> dict[str, Any]:
    """Token counts over ``answers``; a prompt of n samples counts once."""
    listed = list(answers)
    first = [answer for answer in listed if answer.sample == 0]
    prompt = sum(answer.prompt_tokens for answer in first)
    completion = sum(len(answer.output_ids) for answer in listed)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(answer.cached_tokens for answer in first)},
        "reasoning_tokens": 0,
    }


def finish_fields(answer: Answer) -> dict[str, Any]:
    """``finish_reason`` and SGLang's ``matched_stop``; null while the answer goes on."""
    finish = answer.finish
    return {
        "finish_reason": None if finish is None else finish.type,
        "matched_stop": None if finish is None else finish.matched,
    }


def wants_usage(body: Fields) -> bool:
    """Whether a stream ends with a usage chunk."""
    options = body.maybe_object("stream_options")
    return options is not None and options.flag("include_usage")


def refuse_formats(body: Fields) -> None:
    """Refuse what would constrain the answer's form.

    Raises:
        ApiError: 400.
    """
    refuse_unsupported(body, ("json_schema", "regex", "ebnf", "structural_tag", "lora_path"))
    form = body.maybe_object("response_format")
    if form is not None and form.get("type") not in (None, "text"):
        raise form.refuse("type", "'text': this engine has no constrained decoding")


def floored(value: float | None) -> float:
    """A log probability that JSON can hold."""
    return FLOOR if value is None or not value > FLOOR else value


def chat_logprobs(answer: Answer, count: int, text: TokenText) -> dict[str, Any] | None:
    """``logprobs`` of a chat choice for the last ``count`` tokens; None when not asked for."""
    if not answer.request.return_logprob:
        return None
    start = len(answer.logprobs) - count
    content = []
    for pair, tops in zip(answer.logprobs[start:], answer.top_logprobs[start:], strict=True):
        content.append({**_named(pair, text), "top_logprobs": [_named(top, text) for top in tops or []]})
    return {"content": content}


def _named(pair: TokenLogprob, text: TokenText) -> dict[str, Any]:
    token = text(pair[1])
    return {"token": token, "logprob": floored(pair[0]), "bytes": list(token.encode())}


class TextLogprobs:
    """``logprobs`` of one text completion; knows where in the text the next token starts."""

    def __init__(self, text: TokenText) -> None:
        self.text, self.offset = text, 0

    def block(self, pairs: list[TokenLogprob], tops: list[list[TokenLogprob] | None], top: int) -> dict[str, Any]:
        """The block for consecutive tokens; the first of an echoed prompt has null, for nothing predicts it."""
        names = [self.text(token) for _, token in pairs]
        offsets = []
        for name in names:
            offsets.append(self.offset)
            self.offset += len(name)
        return {
            "tokens": names,
            "token_logprobs": [None if value is None else floored(value) for value, _ in pairs],
            "top_logprobs": [self._candidates(row) for row in tops] if top > 0 else [],
            "text_offset": offsets,
        }

    def _candidates(self, row: list[TokenLogprob] | None) -> dict[str, float] | None:
        if row is None:
            return None
        named: dict[str, float] = {}
        for value, token in row:  # two ids may read the same: the likelier one comes first and stays
            named.setdefault(self.text(token), floored(value))
        return named
