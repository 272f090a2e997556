"""KV-015."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import unsupported

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory


@check(
    "KV-015",
    feature="prefix-cache",
    bound="exact",
    sources=(
        "https://github.com/vllm-project/vllm/issues/29870",
        "https://github.com/sgl-project/sglang/issues/27108",
        "https://github.com/vllm-project/vllm/issues/53498",
    ),
)
def test_kv_015(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """A store that is under way is no hit yet, and one that was abandoned never is

    Two stores of the same prefix are prepared, one is abandoned, one completed, and the room of a third one is not
    given away meanwhile. Look at when a page enters the index. For targets that claim ``two-phase``.
    """
    from gaugeblock.fixtures.targets.kv_probe import KVProbe

    target = kv_target(6, 6)
    if "two-phase" not in target.capabilities:
        unsupported(f"{target.name} does not claim two-phase")
    probe = KVProbe(target)

    def prepare(word: str) -> object:
        return probe.call(f"prepare {word}", target.prepare, probe.prefix(word))

    def complete(ticket: object, word: str | None) -> None:
        probe.call("complete", target.complete, ticket, None if word is None else probe.bytes_of(word))

    abandoned = prepare("aba")
    assert abandoned is not None, "no room for 3 pages in an empty tier of 6"
    found = probe.lookup("aba")
    assert found == 0, f"hit of {found} pages whose bytes have not come yet"
    complete(abandoned, None)
    found = probe.lookup("aba")
    assert found == 0, f"hit of {found} pages of a store that was abandoned"
    probe.audit()
    first, twin = prepare("aba"), prepare("aba")
    assert first is not None, "no room for 3 pages in an empty tier of 6"
    complete(first, "aba")
    if twin is not None:
        complete(twin, None)
    found = probe.lookup("aba")
    assert found == 3, f"{found} of 3 completed pages are found after a twin of the store was abandoned"
    late = prepare("bab")
    assert late is not None, "no room for 3 pages beside 3 that nobody holds"
    for word in ("caa", "cba"):
        probe.store(word)  # crowds out what it may, refused or not
    complete(late, "bab")
    with probe.held("bab") as hold:
        assert hold.pages == 3, f"{hold.pages} of 3 pages are found whose store was completed under pressure"
        wrong = probe.wrong(hold, "bab")
        assert wrong is None, f"completed under pressure: {wrong}"
    holders = probe.audit()
    assert holders == 0, f"{holders} holds are counted while nothing is held"
    record_property("evidence", "stores pending, abandoned, twice at once, and completed under pressure")
