"""From a sampled token to the event that tells the client, with the reason to stop if there is one."""

from __future__ import annotations

from torch import Tensor

from gaugeblock.reference.engine.logprobs import token_logprobs
from gaugeblock.reference.engine.sequence import Sequence
from gaugeblock.reference.engine.types import Finish, TokenEvent

Event = tuple[Sequence, TokenEvent]


def continue_answer(sequence: Sequence, token: int, logits: Tensor) -> Event:
    """Append ``token``, sampled from ``logits`` [vocab], and describe the step."""
    sequence.tokens.append(token)
    sequence.output_ids.append(token)
    text, finish = _text_and_finish(sequence, token)
    event = TokenEvent(sequence.rid, token, text, finish=finish)
    if sequence.request.return_logprob:
        values, top = token_logprobs(logits[None], [token], sequence.request.top_logprobs_num)
        event.logprob = values[0]
        event.top_logprobs = top[0] if sequence.request.top_logprobs_num else None
    return sequence, _with_prompt_fields(sequence, event)


def prompt_only_event(sequence: Sequence) -> Event:
    """Describe the end of a request that asked for no new token."""
    event = TokenEvent(sequence.rid, None, "", finish=Finish("length"))
    return sequence, _with_prompt_fields(sequence, event)


def abort_event(sequence: Sequence, message: str, status: int | None = None) -> Event:
    """Describe an abort. Text that was held back is delivered: it is what the tokens so far say."""
    finish = Finish("abort", message=message, status=status)
    event = TokenEvent(sequence.rid, None, sequence.detokenizer.flush(), finish=finish)
    if not sequence.answered:
        event.prompt_tokens = sequence.prompt_len
        event.cached_tokens = sequence.cached_tokens or 0
    return sequence, event


def _text_and_finish(sequence: Sequence, token: int) -> tuple[str, Finish | None]:
    """Return the text that became certain and why the answer ends: stop token, stop string, length, in that order."""
    p, count = sequence.request.sampling, len(sequence.output_ids)
    early = count < p.min_new_tokens
    if token in sequence.stop_ids and not early:
        if p.no_stop_trim:
            text, _ = sequence.detokenizer.push(token, match_stop=False)
            return text + sequence.detokenizer.flush(), Finish("stop", token)
        return sequence.detokenizer.flush(), Finish("stop", token)
    text, matched = sequence.detokenizer.push(token, match_stop=not early)
    if matched is not None:
        return text, Finish("stop", matched)
    if count >= p.max_new_tokens:
        return text + sequence.detokenizer.flush(), Finish("length")
    return text, None


def _with_prompt_fields(sequence: Sequence, event: TokenEvent) -> TokenEvent:
    if sequence.answered:
        return event
    sequence.answered = True
    event.prompt_tokens = sequence.prompt_len
    event.cached_tokens = sequence.cached_tokens or 0
    if sequence.prompt_logprobs is not None:
        event.input_token_logprobs = sequence.prompt_logprobs.tokens
        event.input_top_logprobs = sequence.prompt_logprobs.top if sequence.prompt_logprobs.top_num else None
    return event
