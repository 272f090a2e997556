"""LOAD-002: a genai-bench scenario."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.load.streams import STREAMS, prompt_of
from gaugeblock.conformance.outcome import skipped
from gaugeblock.conformance.plugin import OPTIONS
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures import envs
from gaugeblock.fixtures.load.judge import run_load
from gaugeblock.fixtures.load.preflight import find_endpoint
from gaugeblock.fixtures.load.scenario import Scenario
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.parallel import parallel

TOKENS = 8
SCENARIO = Scenario(f"D(48,{TOKENS})", concurrency=4, max_requests=12, max_minutes=1)


@check(
    "LOAD-002",
    feature="chat",
    level="extended",
    bound="exact: no request fails, every stream tells its usage, and it is the tokens asked for",
    sources=("https://github.com/sgl-project/genai-bench",),
    timeout=240,
)
def test_load_002(engine: EngineTarget, note: Note, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A load generator can measure the engine

    First sixteen chat streams at once, each with the usage chunk from which a load generator counts tokens; then one
    small genai-bench scenario. Look first at stream_options.include_usage, then at errors under concurrency. How
    fast it is, is judged by `gaugeblock load`.
    """
    require(engine, "chat")
    parallel([partial(_chat, engine, number) for number in range(STREAMS)])
    env = envs.find("genai-bench")
    if env is None:
        skipped("genai-bench is not installed: gaugeblock env install genai-bench")
    require(engine, "model-folder")
    endpoint = find_endpoint(engine, None, pytestconfig.stash[OPTIONS].api_key)
    run = run_load(engine, env, endpoint, SCENARIO, (), tmp_path, reports=False)
    assert run.measurement is not None, run.message
    assert run.result == "measured", run.message
    m = run.measurement
    assert m.errors == 0, f"{m.errors} of {m.requests} failed ({m.error_codes}); the first said: {m.first_error}"
    if engine.dialect in ("sglang", "vllm"):
        assert m.output_tokens_mean == TOKENS, f"{m.output_tokens_mean} tokens came on average for {TOKENS}"
    note(
        f"genai-bench {SCENARIO.traffic} at {SCENARIO.concurrency}: {m.requests} requests, {m.rps:.1f}/s, first token "
        f"p50 {m.latencies['ttft']['p50'] * 1e3:.0f} ms, {m.latencies['tpot']['p50'] * 1e3:.1f} ms a token"
    )


def _chat(engine: EngineTarget, number: int) -> None:
    message = [{"role": "user", "content": prompt_of(number)}]
    extra = {"ignore_eos": True} if engine.dialect in ("sglang", "vllm") else {}
    stream = engine.stream_chat(message, max_tokens=TOKENS, **extra)
    where = f"chat stream {number} of {STREAMS} at once"
    assert stream.usage is not None, f"{where}: no usage chunk though include_usage was asked for"
    told = stream.usage.completion_tokens
    assert told <= TOKENS, f"{where}: usage says {told} tokens for {TOKENS}"
    assert told == TOKENS or not extra, f"{where}: usage says {told} tokens for {TOKENS}"
