"""KV-013."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import unsupported

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory


@check(
    "KV-013",
    feature="prefix-cache",
    bound="exact",
    level="extended",
    sources=("https://github.com/LMCache/LMCache/issues/3130",),
)
def test_kv_013(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """A second release of a hold is refused and takes nothing from another reader

    A release that passes twice takes away a holder that belongs to somebody else, and the page is reused under them.
    Look at who remembers what is live. For targets that claim to notice it (``double-release``).
    """
    from gaugeblock.fixtures.targets.kv_probe import KVProbe

    target = kv_target(6, 6)
    if "double-release" not in target.capabilities:
        unsupported(f"{target.name} does not claim double-release")
    probe = KVProbe(target)
    probe.store("aba")
    mine, theirs = probe.hold("aba"), probe.hold("aba")
    assert (mine.pages, theirs.pages) == (3, 3), f"{mine.pages} and {theirs.pages} pages are held: nothing was checked"
    probe.release(mine)
    holders = probe.audit()
    try:
        target.release(mine)
    except Exception as error:  # whatever the target calls it
        said = f"{type(error).__name__}: {error}"
    else:
        raise AssertionError("a second release of 3 pages was accepted")
    after = probe.audit()
    assert after == holders, f"{holders} holders became {after} by a release that was refused"
    for word in ("baa", "caa", "bba"):
        probe.store(word)
    wrong = probe.wrong(theirs, "aba")
    assert wrong is None, f"after a double release, of another reader's pages {wrong}"
    probe.release(theirs)
    record_property("evidence", f"refused: {said}")
