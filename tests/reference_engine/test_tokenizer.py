"""The tokenizer and chat template against transformers."""

import shutil

import pytest
from transformers import AutoTokenizer

from gaugeblock.reference.engine.errors import ModelError
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.engine.types import RequestError

TEXTS = ("", "hello world", "  a  b\n", "é€🙂 naïve", "<|bos|>x<|eos|>", "tab\tand\0null")
CHATS = (
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": " trimmed "}, {"role": "assistant", "content": "é"}, {"role": "user", "content": "?"}],
)


@pytest.fixture(params=["random", "golden"])
def model(request):
    return request.getfixturevalue("folder" if request.param == "random" else "golden")


def test_ids_and_text_equal_transformers(model):
    ours, theirs = Tokenizer(str(model)), AutoTokenizer.from_pretrained(model)
    for text in TEXTS:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special), text
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip), text


def test_chat_template_equals_transformers(model):
    ours, theirs = Tokenizer(str(model)), AutoTokenizer.from_pretrained(model)
    for chat in CHATS:
        for prompt in (True, False):
            got = ours.apply_chat_template(chat, add_generation_prompt=prompt)
            assert got == theirs.apply_chat_template(chat, add_generation_prompt=prompt, tokenize=False), chat


def test_end_tokens_and_vocabulary(folder):
    tokenizer = Tokenizer(str(folder))
    assert tokenizer.eos_token_ids == (258,)
    assert tokenizer.vocab_size == 261


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_template_in_a_file_of_its_own_wins(copy):
    (copy / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    assert Tokenizer(str(copy)).apply_chat_template([{"role": "user", "content": "x"}]) == "[x]"


def test_a_template_that_refuses_is_the_clients_fault(copy):
    (copy / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RequestError, match="roles must alternate"):
        Tokenizer(str(copy)).apply_chat_template([])


def test_no_template(copy):
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(RequestError, match="no chat template"):
        Tokenizer(str(copy)).apply_chat_template([])


def test_broken_template(copy):
    (copy / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ModelError, match="does not parse"):
        Tokenizer(str(copy))


def test_a_template_cannot_reach_outside(copy):
    (copy / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(RequestError, match="refused"):
        Tokenizer(str(copy)).apply_chat_template([])
