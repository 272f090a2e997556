"""Chat messages: checking them, and rendering them by the model's template."""

from __future__ import annotations

from typing import Any

from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.fields import Fields, shown, well_formed
from gaugeblock.reference.engine.http.front import Front

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
MAX_MESSAGES = 10_000

Message = dict[str, Any]


def read_messages(body: Fields, name: str = "messages") -> list[Message]:
    """The field's messages with their content as one string each.

    Raises:
        ApiError: 400, naming the message at fault.
    """
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise bad(name, f"{name} must be a non-empty list of messages, got {shown(value)}")
    if len(value) > MAX_MESSAGES:
        raise bad(name, f"{name} holds {len(value)} messages; at most {MAX_MESSAGES} are taken")
    return [_message(item, f"{name}[{index}]") for index, item in enumerate(value)]


def _message(item: Any, path: str) -> Message:
    if not isinstance(item, dict):
        raise bad(path, f"{path} must be an object with role and content, got {shown(item)}")
    fields = Fields(item, path)
    role = fields.get("role")
    if role not in ROLES:
        raise fields.refuse("role", f"one of {', '.join(ROLES)}")
    message: Message = {"role": role, "content": content_text(fields)}
    name = fields.maybe_text("name")
    return message if name is None else {**message, "name": name}


def content_text(fields: Fields) -> str:
    """``content`` as one string: a string, or parts of type text joined."""
    value = fields.get("content")
    if isinstance(value, str):
        return well_formed(value, fields.at("content"))
    if not isinstance(value, list) or not value:
        raise fields.refuse("content", "a string or a non-empty list of text parts")
    return "".join(_part(part, f"{fields.at('content')}[{i}]") for i, part in enumerate(value))


def _part(part: Any, path: str) -> str:
    fields = Fields(part if isinstance(part, dict) else {}, path)
    if fields.get("type") not in TEXT_PARTS:
        legal = ", ".join(sorted(TEXT_PARTS))
        raise bad(
            f"{path}.type", f"{path} must be a part of type {legal}; this model reads text only, got {shown(part)}"
        )
    text = fields.maybe_text("text")
    if text is None:
        raise fields.refuse("text", "a string")
    return text


async def render(front: Front, messages: list[Message], add_generation_prompt: bool = True) -> tuple[int, ...]:
    """Token ids of the rendered chat. The template writes the special tokens, so encoding adds none.

    Raises:
        RequestError: the template refuses the messages.
    """
    text = front.tokenizer.apply_chat_template(messages, add_generation_prompt)
    return tuple(await front.encode(text, add_special_tokens=False))
