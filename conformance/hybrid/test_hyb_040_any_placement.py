"""HYB-040."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.placements import EXACT, PAGE, POOL, difference, run_two

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget

EXAMPLES = 4


@check(
    "HYB-040",
    feature="placement",
    bound=EXACT,
    sources=(
        "https://github.com/huggingface/transformers/issues/20896",
        "https://github.com/huggingface/transformers/issues/30593",
    ),
)
def test_hyb_040(inprocess: InProcess, placed: PlacedTarget, record_property: Callable[[str, object], None]) -> None:
    """Wherever its operators run, the model gives the same answers

    Placements and chunk sizes are drawn; two requests share steps of chunks and decodes, and all logits and all KV must
    be those of the host alone. The message names the fewest operators on the device that still show it: look at what
    crosses there, the residual first, then at the KV of the layers whose attention they are.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from gaugeblock.fixtures.targets.inprocess_placed import fewest_on_device
    from gaugeblock.reference.hybrid.placement import DEVICE, HOST, PLACES

    names, seen = placed.operators, []
    fields = {"max_total_tokens": POOL, "page_size": PAGE}

    def differs(placement: Mapping[str, str], budgets: list[int]) -> str | None:
        lab = placed.lab(placement, None, None, **fields)
        found = difference(run_two(inprocess.lab(**fields), budgets), run_two(lab, budgets))
        lab.close()
        return found

    def hold(placement: Mapping[str, str], budgets: list[int]) -> None:
        found = differs(placement, budgets)
        if found is not None:
            fewest = fewest_on_device(placement, lambda one: differs(one, budgets) is not None)
            raise AssertionError(
                f"differs from the host in {found}; chunks {budgets}, on the device: {', '.join(fewest)}"
            )
        seen.append(sum(place == DEVICE for place in placement.values()))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate,),  # made smaller operator by operator instead: far fewer runs
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(st.sampled_from(PLACES), min_size=len(names), max_size=len(names)),
        st.lists(st.integers(12, 40), min_size=1, max_size=4),
    )
    def drawn(places: list[str], budgets: list[int]) -> None:
        hold(dict(zip(names, places, strict=True)), budgets)

    hold(dict.fromkeys(names, DEVICE), [17, 15])
    hold({name: (HOST, DEVICE)[number % 2] for number, name in enumerate(names)}, [30, 12, 17])
    drawn()
    crossing = sum(0 < count < len(names) for count in seen)
    assert crossing > EXAMPLES // 2, f"{crossing} of {len(seen)} placements used both devices: nothing was checked"
    record_property("evidence", f"{len(seen)} placements, {min(seen)} to {max(seen)} of {len(names)} operators moved")
