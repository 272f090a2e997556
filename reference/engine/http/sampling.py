"""Sampling parameters from a request's fields; the native and the OpenAI API share most names."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass

from gaugeblock.reference.engine.http.errors import bad
from gaugeblock.reference.engine.http.fields import Fields, as_integer, as_number, shown, well_formed
from gaugeblock.reference.engine.types import SamplingParams

MAX_SAMPLES = 128  # n of one request
MAX_STOPS = 64
SEEDS = 2**63
STRIDE = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: seeds of sibling samples lie far apart

SHARED = frozenset({"n", "temperature", "top_p", "top_k", "min_p", "stop", "stop_token_ids", "logit_bias"})
SHARED |= {"frequency_penalty", "presence_penalty", "repetition_penalty"}
SHARED |= {"ignore_eos", "skip_special_tokens", "no_stop_trim"}
NATIVE = SHARED | {"max_new_tokens", "min_new_tokens", "sampling_seed"}
INERT = frozenset({"spaces_between_special_tokens", "stream_interval", "custom_params"})  # no effect on this engine
UNSUPPORTED = ("json_schema", "regex", "ebnf", "structural_tag", "stop_regex")


@dataclass(frozen=True)
class Sampling:
    """How to sample one prompt: ``n`` samples. ``asked`` tells whether the client set the number of new tokens."""

    params: SamplingParams
    n: int
    asked: bool

    def sample(self, index: int) -> SamplingParams:
        """The parameters of one of the n samples: with a seed each has another, and the first has the client's."""
        seed = self.params.seed
        return self.params if seed is None else dataclasses.replace(self.params, seed=(seed + index * STRIDE) % SEEDS)


def native_sampling(fields: Fields, vocab_size: int) -> Sampling:
    """Read ``sampling_params`` of ``/generate``.

    Raises:
        ApiError: 400, an illegal value or an unknown name.
    """
    refuse_unsupported(fields, UNSUPPORTED)
    for name in fields:
        if name not in NATIVE | INERT:
            near = difflib.get_close_matches(name, NATIVE, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise bad(fields.at(name), f"unknown {fields.at(name)}.{hint} Legal: {', '.join(sorted(NATIVE))}")
    asked = fields.maybe_integer("max_new_tokens", 0)
    minimum = fields.integer("min_new_tokens", 0, 0)
    return read_sampling(fields, vocab_size, asked, 128, minimum, _seed(fields, "sampling_seed"))


def openai_sampling(fields: Fields, vocab_size: int, asked: int | None, default: int) -> Sampling:
    """Read the sampling fields of an OpenAI body; ``default`` new tokens unless ``asked``."""
    minimum = fields.integer("min_tokens", 0, 0)
    return read_sampling(fields, vocab_size, asked, default, minimum, _seed(fields, "seed"))


def read_sampling(
    fields: Fields, vocab_size: int, asked: int | None, default: int, minimum: int, seed: int | None
) -> Sampling:
    """Read the names that both APIs share."""
    params = SamplingParams(
        max_new_tokens=default if asked is None else asked,
        min_new_tokens=minimum,
        temperature=fields.number("temperature", 1.0, 0.0, 1e4),
        top_p=fields.number("top_p", 1.0, 0.0, 1.0, above=True),
        top_k=_top_k(fields, vocab_size),
        min_p=fields.number("min_p", 0.0, 0.0, 1.0),
        seed=seed,
        stop=_stops(fields),
        stop_token_ids=token_ids(fields, "stop_token_ids", vocab_size),
        ignore_eos=fields.flag("ignore_eos"),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2.0, 2.0),
        presence_penalty=fields.number("presence_penalty", 0.0, -2.0, 2.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0, 0.0, 2.0, above=True),
        logit_bias=_logit_bias(fields, vocab_size),
        skip_special_tokens=fields.flag("skip_special_tokens", True),
        no_stop_trim=fields.flag("no_stop_trim"),
    )
    return Sampling(params, fields.integer("n", 1, 1, MAX_SAMPLES), asked is not None)


def refuse_unsupported(fields: Fields, names: tuple[str, ...]) -> None:
    """Refuse fields that would change the answer and that this engine does not have."""
    for name in names:
        if fields.get(name):  # an empty list or false asks for nothing
            raise bad(fields.at(name), f"{fields.at(name)} is not supported by this engine; leave it out")


def token_ids(fields: Fields, name: str, vocab_size: int) -> tuple[int, ...]:
    """A list of token ids, each in the vocabulary; () when absent."""
    value = fields.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise fields.refuse(name, "a list of token ids")
    return check_ids(value, fields.at(name), vocab_size)


def check_ids(values: list[object], path: str, vocab_size: int) -> tuple[int, ...]:
    """``values`` as token ids.

    Raises:
        ApiError: 400, naming the first that is no id of the vocabulary.
    """
    for index, value in enumerate(values):
        if type(value) is not int or not 0 <= value < vocab_size:
            where = f"{path}[{index}]"
            raise bad(where, f"{where} must be a token id in [0, {vocab_size - 1}], got {shown(value)}")
    return tuple(values)  # type: ignore[arg-type] # every element was just seen to be an int


def _seed(fields: Fields, name: str) -> int | None:
    seed = fields.maybe_integer(name, -SEEDS, SEEDS - 1)
    return None if seed is None else seed % SEEDS


def _top_k(fields: Fields, vocab_size: int) -> int:
    top_k = fields.integer("top_k", -1, -1)
    if top_k == 0:
        raise fields.refuse("top_k", "-1 (all) or an integer >= 1")
    return top_k if top_k < vocab_size else -1


def _stops(fields: Fields) -> tuple[str, ...]:
    value = fields.get("stop")
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    legal = f"a non-empty string or a list of at most {MAX_STOPS} of them"
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise fields.refuse("stop", legal)
    return tuple(well_formed(stop, fields.at("stop")) for stop in stops)


def _logit_bias(fields: Fields, vocab_size: int) -> dict[int, float]:
    value = fields.get("logit_bias")
    if value is None:
        return {}
    legal = f"an object from token ids in [0, {vocab_size - 1}] to numbers in [-100, 100]"
    if not isinstance(value, dict):
        raise fields.refuse("logit_bias", legal)
    biases: dict[int, float] = {}
    for key, raw in value.items():
        token, bias = as_integer(int(key) if key.isdecimal() and len(key) < 20 else None), as_number(raw)
        if token is None or token >= vocab_size or bias is None or abs(bias) > 100:
            raise bad(fields.at("logit_bias"), f"{fields.at('logit_bias')} must be {legal}, got {shown({key: raw})}")
        biases[token] = bias
    return biases
