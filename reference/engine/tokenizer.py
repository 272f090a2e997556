"""Text to token ids and back, and the chat template: straight on ``tokenizers`` and ``jinja2``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import tokenizers
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gaugeblock.reference.engine.config import load_json, optional_json
from gaugeblock.reference.engine.errors import ModelError
from gaugeblock.reference.engine.types import RequestError

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """The tokenizer of a model folder.

    Raises:
        ModelError: ``tokenizer.json`` is missing or broken, or the chat template does not parse.
    """

    def __init__(self, model_path: str) -> None:
        folder = Path(model_path)
        path = folder / "tokenizer.json"
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(
                f"cannot read {path}: {error}; a tokenizer.json of the tokenizers library is needed"
            ) from error
        self._settings = optional_json(folder / "tokenizer_config.json")
        self.special_tokens = _special_tokens(folder, self._settings)
        self.chat_template = _chat_template(folder, self._settings)
        self._template = _compile(self.chat_template, folder) if self.chat_template else None
        self.eos_token_ids = self._eos_ids(folder)
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of ``text``; special tokens that the model's post-processor adds are optional."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ``ids``. Incomplete UTF-8 becomes U+FFFD; ids without a token give nothing."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its name, or None."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Render a conversation. The text has its special tokens in it: encode it with ``add_special_tokens=False``.

        Raises:
            RequestError: the model has no template, or the template refuses the messages.
        """
        if self._template is None:
            raise RequestError("this model has no chat template; use the completions endpoint")
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except (TemplateError, TypeError) as error:
            raise RequestError(f"the chat template refused the messages: {error}") from error

    def _eos_ids(self, folder: Path) -> tuple[int, ...]:
        ids: list[int] = []
        for name in ("generation_config.json", "config.json"):
            value = optional_json(folder / name).get("eos_token_id")
            ids += value if isinstance(value, list) else [] if value is None else [value]
        named = self.token_id(self.special_tokens.get("eos_token", ""))
        return tuple(dict.fromkeys([*ids, *([] if named is None else [named])]))


def _special_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    sources: Iterable[Mapping[str, Any]] = (optional_json(folder / "special_tokens_map.json"), settings)
    found: dict[str, str] = {}
    for source in sources:
        for name in SPECIAL_TOKENS:
            value = source.get(name)
            value = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(value, str):
                found[name] = value
    return found


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if template is None and (folder / "chat_template.json").is_file():
        template = load_json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _compile(source: str, folder: Path) -> Template:
    """Compile a template with the names that Hugging Face's templates may use."""

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ModelError(f"the chat template in {folder} does not parse: {error}") from error
