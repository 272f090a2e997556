"""ENG-005: a chat is the same generation as its rendered token ids."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.bounds import WHY, Bound
from gaugeblock.conformance.engine.chat_variants import variants
from gaugeblock.conformance.engine.compare import compare_logprobs, first_line, numbers
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.oracle import Oracle
from gaugeblock.fixtures.targets.answers import Choice, Generation
from gaugeblock.fixtures.targets.engine import EngineTarget

CHATS = (
    [{"role": "system", "content": "You speak like a sailor."}, {"role": "user", "content": "Where is the harbour?"}],
    [
        {"role": "user", "content": "Name a bird."},
        {"role": "assistant", "content": "Heron."},
        {"role": "user", "content": "And another one?"},
    ],
)
TOKENS = 4


@check(
    "ENG-005",
    feature="chat",
    bound=WHY,
    sources=(
        "https://github.com/sgl-project/SpecForge/issues/551",
        "https://github.com/paiml/aprender/pull/2023",
    ),
    timeout=60,
)
def test_eng_005(engine: EngineTarget, oracle: Oracle, bound: Bound, note: Note) -> None:
    """A chat answers as its rendered token ids do

    The prompt has the right length but another content when only this fails: swapped roles, a dropped message, another
    system prompt. The message names the rendering that reproduces what the chat answered, when a known one does.
    """
    require(engine, "chat", "token-ids", "model-folder")
    worst = 0.0
    for messages in CHATS:
        chat = engine.chat(messages, max_tokens=TOKENS, logprobs=True).choices[0]
        assert chat.logprobs, f"chat template: logprobs were asked for and none came: {chat}"
        want = _direct(engine, oracle.chat_ids(messages))
        try:
            worst = max(worst, _agree(chat, want, bound))
        except AssertionError as error:
            raise AssertionError(f"{first_line(error)}; {_name(engine, oracle, messages, chat, bound)}") from None
    note(f"chat against its ids: largest logprob difference {worst:.1e} nats")


def _direct(engine: EngineTarget, ids: tuple[int, ...]) -> Generation:
    return engine.generate(input_ids=ids, sampling={"max_new_tokens": TOKENS}, return_logprob=True)


def _agree(chat: Choice, want: Generation, bound: Bound) -> float:
    assert chat.text == want.text, f"chat template: the chat answers {chat.text!r}, its rendered ids {want.text!r}"
    logprobs = numbers(want.output_logprobs, "chat template")[: len(chat.logprobs or ())]
    return compare_logprobs("chat template", chat.logprobs or (), logprobs, bound)


def _name(engine: EngineTarget, oracle: Oracle, messages: list[dict[str, str]], chat: Choice, bound: Bound) -> str:
    for name, ids in variants(oracle, messages).items():
        try:
            _agree(chat, _direct(engine, ids), bound)
        except AssertionError:
            continue
        return f"it answers as if {name}"
    return "no known mistake reproduces it"
