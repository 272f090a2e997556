"""KV-010."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory


@check(
    "KV-010",
    feature="prefix-cache",
    bound="exact",
    sources=(
        "https://github.com/vllm-project/vllm/issues/29870",
        "https://github.com/LMCache/LMCache/issues/3130",
        "https://github.com/sgl-project/sglang/issues/38319",
    ),
)
def test_kv_010(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """What is held stays, with its bytes, until the last holder lets go

    Two readers share a prefix; one leaves; then more is stored than there is room for. Look at whether a release counts
    holders or frees, and whether victims are asked for their holders.
    """
    from gaugeblock.fixtures.targets.kv_probe import KVProbe

    probe = KVProbe(kv_target(6, 6))
    probe.store("aba")
    first, second = probe.hold("aba"), probe.hold("aba")
    assert (first.pages, second.pages) == (3, 3), f"two readers hold {first.pages} and {second.pages} pages of 3"
    probe.release(first)
    others = ["baa", "bba", "caa", "cba", "cca"]
    kept = [probe.store(word) for word in others]
    assert sum(kept) >= 12, f"{kept} pages were kept of prefixes of 3: nothing was crowded out, nothing was checked"
    if "evict" in probe.target.capabilities:
        probe.call("evict 6", probe.target.evict, 6)
    wrong = probe.wrong(second, "aba")
    assert wrong is None, f"after one of two readers left and {sum(kept)} pages were stored, {wrong}"
    found = probe.lookup("aba")
    assert found == 3, f"{found} of 3 held pages are found"
    assert probe.audit() > 0, "three pages are held, no hold is counted"
    probe.release(second)
    holders = probe.audit()
    assert holders == 0, f"{holders} holds are counted while nothing is held"
    record_property("evidence", f"3 held pages kept their bytes while {sum(kept)} others came")
