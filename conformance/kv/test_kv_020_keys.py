"""KV-020."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

from gaugeblock.conformance.check import check

TAIL = [0, 1, 255, 256, 65535, 65536, 2**31, 2**31 + 1, -1]  # what other widths and signs take for one another


@check(
    "KV-020",
    feature="kv-keys",
    bound="exact: SHA-256 collides with a probability of 2^-128 at most over the keys of any deployment",
    sources=(
        "https://github.com/vllm-project/vllm/issues/44701",
        "https://github.com/sgl-project/sglang/issues/33268",
        "https://github.com/vllm-project/vllm/issues/12621",
        "https://github.com/LMCache/LMCache/issues/3301",
        "https://github.com/sgl-project/sglang/pull/36409",
    ),
)
def test_kv_020(record_property: Callable[[str, object], None]) -> None:
    """Everything that a page's bytes depend on changes its key, and no two of them share an encoding

    The model, its revision and constants, dtype, every number of the layout, rank and size of tensor parallelism,
    adapter, salt, the tokens and all before them. Look at what is hashed, and at how its fields are told apart.
    """
    from gaugeblock.reference.kv.keys import chain_keys, page_key, root_key, space_key
    from gaugeblock.reference.kv.storage import KVShape

    shape = {"layers": 2, "kv_heads": 4, "head_dim": 8, "page_size": 16}
    base = {"model": "m@1", "dtype": "float32", "rope_theta": 1e4, "tp_rank": 0, "tp_size": 1}
    changes = {"model": "m@2", "dtype": "bfloat16", "rope_theta": 5e5, "tp_rank": 1, "tp_size": 2}

    def root(shape_change: dict[str, int], **change: object) -> bytes:
        fields: dict[str, object] = {**base, **change}
        return root_key(
            str(fields["model"]),
            str(fields["dtype"]),
            KVShape(**{**shape, **shape_change}),
            constants={"rope_theta": fields["rope_theta"]},
            tp_rank=int(str(fields["tp_rank"])),
            tp_size=int(str(fields["tp_size"])),
        )

    roots = {"nothing": root({})}
    roots |= {name: root({}, **{name: value}) for name, value in changes.items()}
    roots |= {name: root({name: value + 1}) for name, value in shape.items()}
    roots |= {"layers and kv_heads, exchanged,": root({"layers": shape["kv_heads"], "kv_heads": shape["layers"]})}
    for name, key in roots.items():
        assert name == "nothing" or key != roots["nothing"], f"two roots that differ in {name} are equal"

    plain = roots["nothing"]
    texts = ("", "x", "y", "xy", "x\0", "\0x", 'x"', ', "salt": "x"', "x/y", "None")
    spaces = {
        f"adapter {adapter!r} and salt {salt!r}": space_key(plain, adapter=adapter, salt=salt)
        for adapter in texts
        for salt in texts
    }
    assert_distinct(spaces)
    assert not {*roots.values()} & {*spaces.values()} - {plain}, "the key of an adapter or a salt is another root"

    tokens = list(range(shape["page_size"]))
    chains = {f"root of other {name}": chain_keys(key, tokens, shape["page_size"])[0] for name, key in roots.items()}
    assert_distinct(chains)
    pages = {f"tokens {tail}": page_key(plain, [7, *tail]) for tail in lists(TAIL)}
    pages |= {f"tokens {tail} after a page": page_key(page_key(plain, [7]), list(tail)) for tail in lists(TAIL)}
    pages |= {f"tokens {tail} after another root": page_key(roots["dtype"], [7, *tail]) for tail in lists(TAIL)}
    assert_distinct(pages)
    both = {*roots.values(), *spaces.values()} & {*pages.values()}
    assert not both, f"{len(both)} page keys are roots: what is hashed does not say which it is"
    keys = [*roots.values(), *spaces.values(), *pages.values()]
    assert all(len(key) == 32 for key in keys), (
        f"keys have {sorted({len(key) for key in keys})} bytes: others are easy to hit"
    )
    record_property("evidence", f"{len(set(keys))} different keys of {len(roots)} roots, {len(spaces)} spaces, pages")


def lists(tokens: list[int]) -> Iterable[tuple[int, ...]]:
    """Return every list of up to two tokens in their order, none of them twice."""
    return [(), *((token,) for token in tokens), *combinations(tokens, 2)]


def assert_distinct(keys: dict[str, bytes]) -> None:
    """Fail, naming the first two things that share a key."""
    owner: dict[bytes, str] = {}
    for name, key in keys.items():
        assert key not in owner, f"{name} has the key of {owner[key]}"
        owner[key] = name
