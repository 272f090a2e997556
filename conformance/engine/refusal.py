"""What a refusal must be: a 4xx with a message, and the next request works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gaugeblock.fixtures.prompts import FOX
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.wire import Limits

LIMITS = Limits(idle=20.0, total=20.0)


def must_refuse(engine: EngineTarget, what: str, path: str, body: bytes | Mapping[str, Any], status: int = 0) -> None:
    """Send ``body`` and assert a 4xx (exactly ``status`` when given) whose body carries a message."""
    reply = engine.post(path, body, limits=LIMITS)
    legal = reply.status == status if status else 400 <= reply.status < 500
    assert legal, f"{what}: expected {status or '4xx'}, got {reply.shown}"
    assert message_of(reply.body), f"{what}: refused without a message: {reply.shown}"


def message_of(body: bytes) -> str:
    """Return the human-readable message of an error body: OpenAI's, SGLang's or FastAPI's shape, or plain text."""
    try:
        data = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip()
    if not isinstance(data, dict):
        return ""
    error = data.get("error", data)
    found = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return str(found or "").strip()


def must_still_answer(engine: EngineTarget) -> None:
    """Assert that an ordinary request works."""
    answer = engine.generate(text=FOX, sampling={"max_new_tokens": 2, "ignore_eos": True})
    assert answer.completion_tokens == 2, f"after the refusals 2 tokens were asked for, got {answer.completion_tokens}"
