"""The watch without a server: draws, rounds, what is kept of the believed side, metrics, the lines it prints."""

import math

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gaugeblock.conformance.cli.watch import seconds_of
from gaugeblock.conformance.similarity.watch_report import line
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.similarity.sequential import Limit, Watch, limits_over, most_hits, positions_needed
from gaugeblock.fixtures.similarity.truncated import Known, known_rows
from gaugeblock.fixtures.watch.asked import Against, Answer
from gaugeblock.fixtures.watch.believed import Engine, Model
from gaugeblock.fixtures.watch.hold import Pace, hold
from gaugeblock.fixtures.watch.metrics import LANES, Metrics
from gaugeblock.fixtures.watch.reading import Away, Draw, Reading, draws
from gaugeblock.fixtures.watch.rounds import Watcher, nearest_rank

LIMITS = (Limit(0.8, 0.002), Limit(0.9, 0.01))


def take(count, *args):
    made = draws(*args)
    return [next(made) for _ in range(count)]


def test_draws_are_even_and_the_seed_decides_them():
    lengths = (3, 1, 0, 6)
    seen = take(10_000, lengths, 7)
    counts = {draw: seen.count(draw) for draw in set(seen)}
    assert set(counts) == {Draw(p, i) for p, n in enumerate(lengths) for i in range(n)}
    assert min(counts.values()) > 850
    assert max(counts.values()) < 1150
    assert take(600, lengths, 7) == seen[:600] != take(600, lengths, 8)
    for none in ((), (0, 0)):
        with pytest.raises(KitError, match="no position to draw"):
            next(draws(none, 0))


def test_the_most_hits_are_the_binomials_quantile():
    assert most_hits(10, 0.0, 0.01) == 0
    assert most_hits(10, 0.5, 0.6) == 5  # P(X > 5) = 0.377, P(X > 4) = 0.623
    assert most_hits(1, 0.3, 0.2) == 1
    assert most_hits(2000, 1e-3, 1e-3) == 8  # Poisson(2): P(X > 8) = 2.4e-4, P(X > 7) = 1.1e-3


def test_limits_over_few_positions_are_never_lower_than_one_of_them():
    over = limits_over((Limit(0.5, 1e-9), Limit(0.9, 0.05)), 100, 1e-3)
    assert over[0] == Limit(0.5, 0.01)
    assert 0.05 < over[1].rate < 0.2


def test_many_at_once_and_one_by_one_are_the_same_test():
    values = np.where(np.random.default_rng(3).random(300) < 0.03, 0.5, 0.99)
    whole, single = Watch(LIMITS), Watch(LIMITS)
    for part in np.array_split(values, 13):
        whole.see_all(part)
    for value in values:
        single.see(float(value))
    assert whole.capital == pytest.approx(single.capital)
    assert (whole.alarm, whole.positions) == (single.alarm, 300)
    assert single.alarm == (positions_needed(values, LIMITS) is not None)
    assert Watch(LIMITS).see_all([]) is False


def test_an_alarm_within_a_round_is_not_talked_away_by_its_end():
    watch = Watch(LIMITS)
    assert watch.see_all([0.0] * 6 + [1.0] * 100_000)
    assert watch.capital < 1 / watch.alpha


def test_a_round_that_breaks_off_keeps_what_was_read():
    count = iter(range(100))

    def measure(draw):
        if next(count) == 4:
            raise Away("gone")
        return Reading(draw, 0.99, 0.99)

    made = Watcher(measure, (50,), LIMITS, size=10).round()
    assert (len(made.readings), made.positions, made.away, made.reached) == (4, 4, "gone", True)
    assert "away: gone" in line(made)


def test_a_slow_round_delays_the_next_one():
    now, begun = [0.0], []

    def measure(draw):
        begun.append(now[0])
        now[0] += 90
        return Reading(draw, 1.0, 1.0)

    def wait(seconds):
        now[0] += seconds

    watcher = Watcher(measure, (50,), LIMITS, size=1)
    assert hold(watcher, Pace(60, 300, seconds=300), lambda made: None, lambda: now[0], wait) == "passed"
    assert begun == [0, 90, 180, 270]


def test_nothing_read_is_not_a_pass():
    def measure(draw):
        raise Away("gone")

    watcher = Watcher(measure, (50,), LIMITS)
    ending = hold(watcher, Pace(1, 300, rounds=2), lambda made: None, lambda: 0.0, lambda seconds: None)
    assert ending == "inconclusive"


def test_the_believed_engine_is_asked_once_a_position():
    asked = []

    def ask(draw):
        asked.append(draw)
        return Answer(Known({3: -0.5, 5: -math.inf}, 1, 40))

    believed = Engine(ask)
    first, again = believed(Draw(0, 1)), believed(Draw(0, 1))
    assert asked == [Draw(0, 1)]
    assert first == again == Known({3: -0.5, 5: -math.inf}, 1, 40)
    with pytest.raises(Away, match="gives no distribution: nonsense"):
        Engine(lambda draw: Answer(None, broken="nonsense"))(Draw(0, 0))


def test_a_model_is_believed_by_its_best_candidates():
    logits = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    row = Model([logits])(Draw(0, 1))
    wanted = known_rows((logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float64), 50)[1]
    assert row.top == 50
    assert row.rest == 0.0
    assert row.logprobs == pytest.approx(wanted.logprobs, abs=1e-5)


def test_an_unusable_answer_overlaps_by_nothing():
    reading = Against(lambda draw: Answer(None, 0.1, "cpu", broken="NaN"), lambda draw: Known({0: 0.0}, 1))(Draw(0, 0))
    assert (reading.low, reading.high, reading.broken, reading.lane) == (0.0, 0.0, "NaN", "cpu")


@pytest.mark.parametrize("alpha", [0.0, 0.02, 1.0, math.nan])
def test_a_false_alarm_rate_out_of_range_is_refused(alpha):
    with pytest.raises(KitError, match=r"give 1e-09 to 0\.01"):
        Watcher(lambda draw: Reading(draw, 1.0, 1.0), (50,), LIMITS, alpha)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("2d", 172800), ("0.5m", 30)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "1h 30m", "-5s", "fast"])
def test_what_is_no_duration_is_said(text):
    with pytest.raises(KitError, match="give one such as 90s"):
        seconds_of(text)


def test_nearest_rank():
    assert nearest_rank([3.0, 1.0, 2.0], 0.5) == 2.0
    assert nearest_rank([3.0, 1.0, 2.0], 0.99) == 3.0
    assert nearest_rank([3.0, 1.0, 2.0], 0.0) == 1.0
    assert math.isnan(nearest_rank([], 0.5))


def samples(metrics):
    families = text_string_to_metric_families(metrics.expose().decode())
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_by_lane_and_round():
    answers = [("gpu", 0.9, 1.0, "", ""), ("cpu", 0.5, 0.6, "overload", ""), ("cpu", 0.0, 0.0, "", "NaN")]
    plan = iter(answers)

    def measure(draw):
        lane, low, high, fallback, broken = next(plan, (None,) * 5)
        if lane is None:
            raise Away("gone")
        return Reading(draw, low, high, 0.03, lane=lane, fallback=fallback, broken=broken)

    watcher = Watcher(measure, (50,), LIMITS, size=3)
    metrics = Metrics(60.0, lambda: 1234.0)
    metrics.note(watcher.round())
    metrics.note(watcher.round())
    seen = samples(metrics)
    name = "gaugeblock_watch_"
    assert seen[name + "rounds_total", ("outcome", "read")] == 1
    assert seen[name + "rounds_total", ("outcome", "unreachable")] == 1
    assert seen[name + "positions_total", ("lane", "cpu")] == 2
    assert seen[name + "fallbacks_total", ("lane", "cpu")] == 1
    assert seen[name + "broken_answers_total", ("lane", "cpu")] == 1
    assert seen[name + "request_seconds_count", ("lane", "gpu")] == 1
    assert seen[name + "overlap", ("bound", "low"), ("quantile", "0.5")] == 0.5
    assert seen[name + "overlap", ("bound", "high"), ("quantile", "0.5")] == 0.6
    assert seen[(name + "last_round_timestamp_seconds",)] == 1234
    assert seen[(name + "interval_seconds",)] == 60


def test_lanes_that_an_endpoint_invents_do_not_grow_the_metrics():
    number = iter(range(1000))
    watcher = Watcher(lambda draw: Reading(draw, 1.0, 1.0, lane=f"lane-{next(number)}"), (50,), LIMITS, size=100)
    metrics = Metrics(60.0, lambda: 0.0)
    metrics.note(watcher.round())
    lanes = [key for key in samples(metrics) if key[0] == "gaugeblock_watch_positions_total"]
    assert len(lanes) == LANES + 1
    assert samples(metrics)["gaugeblock_watch_positions_total", ("lane", "other")] == 100 - LANES
