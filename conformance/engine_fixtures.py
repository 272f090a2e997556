"""Fixtures of the checks on an engine: the target (each URL, or the embedded reference) and its oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gaugeblock.conformance.check import Check
from gaugeblock.conformance.engine.bounds import Bound, bound_of
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.plugin import OPTIONS, TARGETS
from gaugeblock.conformance.requires import require
from gaugeblock.fixtures.embedded import embedded_engine, tiny_model
from gaugeblock.fixtures.oracle import Oracle, oracle_for
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.options import TargetOptions
from gaugeblock.fixtures.targets.probe import FEATURES

TIMEOUT = 90.0
"""Total seconds of one call, unless --gb-timeout says otherwise: ten times the slowest on an idle CPU (2049 tokens)."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each engine check once a URL; the embedded reference is the empty one."""
    if "engine_url" in metafunc.fixturenames:
        urls = metafunc.config.stash[OPTIONS].engine_urls or ("",)
        metafunc.parametrize("engine_url", urls, ids=[url or "embedded" for url in urls], scope="session")


@pytest.fixture(scope="session")
def engine_session(engine_url: str, request: pytest.FixtureRequest) -> Iterator[EngineTarget]:
    """The engine of this session, probed; the embedded reference runs for its length.

    Raises:
        EnvironmentFault: nothing answers at the URL, or what answers is no engine.
    """
    options = request.config.stash[OPTIONS]
    timeout = options.request_timeout or TIMEOUT
    needs_oracle = any("oracle" in getattr(item, "fixturenames", ()) for item in request.session.items)
    if needs_oracle and not engine_url:
        oracle_for(Path(options.model) if options.model else tiny_model()).warm()  # while the server starts
    with _address(engine_url, options) as url:
        target = EngineTarget(url, api_key=options.api_key, model_path=options.model, timeout=timeout)
        request.config.stash[TARGETS][engine_url or "embedded engine"] = target.probed.describe()
        if needs_oracle and target.folder is not None:
            oracle_for(target.folder).warm()
        yield target


@pytest.fixture
def engine(engine_session: EngineTarget, request: pytest.FixtureRequest) -> EngineTarget:
    """The engine under check, which offers the feature that the check's record names (else: unsupported)."""
    record = getattr(request.function, "gaugeblock_check", None)
    if isinstance(record, Check) and record.feature in FEATURES:
        require(engine_session, record.feature)
    return engine_session


@contextmanager
def _address(url: str, options: TargetOptions) -> Iterator[str]:
    if url:
        yield url
        return
    with embedded_engine(options.model, options.fault) as started:
        yield started


@pytest.fixture(scope="session")
def bound(engine_session: EngineTarget) -> Bound:
    """How far two right answers of this engine may lie apart."""
    return bound_of(engine_session)


@pytest.fixture(scope="session")
def oracle(engine_session: EngineTarget) -> Oracle:
    """Tokenizer and template of the served model's folder; a check that needs its logprobs requires ``oracle``."""
    require(engine_session, "model-folder")
    assert engine_session.folder is not None
    return oracle_for(engine_session.folder)


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Call it with what was measured: it becomes evidence in the verdict."""
    return lambda text: record_property("evidence", text)
