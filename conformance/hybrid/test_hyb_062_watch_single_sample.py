"""HYB-062."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check

ROUNDS, SIZE = 10, 20
PLACES = (0, 19, 20, 150)  # draws at which the one bad answer comes


@check(
    "HYB-062",
    feature="watch",
    bound="exact: capital grows at most 128 times by one position, and an alarm takes 2 / α >= 200. Nonsense alone is "
    "confirmed within 5 positions",
    sources=("https://github.com/sgl-project/sglang/issues/31427",),
)
def test_hyb_062(record_property: Callable[[str, object], None]) -> None:
    """One bad answer confirms nothing, whatever it is; nonsense again and again does

    A cosmic ray, a cut answer, one foreign page: not a regression of the model. An answer that holds no distribution is
    as bad as a distribution can be, and not one to leave out. Look at what one position can multiply the capital by.
    """
    import pytest

    from gaugeblock.conformance.hybrid.watched import LENGTHS, limits
    from gaugeblock.fixtures.errors import KitError
    from gaugeblock.fixtures.watch.reading import Draw, Reading
    from gaugeblock.fixtures.watch.rounds import LEAST_ALPHA, MOST_ALPHA, Watcher

    def watch(bad: Callable[[int], bool], broken: str, alpha: float) -> Watcher:
        count = 0

        def measure(draw: Draw) -> Reading:
            nonlocal count
            count += 1
            return Reading(draw, 0.0, 0.0, broken=broken) if bad(count - 1) else Reading(draw, 1.0, 1.0)

        made = Watcher(measure, LENGTHS, limits(), alpha, SIZE)
        for _ in range(ROUNDS):
            made.round()
        return made

    for alpha in (LEAST_ALPHA, 1e-3, MOST_ALPHA):
        for place in PLACES:
            for broken in ("", "not JSON"):
                single = watch(lambda i, place=place: i == place, broken, alpha)  # type: ignore[misc]
                assert not single.certain.alarm, (
                    f"α = {alpha:g}: one bad answer, the {place}th of {ROUNDS * SIZE}, is an alarm"
                )
                assert single.certain.positions == ROUNDS * SIZE, (
                    f"{single.certain.positions} of {ROUNDS * SIZE} answers were taken: an unusable one is left out"
                )
        assert watch(lambda i: i % 4 == 0, "not JSON", alpha).certain.alarm, (
            f"α = {alpha:g}: a quarter of the answers holds no distribution, and nothing is confirmed"
        )
    with pytest.raises(KitError, match="single bad position could alarm"):
        Watcher(lambda draw: Reading(draw, 1.0, 1.0), LENGTHS, limits(), 0.05)
    record_property("evidence", f"{2 * 3 * len(PLACES)} watches with one bad answer")
