"""KV-014."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import unsupported

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory

WORDS = ("aba", "baa", "caa", "abb")


@check(
    "KV-014",
    feature="prefix-cache",
    bound="exact: what the last tier has room for is found again, with its bytes",
    sources=(
        "https://github.com/sgl-project/sglang/issues/27108",
        "https://github.com/sgl-project/sglang/issues/31108",
        "https://github.com/LMCache/LMCache/issues/4385",
    ),
)
def test_kv_014(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """After a restart the persistent tier has what it had, and nothing else

    Look at whether a page is in the index before its bytes are durable, and whether a failed backup counts as one. For
    targets that claim ``restart``.
    """
    from gaugeblock.fixtures.targets.kv_probe import KVProbe

    target = kv_target(6, 16)
    if "restart" not in target.capabilities:
        unsupported(f"{target.name} does not claim restart")
    probe = KVProbe(target)
    for word in WORDS:
        probe.store(word)
    read = 0
    for turn in range(2):
        probe.call("restart", target.restart)
        for word in WORDS:
            with probe.held(word) as hold:
                assert hold.pages == 3, f"after restart {turn + 1} {hold.pages} of 3 pages of {word} are found"
                wrong = probe.wrong(hold, word)
                assert wrong is None, f"after restart {turn + 1}, {word}: {wrong}"
                read += hold.pages
        holders = probe.audit()
        assert holders == 0, f"{holders} holds are counted while nothing is held"
    found = probe.lookup("cba")
    assert found == 1, f"{found} pages of a prefix are found of which 1 was stored"
    record_property("evidence", f"{read} pages read back after two restarts")
