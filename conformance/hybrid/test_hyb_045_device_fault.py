"""HYB-045."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.hybrid.placements import PAGE, drawn_placement

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import Rows
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedLab, PlacedTarget

FUSES = (0, 1, 17, 60)  # copies until the device fails: at once, in the first chunk, between, in a decode
LENGTH = 3 * PAGE + 5


@check(
    "HYB-045",
    feature="placement",
    bound="exact: one end for each request that ran, no page held or cached afterwards, the next answers bit for bit",
    sources=(
        "https://github.com/sgl-project/sglang/pull/38352",
        "https://github.com/AtomaAI/atoma-infer/issues/177",
    ),
)
def test_hyb_045(placed: PlacedTarget, record_property: Callable[[str, object], None]) -> None:
    """A device that fails ends what runs once, and nothing else

    Each request that ran ends with one abort that names the operator and the device; the one that waited is served when
    the device is back, and nobody gets KV from before: its bytes are not to be trusted. Look at what catches the error
    of a step, and whether it gives back pages and cached ones.
    """
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.inprocess_placed import FailingDevice

    target, operators = placed.target, placed.operators
    prompts = {name: mixed_prompt(name, LENGTH) for name in ("first", "second", "third")}
    want = {
        name: _rows(target.lab(page_size=PAGE).ask(name, prompt, new=4).rows(320)) for name, prompt in prompts.items()
    }
    failed = 0
    for seed, fuse in enumerate(FUSES):
        device = FailingDevice()
        lab = placed.lab(drawn_placement(operators, seed), device, page_size=PAGE, max_running_requests=2)
        lab.ask("before", prompts["first"], new=2, tops=False, logprobs_from=LENGTH - 1)  # leaves pages in the cache
        for name, prompt in prompts.items():
            lab.add(name, prompt, new=4)
        lab.step(LENGTH + 10)
        running = [sequence.rid for sequence in lab.scheduler.running]
        device.copies_left = fuse
        for _ in range(8):
            if any(lab.answers[name].finish for name in running):
                break
            lab.step()
        failed += _hold_ends(lab, running, operators)
        device.copies_left = None
        lab.run()
        lab.add("again", prompts["first"], new=4)
        answers = lab.run()
        for name, source in (("third", "third"), ("again", "first")):
            answer = answers[name]
            ended = None if answer.finish is None else answer.finish.type
            assert ended == "length", f"{name} ended with {answer.finish} after the device was back"
            assert _rows(answer.rows(lab.vocab)) == want[source], (
                f"{name}, after the device had failed, differs from the host"
            )
        lab.close()
    assert failed == 2 * len(FUSES), (
        f"{failed} requests ran when the device failed {len(FUSES)} times, wanted are two each"
    )
    _hold_admission(placed)
    record_property("evidence", f"{failed + 1} requests ended by {len(FUSES) + 1} failures, the next ones right")


def _hold_ends(lab: PlacedLab, running: list[str], operators: tuple[str, ...]) -> int:
    for name in running:
        ends = [event.finish for event in lab.answers[name].events if event.finish is not None]
        assert len(ends) == 1, f"{name} ended {len(ends)} times when the device failed"
        said = ends[0].message or ""
        named = "'pretend'" in said and any(operator in said for operator in operators)
        assert ends[0].type == "abort" and named, (  # noqa: PT018 # one message says both
            f"{name} ended with {ends[0].type}: {said!r}, which names no operator and device"
        )
    pool = lab.scheduler.kv.pool
    assert pool.held == 0, f"{pool.held} pages are held after everything that ran has ended"
    assert pool.idle == 0, f"{pool.idle} pages of before are still cached: nobody knows what the device holds"
    waiting = [sequence.rid for sequence in lab.scheduler.waiting]
    assert waiting == ["third"], f"{waiting} wait instead of the third request"
    return len(running)


def _hold_admission(placed: PlacedTarget) -> None:
    """Let the device fail in an admission: pages were taken, others evicted for them, and one is brought back."""
    from gaugeblock.fixtures.targets.inprocess import mixed_prompt
    from gaugeblock.fixtures.targets.inprocess_placed import FailingDevice

    device = FailingDevice()
    fields = {"page_size": PAGE, "max_total_tokens": 4 * PAGE, "host_kv_tokens": 8 * PAGE}
    lab = placed.lab(dict.fromkeys(placed.operators, "device"), device, None, **fields)
    for name in ("before", "between"):
        lab.ask(name, mixed_prompt(name, LENGTH), tops=False)
    lab.add("admitted", mixed_prompt("before", LENGTH), logprobs_from=LENGTH - 1)
    device.copies_left = LENGTH // PAGE  # so many pages are evicted
    lab.step()
    computed = lab.scheduler.plans[-1:] == [[("admitted", LENGTH)]]
    assert not computed, "the device failed in the step instead of the admission: nothing was checked"
    ends = [event.finish for event in lab.answers["admitted"].events if event.finish is not None]
    assert len(ends) == 1, f"a request ended {len(ends)} times when the device failed at its admission"
    pool = lab.scheduler.kv.pool
    assert pool.free == pool.total, f"{pool.total - pool.free} pages are held or cached after an admission that failed"
    device.copies_left = None
    lab.close()


def _rows(rows: Rows) -> bytes:
    return rows.tobytes()
