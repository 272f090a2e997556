"""HYB-064."""

from __future__ import annotations

from collections.abc import Callable, Container

from gaugeblock.conformance.check import check

INTERVAL, PATIENCE = 60.0, 300.0
ROUNDS, SIZE = 20, 10


@check(
    "HYB-064",
    feature="watch",
    bound="exact: 10 positions a round that was read, none of one that was not; unreachable once the endpoint has been "
    "away for 300 s without a break",
    sources=("https://github.com/sgl-project/sglang/issues/38319",),
)
def test_hyb_064(record_property: Callable[[str, object], None]) -> None:
    """Rounds in which the endpoint is away count as away: not as good, not as bad, and only in a row as gone

    A restart every hour is not the end of a watch, and six minutes of silence are. Look at when the waiting begins
    anew, and at what is fed to the test in a round without answers.
    """
    from gaugeblock.conformance.hybrid.watched import watcher
    from gaugeblock.fixtures.watch.hold import Ending, Pace, hold
    from gaugeblock.fixtures.watch.reading import Away, Draw, Reading
    from gaugeblock.fixtures.watch.rounds import Round, Watcher

    def run(away: Container[int]) -> tuple[Ending, Watcher, list[Round]]:
        now = 0.0
        made: list[Round] = []

        def measure(draw: Draw) -> Reading:
            if len(made) + 1 in away:
                raise Away("refused the connection")
            return Reading(draw, 0.99, 0.99)

        def wait(seconds: float) -> None:
            nonlocal now
            now += seconds

        watch = watcher(measure, size=SIZE)
        pace = Pace(INTERVAL, PATIENCE, rounds=ROUNDS)
        return hold(watch, pace, made.append, lambda: now, wait), watch, made

    short = set(range(2, 20, 3))  # every third round, 360 s all together
    ending, watch, made = run(short)
    assert ending == "passed", f"an endpoint that is away for one round at a time ends the watch: {ending}"
    told = [each.number for each in made if each.away]
    assert told == sorted(short), f"the endpoint was away in the rounds {sorted(short)}, told are {told}"
    assert watch.certain.positions == SIZE * (ROUNDS - len(short)), (
        f"{watch.certain.positions} positions are counted; {ROUNDS - len(short)} rounds of {SIZE} were read, in the "
        f"others the endpoint was away"
    )
    ending, watch, made = run(range(5, 1000))
    assert (ending, len(made)) == ("unreachable", 10), (
        f"an endpoint that is away from round 5 on, with a patience of {PATIENCE:g} s: {ending} after {len(made)} "
        "rounds"
    )
    ending, _, _ = run(range(17, 1000))
    assert ending == "passed", f"the rounds end before the patience does: {ending}"
    record_property("evidence", f"{len(short)} rounds away one at a time, then one long absence: {len(made)} rounds")
