"""``gaugeblock watch`` on the embedded engine: right, wrong, away, and asked for nonsense."""

import json
import subprocess
import sys
import urllib.request
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner

from gaugeblock.conformance.cli.watch import watch
from gaugeblock.fixtures.embedded import embedded_engine, start_embedded_engine, tiny_model
from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.launch import free_port
from gaugeblock.fixtures.similarity import calibration as files
from gaugeblock.fixtures.similarity.measure_null import load_bench, measure_null
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.watch import rounds

pytestmark = pytest.mark.usefixtures("four_prompts")


@pytest.fixture(scope="module")
def url():
    with embedded_engine() as started:
        yield started


@pytest.fixture(scope="module")
def null(tmp_path_factory):
    path = tmp_path_factory.mktemp("null") / "null.json"
    files.save(measure_null(load_bench(tiny_model()), ["bf16"]), path)
    return path


def run(*args):
    done = CliRunner().invoke(watch, [str(arg) for arg in args], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def test_a_right_engine_is_watched_to_the_end(url, null, tmp_path):
    args = ["--calibration", null, "--model", tiny_model(), "--interval", 0.1, "--rounds", 2, "--out", tmp_path]
    done = run(url, *args)
    assert done.return_value == 0
    assert "round 2: 96 positions" in done.output
    assert "result: no alarm in 2 rounds, 96 positions" in done.output
    lines = [json.loads(each) for each in (tmp_path / "watch.jsonl").read_text().splitlines()]
    assert [each["positions"] for each in lines] == [48, 96]
    assert lines[0]["worst"]["overlap"][0] > 0.999
    data = json.loads((tmp_path / "watch.json").read_text())
    assert data["result"] == "passed"
    assert data["footer"]["complete"]


def test_a_wrong_engine_is_confirmed_and_its_metrics_say_so(url, null, monkeypatch):
    port = free_port()
    scraped = []
    taken = rounds.Watcher.round

    def look(self):
        made = taken(self)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            scraped.append(answer.read().decode())
        return made

    monkeypatch.setattr(rounds.Watcher, "round", look)
    args = ["--calibration", null, "--reference", url, "--model", tiny_model(), "--interval", 0.1, "--positions", 4]
    with embedded_engine(fault="engine-norm-epsilon-is-ignored") as wrong:
        done = run(wrong, *args, "--metrics-port", port, "--for", "60s")
    assert done.return_value == 1
    assert "result: a confirmed regression after" in done.output
    assert "gaugeblock_watch_positions_total" in scraped[-1]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_the_lane_that_is_meant_is_asked_for_and_the_one_that_served_is_noted(url, null, tmp_path, monkeypatch):
    sent = []
    post = EngineTarget.post

    def posted(self, path, body, headers=None, limits=None):
        sent.append(headers)
        reply = post(self, path, body, headers, limits)
        if headers is None:
            return reply
        return replace(reply, headers={**reply.headers, "x-gaugeblock-lane": "cpu0", "x-gaugeblock-degraded": "fault"})

    monkeypatch.setattr(EngineTarget, "post", posted)
    args = ["--calibration", null, "--model", tiny_model(), "--rounds", 1, "--out", tmp_path, "--positions", 3]
    assert run(url, *args, "--priority", "low").return_value == 0
    assert sent.count({"x-priority": "low"}) >= 3
    told = json.loads((tmp_path / "watch.jsonl").read_text())
    assert (list(told["seconds"]), told["fallbacks"]) == (["cpu0"], 3)


def test_few_candidates_leave_it_undecided(url, null):
    args = ["--calibration", null, "--reference", url, "--model", tiny_model(), "--interval", 0.1, "--rounds", 2]
    done = run(url, *args, "--top", 1)
    assert done.return_value == 3
    assert "depends on the mass outside the candidates" in done.output


def test_more_candidates_than_the_engine_gives_are_a_matter_of_usage(url, null):
    with pytest.raises(KitError, match=r"does not give 9000 candidates a position: .*\[0, 8192\].* fewer with --top"):
        run(url, "--calibration", null, "--model", tiny_model(), "--rounds", 1, "--top", 9000)


def test_an_engine_that_is_busy_at_first_is_asked_again_how_many_it_gives(url, null, monkeypatch):
    post = EngineTarget.post
    replies = []

    def posted(self, path, body, headers=None, limits=None):
        reply = post(self, path, body, headers, limits)
        if path == "/generate":
            replies.append(reply if replies else replace(reply, status=503))
            return replies[-1]
        return reply

    monkeypatch.setattr(EngineTarget, "post", posted)
    with pytest.raises(KitError, match="does not give 9000 candidates"):
        run(url, "--calibration", null, "--model", tiny_model(), "--rounds", 2, "--interval", 0.1, "--top", 9000)
    assert replies[0].status == 503


def test_an_engine_that_goes_away_for_good_is_unreachable(null, monkeypatch):
    server = start_embedded_engine()
    taken = rounds.Watcher.round

    def stop_after_first(self):
        made = taken(self)
        server.stop()
        return made

    monkeypatch.setattr(rounds.Watcher, "round", stop_after_first)
    args = ["--calibration", null, "--model", tiny_model(), "--interval", 0.05, "--positions", 2, "--patience", "0.1s"]
    done = run(server.url, *args, "--rounds", 100)
    assert done.return_value == 4
    assert "away: " in done.output
    assert "result: unreachable for 0.1 s" in done.output


def test_an_interrupted_watch_says_so_in_its_file(url, null, tmp_path, monkeypatch):
    taken = rounds.Watcher.round

    def interrupted(self):
        if self.rounds == 1:
            raise KeyboardInterrupt
        return taken(self)

    monkeypatch.setattr(rounds.Watcher, "round", interrupted)
    args = ["--calibration", null, "--model", tiny_model(), "--interval", 0.01, "--positions", 2, "--out", tmp_path]
    with pytest.raises(click.Abort):
        run(url, *args)
    data = json.loads((tmp_path / "watch.json").read_text())
    assert (data["result"], data["rounds"]) == ("interrupted", 1)


def test_misuse(url, null, tmp_path):
    base = ["--calibration", null, "--interval", 0.1, "--rounds", 1]
    with pytest.raises(KitError, match="Legal: bf16, int8"):
        run(url, *base, "--gate", "fp32", "--model", tiny_model())
    with pytest.raises(KitError, match="--reference URL"):
        run(url, *base)
    with pytest.raises(KitError, match="needs a null of int8-weights"):
        run(url, *base, "--gate", "int8", "--model", tiny_model())
    with pytest.raises(KitError, match="is no duration"):
        run(url, *base, "--model", tiny_model(), "--patience", "long")
    with pytest.raises(EnvironmentFault, match="no engine"):
        run("http://127.0.0.1:9", *base, "--model", tiny_model())
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(KitError, match="name another folder with --out"):
        run(url, *base, "--model", tiny_model(), "--out", blocker / "inside")
    data = json.loads(null.read_text())
    data["model"]["digest"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(KitError, match="another model"):
        run(url, "--calibration", tmp_path / "other.json", "--model", tiny_model())


def test_an_engine_that_cannot_tokenise_now_has_no_other_tokens(url, null, monkeypatch):
    post = EngineTarget.post

    def posted(self, path, *args, **kwargs):
        reply = post(self, path, *args, **kwargs)
        return replace(reply, status=500) if path == "/tokenize" else reply

    monkeypatch.setattr(EngineTarget, "post", posted)
    with pytest.raises(EnvironmentFault, match=r"does not answer, so nothing can be compared: 500 from .*/tokenize"):
        run(url, "--calibration", null, "--model", tiny_model(), "--rounds", 1)


def test_sigterm_ends_a_watch_with_its_file(url, null, tmp_path):
    few = "import gaugeblock.fixtures.similarity.prompts as p, gaugeblock.conformance.similarity.endpoints as e\n"
    few += "p.texts = e.texts = lambda few=p.texts()[:4]: few\n"
    script = few + "from gaugeblock.conformance.cli.main import run; run()"
    words = [
        "watch",
        url,
        "--calibration",
        null,
        "--reference",
        url,
        "--model",
        tiny_model(),
        "--positions",
        "2",
        "--out",
        tmp_path,
    ]
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline().startswith("round 1: ")
            process.terminate()
            process.wait(30)
        finally:
            process.kill()
    assert process.returncode == 3
    data = json.loads((tmp_path / "watch.json").read_text())
    assert (data["result"], data["rounds"]) == ("interrupted", 1)
