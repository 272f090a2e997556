"""``gaugeblock compare`` on the embedded engine: right, wrong, unreachable, and asked for nonsense."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from gaugeblock.conformance.cli.calibrate import calibrate
from gaugeblock.conformance.cli.compare import compare
from gaugeblock.fixtures.embedded import embedded_engine, start_embedded_engine, tiny_model
from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.similarity import calibration as files
from gaugeblock.fixtures.similarity.measure_null import load_bench, measure_null
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.forced import Names, Reader
from gaugeblock.fixtures.targets.wire import Wire

pytestmark = pytest.mark.usefixtures("four_prompts")


@pytest.fixture(scope="module")
def url():
    with embedded_engine() as started:
        yield started


def run(*args):
    done = CliRunner().invoke(compare, [str(arg) for arg in args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_an_engine_with_itself_passes_exactly(url, tmp_path):
    done = run(url, url, "--gate", "exact", "--model", tiny_model(), "--out", tmp_path / "c.json")
    assert "result: conformant" in done.output
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["footer"]["complete"]
    assert data["similarity"]["gap"]["value"] == 0.0
    assert data["similarity"]["prompts"] == 4
    assert len(data["engines"]) == 2


def test_a_wrong_engine_fails_fp32_with_the_place(url):
    with embedded_engine(fault="engine-norm-epsilon-is-ignored") as wrong:
        done = run(url, wrong)
    assert "result: nonconformant" in done.output
    assert "first failing rung: distributions" in done.output
    assert "prompt" in done.output


@pytest.fixture(scope="module")
def null():
    return measure_null(load_bench(tiny_model()), ["bf16"])


def test_a_statistical_gate_needs_this_models_calibration(url, null, tmp_path):
    files.save(null, tmp_path / "null.json")
    passed = run(url, url, "--gate", "bf16", "--model", tiny_model(), "--calibration", tmp_path / "null.json")
    assert "result: conformant" in passed.output
    open_ = run(url, url, "--gate", "bf16")
    assert "result: inconclusive" in open_.output
    data = json.loads((tmp_path / "null.json").read_text())
    data["model"]["digest"] = "0" * 64
    (tmp_path / "null.json").write_text(json.dumps(data))
    with pytest.raises(KitError, match="another model"):
        run(url, url, "--gate", "bf16", "--model", tiny_model(), "--calibration", tmp_path / "null.json")


def test_few_candidates_leave_a_statistic_open(url, null, tmp_path):
    files.save(null, tmp_path / "null.json")
    args = ["--gate", "bf16", "--model", tiny_model(), "--calibration", tmp_path / "null.json"]
    done = run(url, url, *args, "--top", 1)
    assert "result: inconclusive" in done.output
    assert "ask for more candidates" in done.output


def test_both_ways_to_read_the_engine_agree(url):
    target = EngineTarget(url, model_path=tiny_model())
    sent = [tuple(range(40, 40 + n)) for n in (3, 20, 60)]
    native = Reader(target, 320, top=5).read(sent)
    by_text = Reader(target, None, Names(), top=5).read(sent)
    for a, b in zip(native, by_text, strict=True):
        assert len(a.ids) == len(b.ids)
        for p, q in zip(a.rows, b.rows, strict=True):
            assert q.ranked[0][0] == pytest.approx(p.ranked[0][0], abs=1e-5)
            assert q.mass == pytest.approx(p.mass, abs=1e-4)


def test_misuse(url):
    with pytest.raises(KitError, match="Did you mean 'bf16'"):
        run(url, url, "--gate", "fb16")
    with pytest.raises(KitError, match="is not a URL"):
        run(url, "localhost:1")
    with pytest.raises(KitError, match=r"does not give 9000 candidates a position: .*\[0, 8192\].* fewer with --top"):
        run(url, url, "--top", "9000")
    with pytest.raises(EnvironmentFault, match="no engine"):
        run(url, "http://127.0.0.1:9")


def answers(monkeypatch, url, path, status):
    """Have the engine at ``url`` answer ``path`` with another status."""
    call = Wire.call

    def called(self, method, asked, *args, **kwargs):
        reply = call(self, method, asked, *args, **kwargs)
        return replace(reply, status=status) if (self.base, asked) == (url, path) else reply

    monkeypatch.setattr(Wire, "call", called)


@pytest.fixture(scope="module")
def another():
    with embedded_engine() as started:
        yield started


def test_an_engine_whose_server_info_fails_does_not_tell_its_dtype(url, another, monkeypatch):
    answers(monkeypatch, another, "/get_server_info", 500)
    done = run(url, another)
    assert "gate bf16" in done.output
    assert "result: inconclusive" in done.output


@pytest.mark.parametrize(("path", "status"), [("/tokenize", 500), ("/generate", 503), ("/generate", 401)])
def test_an_engine_that_fails_differs_in_nothing(url, another, monkeypatch, path, status):
    answers(monkeypatch, another, path, status)
    with pytest.raises(EnvironmentFault, match=f"does not answer, so nothing can be compared: {status} from {another}"):
        run(url, another)


def test_an_engine_that_dies_midway_differs_in_nothing(url, monkeypatch):
    server = start_embedded_engine()
    read = Reader.read

    def stopped(self, prompts):
        if self.target.url == server.url:
            server.stop()
        return read(self, prompts)

    monkeypatch.setattr(Reader, "read", stopped)
    with pytest.raises(EnvironmentFault, match=f"does not answer, so nothing can be compared: {server.url}"):
        run(url, server.url)


def test_an_engine_that_is_too_slow_for_the_limit_differs_in_nothing(url):
    with pytest.raises(EnvironmentFault, match="nothing can be compared"):
        run(url, url, "--timeout", "0.001")


def test_the_calibration_that_is_read_is_not_overwritten(url, null, tmp_path):
    files.save(null, tmp_path / "null.json")
    with pytest.raises(KitError, match="is read by this command"):
        run(url, url, "--calibration", tmp_path / "null.json", "--out", tmp_path / "null.json")


def test_a_calibration_that_cannot_be_written_is_said_before_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("gaugeblock.fixtures.similarity.measure_null.load_bench", lambda *_: pytest.fail("it measured"))
    (tmp_path / "file").write_text("")
    words = ["--model", str(tiny_model()), "--out", str(tmp_path / "file" / "null.json")]
    with pytest.raises(KitError, match="name another file with --out"):
        calibrate.main(words, standalone_mode=False)
