"""The ways in which a server renders a chat wrongly, each with its name: what to call a difference."""

from __future__ import annotations

from gaugeblock.fixtures.oracle import Messages, Oracle

Ids = tuple[int, ...]


def variants(oracle: Oracle, messages: Messages) -> dict[str, Ids]:
    """Token ids of ``messages`` under every known mistake that differs from the right rendering."""
    right = oracle.chat_ids(messages)
    bare = oracle.chat_ids(messages, generation_prompt=False)
    prompt = right[len(bare) :]
    bos = oracle.tokenizer.bos_token_id
    plain = "\n".join(f"{m['role']}: {m['content']}" for m in messages)
    out = {
        "the generation prompt is missing": bare,
        "the generation prompt is doubled": right + prompt,
        "the template is not applied": oracle.encode(plain, add_special_tokens=False),
        "the template is not applied, a plain prompt is sent": oracle.encode(plain),
        "the contents alone are sent, without the template": oracle.encode(
            " ".join(str(m["content"]) for m in messages)
        ),
        "only the last message is rendered": oracle.chat_ids(messages[-1:]),
        "the first message comes last": oracle.chat_ids([*messages[1:], *messages[:1]]),
        "the special tokens are tokenized as text": _as_text(oracle, messages),
    }
    if bos is not None:
        out["the BOS is doubled"] = (bos, *right)
        if right[:1] == (bos,):
            out["the BOS is missing"] = right[1:]
    if messages[0]["role"] == "system":
        out["the system message is dropped"] = oracle.chat_ids(messages[1:])
    else:
        out["a system message is added"] = oracle.chat_ids([{"role": "system", "content": ""}, *messages])
    stripped = [{**m, "content": str(m["content"]).strip()} for m in messages]
    out["the contents are stripped"] = oracle.chat_ids(stripped)
    return {name: ids for name, ids in out.items() if ids and ids != right}


def _as_text(oracle: Oracle, messages: Messages) -> Ids:
    text = oracle.render_chat(messages)
    for token in oracle.special_tokens:
        text = text.replace(token, token[:1] + "\u2060" + token[1:])  # broken up, then counted without the joiner
    joiner = oracle.encode("\u2060", add_special_tokens=False)
    ids = list(oracle.encode(text, add_special_tokens=False))
    width = len(joiner)
    out: list[int] = []
    while ids:
        if tuple(ids[:width]) == joiner:
            del ids[:width]
        else:
            out.append(ids.pop(0))
    return tuple(out)


def name_count(oracle: Oracle, messages: Messages, count: int) -> str:
    """Name the mistakes that would give ``count`` prompt tokens."""
    found = [name for name, ids in variants(oracle, messages).items() if len(ids) == count]
    return " or ".join(found) if found else "no known mistake gives that count"
