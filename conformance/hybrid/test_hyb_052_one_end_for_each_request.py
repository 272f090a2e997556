"""HYB-052."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.targets.lane_bench import Client, LaneBench

LENGTH = 4


@check(
    "HYB-052",
    feature="lanes",
    bound="exact: a fault at each of 4 points of an answer, in each way that a lane can fail; one end each, and the "
    "tokens of one right lane",
    sources=(
        "https://github.com/BerriAI/litellm/pull/32835",
        "https://github.com/ai-dynamo/dynamo/pull/7930",
        "https://github.com/BerriAI/litellm/issues/38610",
    ),
)
def test_hyb_052(record_property: Callable[[str, object], None]) -> None:
    """A fault in the middle of a request gives one end and one answer

    Before the first token another lane gets the request; after it another lane goes on from the tokens that the client
    has. Look at events of the lane that was given up, which come late, at the tokens so far, and at a second fault.
    """
    ways = {"dies": _dies, "is silent": _is_silent, "refuses": _refuses}
    points = 0
    for how, fails in ways.items():
        for tokens in range(1 if how == "refuses" else LENGTH):
            client, moved = _run(fails, tokens)
            where = f"a lane that {how} after {tokens} of {LENGTH} tokens"
            assert client.ends, f"{where}: the request never ended"
            assert len(client.ends) == 1, f"{where}: {len(client.ends)} ends, {client.ends}"
            assert client.whole, f"{where}: the answer is {client.tokens}, {client.text!r}, {client.end}"
            assert moved, f"{where}: no other lane was asked, nothing was checked"
            points += 1

    bench = LaneBench()
    client = bench.ask("twice", priority="high")
    bench.lanes["gpu"].step()
    bench.lanes["gpu"].fail()
    bench.lanes["cpu"].fail()
    bench.finish()
    assert [end.status for end in client.ends] == [503], f"after two faults: {client.ends or 'no end'}"
    assert all(name in str(client.end.message) for name in ("'gpu'", "'cpu'")), f"it names not both: {client.end}"
    running = [state.running for state in bench.front.states]
    assert running == [0, 0], f"requests that have ended still take {running} places"
    record_property("evidence", f"{points} faults, one end and one whole answer each")


def _run(fails: Callable[[LaneBench], None], tokens: int) -> tuple[Client, bool]:
    """Return the client, and whether its request was in another lane afterwards."""
    bench = LaneBench(idle_timeout=5.0)
    client = bench.ask("one", priority="high", new=LENGTH)
    other = bench.ask("other", priority="low", new=LENGTH)
    if fails is _refuses:
        bench.lanes["gpu"].down = True
        client = bench.ask("refused", priority="high", new=LENGTH)
    for _ in range(tokens):
        bench.lanes["gpu"].step("one")
    fails(bench)
    name = client.rid
    moved = bench.where(name) == "cpu"
    bench.lanes["gpu"].late(name)
    bench.lanes["cpu"].step(name)
    bench.lanes["gpu"].late(name)
    bench.finish()
    bench.lanes["gpu"].late(name)
    assert other.whole, f"another request's answer is {other.tokens}, {other.ends}"
    return client, moved


def _dies(bench: LaneBench) -> None:
    bench.lanes["gpu"].fail("one")


def _is_silent(bench: LaneBench) -> None:
    bench.now += 3.0
    bench.lanes["cpu"].step()
    bench.wait(2.0)


def _refuses(bench: LaneBench) -> None:
    """It has been refused already."""
