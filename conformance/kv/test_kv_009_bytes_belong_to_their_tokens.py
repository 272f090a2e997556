"""KV-009."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory

WORDS = ("aba", "baa", "caa", "abb", "acc")  # 14 pages, some of them shared


@check(
    "KV-009",
    feature="prefix-cache",
    bound="exact: bytes that moved are the bytes that were stored",
    sources=(
        "https://github.com/LMCache/LMCache/issues/4385",
        "https://github.com/sgl-project/sglang/issues/31427",
    ),
)
def test_kv_009(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """A page that comes back from any tier holds the bytes of its own tokens

    More is stored than the fastest tier takes, then all of it is asked for twice. Look at when a copy is taken, under
    which key it is filed, and whether its place is reused before it was read.
    """
    from gaugeblock.fixtures.targets.kv_probe import KVProbe

    probe = KVProbe(kv_target(6, 16))
    for word in WORDS:
        kept = probe.store(word)
        assert kept == 3, f"{kept} of 3 pages of {word} were kept while nothing is held"
    read = 0
    for word in WORDS * 2:
        with probe.held(word) as hold:
            wrong = probe.wrong(hold, word)
            assert wrong is None, f"{word}: {wrong}"
            read += hold.pages
    assert read >= 12, f"{read} pages came back: nothing was checked"
    holders = probe.audit()
    assert holders == 0, f"{holders} holds are counted while nothing is held"
    record_property("evidence", f"{read} pages of {len(WORDS)} prefixes read back, tiers of {probe.tiers} pages")
