"""KV-003."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench


@check(
    "KV-003",
    feature="prefix-cache",
    bound="exact",
    sources=(
        "https://github.com/LMCache/LMCache/issues/3130",
        "https://github.com/vllm-project/vllm/issues/29870",
    ),
)
def test_kv_003(kv_bench: type[KVBench], record_property: Callable[[str, object], None]) -> None:
    """A page that somebody holds is never evicted or given to another

    Under pressure a request that does not fit is turned away and changes nothing. Look at how victims are chosen, and
    whether a hit is held before room is made for the rest of its request.
    """
    from gaugeblock.fixtures.targets.inprocess_kv import PAGE, tokens_of

    bench = kv_bench(8)
    bench.fill(tokens_of("read", 3))
    bench.fill(tokens_of("idle", 2))
    reader = bench.begin(tokens_of("read", 3))
    assert reader is not None
    assert reader.hit_tokens == 3 * PAGE, f"the reader's hit is {reader.hit_tokens} tokens: nothing was checked"
    too_long = bench.begin(tokens_of("too long", 6))
    assert too_long is None, (
        f"6 pages were given out of 8 although 3 are held: {sorted(set(too_long.pages) & set(reader.pages))} twice"
    )
    both = [*tokens_of("idle", 2), *tokens_of("grows", 3)]  # needs every page that is not held, its own hit among them
    writer = bench.begin(both)
    assert writer is not None, "5 pages wanted, 3 free and 2 cached ones that belong to the request: turned away"
    shared = set(writer.pages) & set(reader.pages)
    assert not shared, f"pages {sorted(shared)} are held by two requests that share no token"
    assert len(set(writer.pages)) == 5, f"pages {writer.pages} hold 5 pages of tokens"
    bench.compute(writer, both)
    for name, allocation, tokens in (("reader", reader, tokens_of("read", 3)), ("writer", writer, both)):
        wrong = bench.wrong_page(allocation, tokens, len(tokens) // PAGE)
        assert wrong is None, f"the {name}'s {wrong}"
    bench.release(writer)
    bench.release(reader)
    bench.fill(tokens_of("last", 8))
    assert bench.manager.evicted >= 8, f"{bench.manager.evicted} pages were evicted in the end: nothing was checked"
    record_property("evidence", "3 held pages kept their bytes while every other page of 8 was wanted")
