"""KV-006."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench


@check(
    "KV-006",
    feature="prefix-cache",
    bound="exact",
    sources=("https://github.com/LMCache/LMCache/issues/3130",),
)
def test_kv_006(kv_bench: type[KVBench], record_property: Callable[[str, object], None]) -> None:
    """Releasing twice raises, and leaves the pages of everybody else alone

    A second release that passes takes a holder away from a page that two requests share. Look at who keeps track of
    what is live.
    """
    from gaugeblock.fixtures.targets.inprocess_kv import PAGE, tokens_of

    bench = kv_bench(8)
    tokens = tokens_of("shared", 3)
    bench.fill(tokens)
    mine, theirs = bench.begin(tokens), bench.begin(tokens)
    assert mine is not None
    assert theirs is not None
    assert mine.pages == theirs.pages, f"pages {mine.pages} and {theirs.pages}: nothing is shared, nothing was checked"
    bench.release(mine)
    message = bench.release_again(mine)
    assert message is not None, f"a second release of {3 * PAGE} tokens was accepted"
    bench.audit("a double free")
    shared = [bench.manager.pool.refs[page] for page in theirs.pages]
    assert shared == [1, 1, 1], f"after a double free the pages of another request have {shared} holders instead of 1"
    bench.release(theirs)
    record_property("evidence", f"refused: {message}")
