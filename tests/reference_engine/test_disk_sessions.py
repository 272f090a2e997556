"""The engine's KV on disk: sessions outlive the process, and a bad folder or disk is said, not suffered."""

import json
import math
import shutil
import sqlite3
import threading

import pytest

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.targets.inprocess import mixed_prompt
from gaugeblock.reference.engine import engine as engine_module
from gaugeblock.reference.engine import model
from gaugeblock.reference.engine.engine import Engine
from gaugeblock.reference.engine.errors import ConfigError
from gaugeblock.reference.engine.types import EngineConfig, GenerateRequest, SamplingParams
from gaugeblock.reference.kv import build as kv_build
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.policies import POLICIES

PROMPTS = [mixed_prompt(f"session {i}", 100) for i in range(3)]  # 6 full pages each


def engine(folder, **fields):
    return Engine(EngineConfig(str(tiny_model()), max_total_tokens=160, disk_kv_path=str(folder), **fields))


def ask(running, prompt, salt=""):
    """Return the answer's tokens and how many prompt tokens came from a cache."""
    events, done = [], threading.Event()

    def sink(event):
        events.append(event)
        if event.finish:
            done.set()

    sampling = SamplingParams(max_new_tokens=4, temperature=0.0, ignore_eos=True)
    running.submit(GenerateRequest(f"{salt}{len(prompt)}{id(done)}", prompt, sampling, cache_salt=salt), sink)
    assert done.wait(60)
    assert events[-1].finish.type == "length", events[-1].finish
    return [event.token_id for event in events], events[0].cached_tokens


def until(condition):
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("not within 10 s")


def session(folder, prompts=PROMPTS, salt="", **fields):
    running = engine(folder, **fields)
    running.start()
    try:
        return [ask(running, prompt, salt) for prompt in prompts], running
    finally:
        running.stop()


@pytest.mark.parametrize("host", [0, 64], ids=["disk alone", "host between"])
def test_sessions_come_back_after_a_restart(tmp_path, host):
    cold, _ = session(tmp_path / "kv", host_kv_tokens=host)
    warm, running = session(tmp_path / "kv", host_kv_tokens=host)
    assert [hit for _, hit in cold] == [0, 0, 0]
    assert [hit for _, hit in warm] == [96, 96, 96]
    assert [tokens for tokens, _ in warm] == [tokens for tokens, _ in cold]
    stats = running.scheduler.count()
    assert stats.disk_loaded_tokens_total + stats.prefetched_tokens_total >= 3 * 96
    assert stats.disk_failures_total == stats.disk_skipped_tokens_total == 0
    running.scheduler.kv.recount()


def test_another_salt_finds_nothing(tmp_path):
    session(tmp_path / "kv", PROMPTS[:1], salt="tenant a")
    assert session(tmp_path / "kv", PROMPTS[:1], salt="tenant b")[0][0][1] == 0
    assert session(tmp_path / "kv", PROMPTS[:1], salt="tenant a")[0][0][1] == 96


def test_a_damaged_page_is_computed_again(tmp_path):
    cold, _ = session(tmp_path / "kv", PROMPTS[:1])
    for path in (tmp_path / "kv" / "pages").iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    warm, running = session(tmp_path / "kv", PROMPTS[:1])
    assert warm[0] == (cold[0][0], 0)
    assert running.scheduler.count().disk_damaged_pages_total >= 1


def test_two_engines_on_one_folder(tmp_path):
    first = engine(tmp_path / "kv")
    first.start()
    try:
        with pytest.raises(ConfigError, match="process"):
            engine(tmp_path / "kv")
        assert ask(first, PROMPTS[0])[1] == 0
    finally:
        first.stop()
    assert session(tmp_path / "kv", PROMPTS[:1])[0][0][1] == 96, "the first one's pages are there, and the lock is not"


@pytest.mark.parametrize(("field", "value"), [("rms_norm_eps", 0.002), ("rope_theta", 500000.0)])
def test_a_model_of_equal_weights_and_other_constants_is_refused(tmp_path, field, value):
    session(tmp_path / "kv", PROMPTS[:1])
    shutil.copytree(tiny_model(), tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    for section in (config, config["rope_parameters"]):
        if field in section:
            section[field] = value
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="model, page size or version differ"):
        Engine(EngineConfig(str(tmp_path / "other"), max_total_tokens=160, disk_kv_path=str(tmp_path / "kv")))


def test_a_start_that_fails_leaves_the_folder_to_the_next(tmp_path, monkeypatch):
    for owner, name in ((model, "KVStorage"), (kv_build, "DiskTier")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *args, **options: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                engine(tmp_path / "kv")
    assert session(tmp_path / "kv", PROMPTS[:1])[0][0][1] == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_gives_the_answers_of_an_engine_without_tiers(tmp_path, policy):
    """Small tiers, so that pages go from each; each prompt twice, and once more after a restart with a smaller disk."""
    bare = Engine(EngineConfig(str(tiny_model())))
    bare.start()
    wanted = [ask(bare, prompt)[0] for prompt in PROMPTS]
    bare.stop()
    fields = {"kv_policy": policy, "host_kv_tokens": 64, "page_size": 8}
    hits = 0
    for disk in (256, 128):
        answers, running = session(tmp_path / "kv", PROMPTS + PROMPTS[::-1], disk_kv_tokens=disk, **fields)
        assert [tokens for tokens, _ in answers] == wanted + wanted[::-1]
        hits += sum(hit for _, hit in answers)
        stats = running.scheduler.count()
        assert 0 < stats.disk_tokens <= disk
        assert stats.host_tokens <= 64
        running.scheduler.kv.recount()
    assert hits > 0
    assert stats.evicted_tokens_total > 0


def test_without_a_prefix_cache_nothing_is_kept(tmp_path):
    for _ in range(2):
        answers, running = session(tmp_path / "kv", PROMPTS[:1], prefix_cache=False)
        assert answers[0][1] == running.scheduler.count().disk_tokens == 0


def test_another_layout_is_refused_and_keeps_its_pages(tmp_path):
    session(tmp_path / "kv", PROMPTS[:1])
    with pytest.raises(ConfigError, match="kv"):
        engine(tmp_path / "kv", page_size=8)
    assert session(tmp_path / "kv", PROMPTS[:1])[0][0][1] == 96


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"disk_kv_tokens": 0}, "disk tier of 0 bytes holds no page"),
        ({"kv_policy": "newest"}, "kv_policy must be one of lru"),
        ({"host_kv_tokens": -1}, "host_kv_tokens must be >= 0"),
    ],
)
def test_a_bad_field_is_named(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        engine(tmp_path / "kv", **fields)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot hold KV pages"):
        engine(tmp_path / "file" / "kv")


def test_a_broken_index_costs_hits_not_answers(tmp_path):
    cold, _ = session(tmp_path / "kv", PROMPTS[:1])
    for path in (tmp_path / "kv").glob("index.sqlite*"):
        path.write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.DatabaseError), sqlite3.connect(tmp_path / "kv" / "index.sqlite") as connection:
        connection.execute("select count(*) from sqlite_master")
    warm, _ = session(tmp_path / "kv", PROMPTS[:1])
    assert warm[0][0] == cold[0][0]


def test_a_flush_over_a_slow_disk_is_said_and_the_engine_goes_on(tmp_path, monkeypatch):
    running = engine(tmp_path)
    running.start()
    try:
        first = ask(running, PROMPTS[0])
        disk = running.scheduler.kv.offload.disk
        with monkeypatch.context() as patch:
            patch.setattr(disk, "settle", lambda: (_ for _ in ()).throw(KVError("1 writes did not end in 30 s")))
            with pytest.raises(TimeoutError, match="did not end in 30 s"):
                running.flush_cache()
        assert running.healthy
        tokens, cached = ask(running, PROMPTS[0])
        assert (tokens, cached) == (first[0], 96), "a flush that failed forgot what the device has"
        assert running.flush_cache() is True
        assert ask(running, PROMPTS[0]) == (first[0], 0)
    finally:
        running.stop()


def test_a_save_that_fails_still_lets_go_of_the_folder(tmp_path, monkeypatch):
    running = engine(tmp_path)
    running.start()
    ask(running, PROMPTS[0])
    monkeypatch.setattr(running.scheduler.kv.offload, "save", lambda pages: (_ for _ in ()).throw(KVError("too slow")))
    running.stop()
    session(tmp_path)


def test_an_idle_engine_shows_that_the_disk_is_well_again_and_what_was_written(tmp_path, monkeypatch):
    """A gauge that says what was so at the last request would alarm for as long as nobody asks."""
    monkeypatch.setattr(engine_module, "IDLE_SECONDS", 0.01)
    running = engine(tmp_path)
    disk = running.scheduler.kv.offload.disk
    disk._retry_writes = math.inf
    running.start()
    try:
        ask(running, PROMPTS[0])
        assert running.stats().disk_degraded == 1
        disk._retry_writes = -math.inf
        until(lambda: running.stats().disk_degraded == 0)
        written = running.stats().disk_stored_tokens_total
        ask(running, PROMPTS[1])
        ask(running, PROMPTS[2])  # pages of the first two leave the device
        until(lambda: running.stats().disk_stored_tokens_total > written)
    finally:
        running.stop()
