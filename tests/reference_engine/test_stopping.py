"""Why and where an answer ends."""

import pytest


@pytest.fixture
def plain(lab, prompts):
    """A laboratory and the 12 greedy tokens that follow a prompt."""
    lab = lab()
    return lab, lab.ask("plain", prompts[33], max_new_tokens=12)


def test_length(plain):
    assert len(plain[1].ids) == 12
    assert plain[1].finish.type == "length"
    assert all(e.finish is None for e in plain[1].events[:-1])


def test_no_new_tokens(lab, prompts):
    lab = lab()
    answer = lab.ask("a", prompts[33], max_new_tokens=0, logprob_start_len=0)
    (event,) = answer.events
    assert (event.token_id, event.text, event.finish.type, event.prompt_tokens) == (None, "", "length", 33)
    assert len(event.input_token_logprobs) == 33
    assert lab.ask("b", prompts[33]).events[0].cached_tokens == 32, "the prompt is cached all the same"


def test_stop_token(plain, prompts):
    lab, full = plain
    stop = full.ids[5]
    at = full.ids.index(stop)
    answer = lab.ask("a", prompts[33], max_new_tokens=12, stop_token_ids=(stop,))
    assert answer.ids == full.ids[: at + 1]
    assert (answer.finish.type, answer.finish.matched) == ("stop", stop)
    assert answer.text == lab.tokenizer.decode(full.ids[:at])
    kept = lab.ask("b", prompts[33], max_new_tokens=12, stop_token_ids=(stop,), no_stop_trim=True)
    assert kept.text == lab.tokenizer.decode(full.ids[: at + 1])


def test_eos_ends_unless_ignored(lab, prompts):
    lab = lab()
    bias = {258: 1000.0}
    answer = lab.ask("a", prompts[17], ignore_eos=False, logit_bias=bias)
    assert (answer.ids, answer.text) == ([258], "")
    assert (answer.finish.type, answer.finish.matched) == ("stop", 258)
    assert lab.ask("b", prompts[17], ignore_eos=True, logit_bias=bias).ids == [258] * 8


def test_min_new_tokens_bans_stopping_early(lab, prompts):
    lab = lab()
    bias = {258: 1000.0}
    answer = lab.ask("a", prompts[17], ignore_eos=False, logit_bias=bias, min_new_tokens=3)
    assert len(answer.ids) == 4
    assert 258 not in answer.ids[:3]
    assert answer.finish.matched == 258


def forced(lab, text, prompt, **options):
    """Run a request whose tokens are forced to spell ``text``, by biasing one id a step."""
    ids = lab.tokenizer.encode(text)
    sequence = lab.add(text, prompt, max_new_tokens=len(ids), **options)
    for token in ids:
        sequence.request.sampling.logit_bias.clear()
        sequence.request.sampling.logit_bias[token] = 1e6
        if lab.scheduler.has_work:
            lab.step()
    return lab.answers[text]


@pytest.mark.parametrize(
    ("stop", "kept"), [(("world",), "hello "), (("wor", "lo w"), "hel"), (("xyz", "d!"), "hello worl")]
)
def test_stop_string_over_token_boundaries(lab, prompts, stop, kept):
    lab = lab()
    answer = forced(lab, "hello world!", prompts[17], stop=stop)
    assert answer.text == kept
    assert answer.finish.type == "stop"
    assert answer.finish.matched in stop
    whole = kept + answer.finish.matched
    assert len(answer.ids) == len(whole), "it ends with the token that completes the stop string"
    lab.at_rest()


def test_stop_string_is_kept_on_request(lab, prompts):
    assert forced(lab(), "hello world!", prompts[17], stop=("lo w",), no_stop_trim=True).text == "hello w"


def test_stop_string_before_min_new_tokens_is_text(lab, prompts):
    answer = forced(lab(), "stop and stop!", prompts[17], stop=("stop",), min_new_tokens=6)
    assert answer.text == "stop and "


def test_a_stop_beats_the_length_at_the_last_token(lab, prompts):
    answer = forced(lab(), "abc", prompts[17], stop=("c",))
    assert (answer.text, answer.finish.type) == ("ab", "stop")


def test_text_held_for_a_stop_string_is_given_at_the_end(lab, prompts):
    answer = forced(lab(), "hello wor", prompts[17], stop=("world",))
    assert (answer.text, answer.finish.type) == ("hello wor", "length")


def test_utf8_over_token_boundaries(lab, prompts):
    answer = forced(lab(), "a€🙂é", prompts[17])
    assert [e.text for e in answer.events] == ["a", "", "", "€", "", "", "", "🙂", "", "é"]
