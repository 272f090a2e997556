"""ENG-018: that a prompt and a stream have met is seen, not hoped for."""

from types import SimpleNamespace

import pytest

from gaugeblock.conformance.engine import test_eng_018_prefill_beside_decode as eng_018
from gaugeblock.conformance.outcome import Inconclusive


@pytest.fixture
def asked(monkeypatch):
    """Run the check on an engine whose stream outlasts the prompt from so many tokens on; returns what was streamed."""

    def run(enough, seconds=0.0):
        now = iter(range(100))
        streamed = []

        def beside(engine, short, tokens, long):
            streamed.append(tokens)
            return "beside", "beside", tokens >= enough

        monkeypatch.setattr(eng_018, "_beside", beside)
        monkeypatch.setattr(eng_018, "greedy", lambda engine, prompt, tokens: "alone")
        monkeypatch.setattr(eng_018, "prose_ids", lambda engine, seed, count: (1,) * count)
        monkeypatch.setattr(eng_018, "require", lambda *features: None)
        monkeypatch.setattr(eng_018, "compare_greedy", lambda *given: 0.0)
        monkeypatch.setattr(eng_018, "time", SimpleNamespace(monotonic=lambda: seconds * next(now)))
        engine = SimpleNamespace(flush=lambda: None, chunk_size=64)
        notes = []
        try:
            eng_018.test_eng_018(engine, None, notes.append)
        except Inconclusive as outcome:
            return streamed, str(outcome)
        return streamed, notes[0]

    return run


@pytest.mark.parametrize(("enough", "streamed"), [(16, [16]), (17, [16, 64]), (200, [16, 64, 256])])
def test_the_stream_grows_until_the_prompt_is_answered_beside_it(asked, enough, streamed):
    assert asked(enough) == (
        streamed,
        f"133 prompt tokens beside a stream of {streamed[-1]}: largest logprob difference 0.0e+00 nats",
    )


def test_two_that_never_met_show_nothing(asked):
    streamed, said = asked(1000)
    assert streamed == [16, 64, 256]
    assert "a stream of 256 tokens had ended before 133 prompt tokens beside it were answered" in said


def test_a_slow_engine_gets_no_longer_stream(asked):
    streamed, said = asked(1000, seconds=21.0)
    assert streamed == [16]
    assert "a stream of 16 tokens had ended" in said
