"""How the checks on planners run over drawn problems: the same ones every time, the counterexample made small."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from gaugeblock.reference.hybrid.profile import Profile


def drawn(problems: SearchStrategy[Profile], judge: Callable[[Profile], None], examples: int) -> None:
    """Judge ``examples`` drawn profiles.

    Raises:
        AssertionError: of the smallest one that fails.
    """

    @settings(
        max_examples=examples,
        derandomize=True,  # the same problems in every run
        database=None,
        deadline=None,  # the check has a time limit of its own
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(problems)
    def run(profile: Profile) -> None:
        judge(profile)

    run()
