"""KV-012."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kv_target import KVFactory

NEIGHBOURS = {"bab": 0, "abc": 2, "aab": 1, "ba": 0, "ab": 2, "abab": 3, "cba": 0}
"""How much of a prefix is found when "aba" alone was stored: it ends at the first page that differs."""
SPACES = ({"adapter": "x"}, {"salt": "x"}, {"adapter": "xy"}, {"adapter": "x", "salt": "y"}, {"salt": "xy"})


@check(
    "KV-012",
    feature="prefix-cache",
    bound="exact: a hit is the longest run of pages stored under the same tokens, adapter and salt",
    sources=(
        "https://github.com/vllm-project/vllm/issues/12621",
        "https://github.com/vllm-project/vllm/issues/44701",
        "https://github.com/sgl-project/sglang/issues/24638",
        "https://github.com/LMCache/LMCache/issues/3301",
        "https://github.com/sgl-project/sglang/issues/26886",
    ),
)
def test_kv_012(kv_target: KVFactory, record_property: Callable[[str, object], None]) -> None:
    """Only the same tokens after the same tokens are a hit, under the same adapter and the same salt

    Look at what a page's key covers: all tokens before it, each token whole, and adapter and salt in fields of their
    own, so that an adapter called like another's salt does not share its pages.
    """
    from gaugeblock.fixtures.targets.kv_probe import KVProbe

    probe = KVProbe(kv_target(12, 12))
    probe.store("aba")
    for word, wanted in NEIGHBOURS.items():
        found = probe.lookup(word)
        assert found == wanted, f"hit of {found} pages for {word}, {wanted} of this prefix were stored"
    spaces: list[dict[str, str]] = [s for s in SPACES if set(s) <= probe.target.capabilities]
    probe.call("clear", probe.target.clear)
    probe.store("a")
    for number, space in enumerate(spaces):
        found = probe.lookup("a", **space)
        assert found == 0, f"under {space} a page is found that was stored under {[{}, *spaces[:number]]}"
        probe.store("a", **space)
    for space in ({}, *spaces):
        with probe.held("a", **space) as hold:
            assert hold.pages == 1, f"the page stored under {space} is not found"
            wrong = probe.wrong(hold, "a", **space)
            assert wrong is None, f"under {space}: {wrong}"
    record_property("evidence", f"{len(NEIGHBOURS)} neighbours, {len(spaces)} adapters and salts")
