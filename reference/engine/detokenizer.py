"""Text of a growing answer: nothing is released that a later token could still change or a stop string could claim."""

from __future__ import annotations

from collections.abc import Sequence

from gaugeblock.reference.engine.tokenizer import Tokenizer

INCOMPLETE = "\ufffd"  # what a decoder gives for bytes that are no UTF-8 character (yet)


class Detokenizer:
    """Turns tokens into certain text, one request's worth.

    The concatenation of everything returned equals the decoding of all tokens, up to the stop string.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], skip_special_tokens: bool = True, keep_stop: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special_tokens
        self._stop = [s for s in stop if s]
        self._keep_stop = keep_stop
        self._ids: list[int] = []
        self._context = 0  # ids[context:read] only give the decoder its context
        self._read = 0  # ids[:read] have become text
        self._held = ""  # text that may be the beginning of a stop string

    def push(self, token_id: int, match_stop: bool = True) -> tuple[str, str | None]:
        """Add a token; return the text that became certain and the stop string that ended it, if one did."""
        self._ids.append(token_id)
        text = self._held + self._complete_text()
        self._held = ""
        if not self._stop or not match_stop:
            return text, None
        matched = self._first_match(text)
        if matched is not None:
            end = text.index(matched) + (len(matched) if self._keep_stop else 0)
            return text[:end], matched
        keep = self._possible_prefix(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], None

    def flush(self) -> str:
        """Return what was held back: the answer ends here."""
        text = self._held + self._new_text()
        self._held, self._context = "", len(self._ids)
        self._read = self._context
        return text

    def _new_text(self) -> str:
        """Decode the unread tokens as a continuation (a decoder may treat the first token of a text in its own way)."""
        before = self._tokenizer.decode(self._ids[self._context : self._read], self._skip_special)
        after = self._tokenizer.decode(self._ids[self._context :], self._skip_special)
        return after[len(before) :]

    def _complete_text(self) -> str:
        text = self._new_text()
        if text.endswith(INCOMPLETE):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return text

    def _first_match(self, text: str) -> str | None:
        """Return the stop string that is complete first, however the text is cut into tokens; of two the longer."""
        ends = [(text.index(s) + len(s), -len(s), s) for s in self._stop if s in text]
        return min(ends)[2] if ends else None

    def _possible_prefix(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that begins a stop string."""
        longest = min(len(text), max(len(s) for s in self._stop) - 1)
        for size in range(longest, 0, -1):
            if any(s.startswith(text[-size:]) for s in self._stop):
                return size
        return 0
