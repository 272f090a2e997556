"""The example alert rules: a rule file of Prometheus' schema, about metrics that are really exposed."""

import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gaugeblock.fixtures.similarity.sequential import Limit
from gaugeblock.fixtures.watch.metrics import Metrics as WatchMetrics
from gaugeblock.fixtures.watch.reading import Reading
from gaugeblock.fixtures.watch.rounds import Watcher
from gaugeblock.reference.engine.http.metrics import COUNTERS, GAUGES
from gaugeblock.reference.engine.http.metrics import Metrics as EngineMetrics
from gaugeblock.reference.hybrid.lane_metrics import LaneMetrics
from gaugeblock.reference.hybrid.lanes import Condition
from gaugeblock.reference.router.app import RouterApp
from gaugeblock.reference.router.breaker import State
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "examples" / "alerts.yml"
NAME = re.compile(r"\b(?:gaugeblock|router)_[a-z0-9_]+\b")
WORDS = {"histogram_quantile", "sum", "by", "rate", "increase", "time", "absent", "ignoring", "group_left"}
DURATION = re.compile(r"\d+[smhd]")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


class Strict(yaml.SafeLoader):
    """Refuses a key that comes twice, as Prometheus does."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice: {keys}"
        return super().construct_mapping(node, deep)


def load(text):
    return yaml.load(text, Loader=Strict)  # a SafeLoader: no tag makes an object


@pytest.fixture(scope="module")
def rules():
    return [rule for group in load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_it_is_a_rule_file():
    data = load(ALERTS.read_text())
    assert set(data) == {"groups"}
    names = [group["name"] for group in data["groups"]]
    assert len(names) == len(set(names)) > 3
    alerts = []
    for group in data["groups"]:
        assert set(group) == {"name", "rules"}
        for rule in group["rules"]:
            assert (
                {"alert", "expr", "labels", "annotations"}
                <= set(rule)
                <= {"alert", "expr", "for", "labels", "annotations"}
            )
            assert re.fullmatch(r"[A-Za-z_]\w*", rule["alert"])
            assert isinstance(rule["expr"], str)
            assert DURATION.fullmatch(rule.get("for", "0s"))
            assert rule["labels"].keys() == {"severity"}
            assert set(rule["annotations"]) == {"summary", "description"}
            assert all(isinstance(text, str) for text in rule["annotations"].values())
            alerts.append(rule["alert"])
    assert len(alerts) == len(set(alerts))


def test_expressions_balance_and_use_known_words(rules):
    for rule in rules:
        expr = rule["expr"]
        assert all(expr.count(a) == expr.count(b) for a, b in ("()", "[]", "{}")), expr
        bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expr)
        bare = re.sub(r"\{[^}]*\}|\b(by|ignoring|group_left)\s*\([^)]*\)", "", bare)
        words = set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - WORDS
        assert words == set(NAME.findall(bare)), f"{rule['alert']}: {words}"
        ranges = re.findall(r"\[([^\]]*)\]", expr)
        assert all(DURATION.fullmatch(each) for each in ranges), expr
        assert bool(ranges) == bool(re.search(r"\b(rate|increase)\(", expr)), expr


def exposed_by(text):
    """Return series names with the labels that were seen, and of what kind each family is."""
    names = {}
    for family in text_string_to_metric_families(text):
        for suffix in SUFFIXES.get(family.type, ("",)):
            names.setdefault(family.name + suffix, set())
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


class Idle:
    """An engine that has done nothing."""

    def stats(self):
        return SimpleNamespace(**{field: 0 for field, _ in [*GAUGES.values(), *COUNTERS.values()]})


@pytest.fixture(scope="module")
def exposed():
    watch = WatchMetrics(60.0, lambda: 0.0)
    watch.note(Watcher(lambda draw: Reading(draw, 1.0, 1.0, lane="cpu"), (9,), (Limit(0.5, 0.01),)).round())
    state = SimpleNamespace(
        lane=SimpleNamespace(name="cpu"),
        breaker=SimpleNamespace(state=State.CLOSED),
        condition=Condition.SERVES,
        running=0,
    )
    lanes = LaneMetrics([state], Counter)
    lanes.requests.labels("cpu", "stop").inc()
    lanes.degraded.labels("cpu", "fault").inc()
    lanes.crashes.labels("cpu", "RuntimeError").inc()
    config = RouterConfig(worker_urls=("http://127.0.0.1:9",))
    router = RouterApp(config)
    worker = Worker(config.specs[0], config, time.monotonic)  # as starting would: that needs a running loop
    router.registry.workers[worker.id] = worker
    router.metrics.note("/generate", 200, 0.1)
    texts = (
        watch.expose(),
        EngineMetrics(Idle()).exposition(),
        generate_latest(lanes.registry),
        router.metrics.expose(),
    )
    found = {}
    for text in texts:
        found |= exposed_by(text.decode())
    return found


def test_every_metric_that_is_named_is_exposed(rules, exposed):
    used = {name: rule["alert"] for rule in rules for name in NAME.findall(rule["expr"])}
    assert len(used) > 15
    missing = {name: alert for name, alert in used.items() if name not in exposed}
    assert not missing
    for part in ("gaugeblock_watch_", "gaugeblock_engine_", "gaugeblock_lane_", "router_"):
        assert any(name.startswith(part) for name in used), f"no rule about {part}*"


def test_labels_that_are_asked_for_are_there(rules, exposed):
    scraped = {"instance", "job"}  # which Prometheus adds
    for rule in rules:
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", rule["expr"]):
            assert set(re.findall(r"(\w+)=", matchers)) <= exposed[name] | scraped, rule["alert"]
        seen = set().union(*(exposed[name] for name in NAME.findall(rule["expr"]))) | scraped
        for labels in re.findall(r"\b(?:by|ignoring)\s*\(([^)]*)\)", rule["expr"]):
            assert {label.strip() for label in labels.split(",")} <= seen, rule["alert"]
        for label in re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())):
            assert label in seen, f"{rule['alert']} shows {label}"


def test_the_test_sees_a_name_that_is_not_exposed(exposed):
    registry = CollectorRegistry()
    Gauge("gaugeblock_watch_overlap", "", registry=registry)
    assert "gaugeblock_watch_overlap" in exposed_by(generate_latest(registry).decode())
    assert "gaugeblock_watch_overlaps" not in exposed
    with pytest.raises(AssertionError, match="twice"):
        load("a: 1\na: 2\n")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' promtool is not installed")
def test_promtool_takes_it():
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
