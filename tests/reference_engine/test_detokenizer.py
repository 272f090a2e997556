"""The pieces of an answer add up to its decoding, and none has to be taken back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugeblock.reference.engine.detokenizer import Detokenizer
from gaugeblock.reference.engine.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(str(folder))


tokens = st.lists(st.integers(0, 260), max_size=30)
few_letters = st.text("ab€", max_size=12)


def pieces(detokenizer, ids):
    """Return the text of each push up to a match, the flushed rest, and the match."""
    found = []
    for token in ids:
        text, matched = detokenizer.push(token)
        found.append(text)
        if matched is not None:
            return found, matched
    return [*found, detokenizer.flush()], None


@given(ids=tokens, skip=st.booleans())
def test_any_bytes_add_up_to_their_decoding(tokenizer, ids, skip):
    found, _ = pieces(Detokenizer(tokenizer, (), skip), ids)
    assert "".join(found) == tokenizer.decode(ids, skip)


@settings(max_examples=300)
@given(text=few_letters, stop=st.lists(st.text("ab€", min_size=1, max_size=3), max_size=3), keep=st.booleans())
def test_text_ends_at_the_first_stop_string_and_nothing_of_it_leaks(tokenizer, text, stop, keep):
    found, matched = pieces(Detokenizer(tokenizer, stop, True, keep), tokenizer.encode(text))
    ends = sorted((text.index(s) + len(s), text.index(s), s) for s in stop if s in text)
    if not ends:
        assert (matched, "".join(found)) == (None, text)
        return
    first_end = ends[0][0]
    start = min(at for end, at, _ in ends if end == first_end)
    assert matched == text[start:first_end]
    assert "".join(found) == (text[:first_end] if keep else text[:start])


@given(text=few_letters, stop=st.text("ab", min_size=1, max_size=4))
def test_only_what_could_begin_a_stop_string_is_held(tokenizer, text, stop):
    detokenizer = Detokenizer(tokenizer, (stop,))
    given_out = ""
    for i, token in enumerate(tokenizer.encode(text)):
        piece, matched = detokenizer.push(token)
        if matched:
            return
        given_out += piece
        held = tokenizer.decode(tokenizer.encode(text)[: i + 1])[len(given_out) :]
        assert stop.startswith(held.rstrip("\ufffd"))


def test_a_stop_string_may_be_a_replacement_character_away(tokenizer):
    detokenizer = Detokenizer(tokenizer, ("é",))
    first, second = tokenizer.encode("é")
    assert detokenizer.push(first) == ("", None)
    assert detokenizer.push(second) == ("", "é")
