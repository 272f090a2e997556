"""Many streams at once, read as a load generator reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from gaugeblock.conformance.outcome import unsupported
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.parallel import parallel

STREAMS = 16
WORDS = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge")


@dataclass(frozen=True)
class Stream:
    """One streamed answer. ``arrivals``: seconds from sending to each chunk with text; ``tokens`` by its usage."""

    arrivals: tuple[float, ...]
    tokens: int
    prompt_tokens: int
    finish: str | None
    text: str

    @property
    def spread(self) -> float:
        """Seconds from the first text to the last."""
        return self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0


def prompt_of(number: int) -> str:
    """Return the prompt of stream ``number``: all differ from the first word on, so that no cache serves them."""
    word = WORDS[number % len(WORDS)]
    return f"{word.capitalize()} {number}: the {word} tells a story that begins like this"


def stream_one(target: EngineTarget, number: int, tokens: int) -> Stream:
    """Stream ``tokens`` tokens; an end-of-sequence token does not end it where the target knows ``ignore_eos``.

    Raises:
        TargetFault: the stream is broken.
    """
    sampling = {"max_new_tokens": tokens, "ignore_eos": True}
    if "native-generate" in target.features:
        native = target.stream_generate(text=prompt_of(number), sampling=sampling)
        deltas = zip(native.arrivals, native.deltas, strict=True)
        final = native.final
        return Stream(
            tuple(at for at, delta in deltas if delta),
            final.completion_tokens,
            final.prompt_tokens,
            final.finish.type if final.finish else None,
            final.text,
        )
    if "completions" not in target.features:
        unsupported(f"{target.url} offers neither /generate nor /v1/completions")
    answer = target.stream_completion(prompt_of(number), max_tokens=tokens, **_ignore_eos(target))
    assert answer.usage is not None, f"{target.url}/v1/completions: no usage chunk though include_usage was asked for"
    usage = answer.usage
    return Stream(answer.arrivals(), usage.completion_tokens, usage.prompt_tokens, answer.finish(), answer.text())


def stream_many(target: EngineTarget, count: int, tokens: int) -> list[Stream]:
    """Stream ``count`` prompts, all sent at the same moment.

    Raises:
        TargetFault: the first stream that is broken.
    """
    return parallel([partial(stream_one, target, number, tokens) for number in range(count)], timeout=target.timeout)


def _ignore_eos(target: EngineTarget) -> dict[str, bool]:
    return {"ignore_eos": True} if target.dialect == "vllm" else {}
