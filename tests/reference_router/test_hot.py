"""Hot prefixes: counted in bounded memory, and turned back into requests."""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path
from typing import Any

import pytest

from gaugeblock.reference.router.hot import HotPrefix, HotPrefixes
from gaugeblock.reference.router.policies.base import RequestView
from gaugeblock.reference.router.view import read
from gaugeblock.reference.router.warm_prompts import load_prompts, rebuilt, warm_prompt

CHAT = "/v1/chat/completions"


def view(prompt: bytes, model: str | None = None, unit: int = 1) -> RequestView:
    return RequestView(model, None, prompt, unit)


def test_what_requests_share_is_what_is_hot() -> None:
    hot = HotPrefixes(slots=8, head=16)
    system = b"a system prompt that all share; "
    for number in range(5):
        hot.note("/generate", view(system + b"question %d" % number))
    hot.note("/generate", view(b"a prompt that nobody else has sent"))
    hot.note("/generate", view(b"short"))
    hot.note(CHAT, view(system + b"another way to ask"))
    assert hot.top(9) == [HotPrefix("/generate", None, 1, system + b"question ")]


def test_unique_prompts_cannot_push_out_a_frequent_one() -> None:
    rng = random.Random(7)
    hot = HotPrefixes(slots=16, head=8)
    for number in range(20_000):
        prompt = b"frequent prompt" if number % 10 == 0 else b"%016x" % rng.getrandbits(64)
        hot.note("/generate", view(prompt))
    assert len(hot) <= 16
    assert hot.top(1)[0].prompt == b"frequent prompt"


def test_old_heat_cools_down() -> None:
    hot = HotPrefixes(slots=1, head=1)
    for _ in range(1023):
        hot.note("/generate", view(b"old"))
    hot.note("/generate", view(b"old"))
    assert hot._entries["/generate", None, 1, b"o"].count < 600


BODIES = [
    ("/generate", {"text": "some text to warm up with"}),
    ("/generate", {"model": "m", "input_ids": [1, 2, 70000, 4]}),
    ("/v1/completions", {"model": "m", "prompt": "some text"}),
    (
        CHAT,
        {"model": "m", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hällo"}]},
    ),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_prefix_becomes_a_request_that_begins_alike(path: str, body: dict[str, Any]) -> None:
    seen = read(path, {}, json.dumps(body).encode(), (), 4096).view
    prompt = rebuilt(HotPrefix(path, seen.model, seen.unit, seen.prompt), 4096)
    assert prompt is not None
    assert (prompt.path, prompt.view) == (path, seen)
    data = json.loads(prompt.body)
    assert data["stream"] is False
    assert data.get("max_tokens") == 1 or data["sampling_params"]["max_new_tokens"] == 1


def test_a_prefix_that_was_cut_is_still_a_prefix() -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hällo"}]
    seen = read(CHAT, {}, json.dumps({"messages": messages}).encode(), (), 4096).view
    for cut in range(9, len(seen.prompt)):
        prompt = rebuilt(HotPrefix(CHAT, None, 1, seen.prompt[:cut]), 4096)
        assert prompt is not None
        assert seen.prompt.startswith(prompt.view.prompt[:-1])  # its last message is ended
    assert rebuilt(HotPrefix(CHAT, None, 1, b"system"), 4096) is None
    assert rebuilt(HotPrefix("/v1/messages", None, 1, b"x"), 4096) is None
    ids = rebuilt(HotPrefix("/generate", None, 4, array("I", [1, 2]).tobytes() + b"\x03"), 4096)
    assert ids is not None
    assert json.loads(ids.body)["input_ids"] == [1, 2]


def test_own_limits_of_a_body_give_way() -> None:
    given = {"messages": [], "max_tokens": 500, "max_completion_tokens": 500, "stream": True, "temperature": 0}
    assert json.loads(warm_prompt(given, 0).body) == {
        "messages": [],
        "max_tokens": 1,
        "stream": False,
        "temperature": 0,
    }


def test_the_file_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('"just text"\n\n{"messages": [{"role": "user", "content": "hi"}]}\n')
    assert [prompt.path for prompt in load_prompts(str(file), 99)] == ["/generate", CHAT]
    file.write_text('"good"\n{"question": 1}\n')
    with pytest.raises(ValueError, match=r"line 2: a prompt must be a string, or an object with one of messages"):
        load_prompts(str(file), 99)
    with pytest.raises(ValueError, match="cannot be read"):
        load_prompts(str(tmp_path / "none"), 99)
