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
    record_property("evidence", f"{failed} requests ended by {len(FUSES)} failures, the next ones right")


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


def _rows(rows: Rows) -> bytes:
    return rows.tobytes()
